#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# The card stands still and goes on a step at a time, under a driver that knows nothing of it.
. "$(dirname "$0")/../lib/check.sh"

ctl() {
  "$REPO/scripts/vnetctl" --socket "$GUEST_DIR/control.sock" "$@"
}
# sum_of COLUMN: a counter of both queues together: 8 doorbells, 9 interrupts.
sum_of() {
  ctl counters nic0 | awk -v column="$1" 'NR > 1 { n += $column } END { print n }'
}
# part JSON PATTERN: what the group in it finds.
part() {
  sed -nE "s/.*$2.*/\1/p" <<<"$1"
}

boot CONFIG=yes VNETD_LOG=info
guest_check "pings, and the address of the gateway stays known" '
  pings
  mac=$(ip neigh show "$gateway" dev vnet0 | sed "s/.*lladdr \([0-9a-f:]*\).*/\1/")
  ip neigh replace "$gateway" lladdr "$mac" nud permanent dev vnet0'

check "the card is paused" ctl pause nic0
is_paused() {
  ctl show nic0 | grep -x 'paused    rx0, tx0'
}
check "and vnetctl says so" is_paused

# walk: pings, and steps until the answer is with the guest. The file `way` says what was done, with queue and name.
# Interrupts are raised with "signal" and at no other time, the used index moves with "use", and each
# step was announced by the one before. Only a driver that loses patience and resets the card has it begin
# anew, with "fetch".
walk() {
  local told queue name before after entries came=no
  local -A announced=() used=()
  : >"$GUEST_DIR/way"
  guest 'ping -c 1 -W 60 10.77.0.1 >/tmp/ping 2>&1 &'
  before=$(sum_of 9)
  for _ in $(seq 200); do
    told=$(ctl --json step nic0) || return
    printf '%s\n' "$told"
    queue=$(part "$told" '"queue":"([a-z]+[0-9]+)"\}$')
    name=$(part "$told" '"did":\{"section":"[^"]*","step":"([a-z]+)"')
    printf "%s-%s " "$queue" "$name" >>"$GUEST_DIR/way"
    after=$(sum_of 9)
    case $name in
      signal) [ "$after" = "$((before + 1))" ] || return ;;
      *) [ "$after" = "$before" ] || return ;;
    esac
    before=$after
    case ${announced[$queue]:-$name} in
      "$name") ;;
      *) [ "$name" = fetch ] || return ;;
    esac
    announced[$queue]=$(part "$told" '"next":\{"section":"[^"]*","step":"([a-z]+)"')
    if [ "$name" = use ]; then
      entries=$(part "$told" '"new":([0-9]+)')
      [ "$entries" = $((($(part "$told" '"old":([0-9]+)') + 1) % 65536)) ] || return
    fi
    # Once the card is through with the answer ping has it, or will.
    [ "$queue-$name" != rx0-use ] || came=yes
    if [ $came = yes ] && [ "${announced[rx0]}" = fetch ] && guest 'grep -q "1 received" /tmp/ping'; then
      return
    fi
  done
  return 1
}
# The driver looks at its rings now and then without an interrupt: what it finds before the card decides needs none.
walk_to_signal() {
  for _ in 1 2 3 4 5; do
    walk || return
    ! grep -q rx0-signal "$GUEST_DIR/way" || return 0
  done
  return 1
}
check "a ping is sent and answered step by step, and each does what it says" walk_to_signal
in_order() {
  cat "$GUEST_DIR/way"
  grep -E "tx0-fetch .*tx0-read .*tx0-hand .*tx0-use .*tx0-decide .*rx0-use .*rx0-decide .*rx0-signal" "$GUEST_DIR/way"
}
check "all steps of the way, in order" in_order
in_words() {
  local told
  told=$(ctl step nic0:tx0)
  printf '%s\n' "$told"
  grep -q '^tx0: avail index [0-9]*, next to fetch [0-9]*: ' <<<"$told" &&
    grep -q '^ *docs/datasheet.md#' <<<"$told" && grep -q '^ *next ' <<<"$told"
}
check "a step in words, with the section of the data sheet" in_words
check "the card runs again" ctl resume nic0
guest_check "and all that it did is counted" '
  pings
  grep "1 packets transmitted, 1 received" /tmp/ping
  from_card 300000 5; to_card 300000'

# held STEPS: the card is paused, and has a frame of the guest in hand, so far.
held() {
  local told n=0
  ctl pause nic0 >/dev/null || return
  guest 'ping -c 1 -W 1 10.77.0.1 >/dev/null 2>&1 &'
  # Until the guest has sent it, there is nothing to read.
  until told=$(ctl --json step nic0:tx0) && [ "$(part "$told" '"did":\{"section":"[^"]*","step":"([a-z]+)"')" = read ]; do
    printf '%s\n' "$told"
    [ $((n += 1)) -le 200 ] || return
    sleep 0.02
  done
  [ "$1" = 2 ] || ctl step nic0:tx0 -n $(($1 - 2))
}
check "a frame is fetched and read" held 2
guest_check "the interface goes down at once, and comes up" '
  ip link set vnet0 down
  ip link set vnet0 up'
check "the card runs again" ctl resume nic0
guest_check "pings" 'readdress; pings'
check "a frame is handed over" held 3
guest_check "the driver is unloaded at once, and loaded" 'rmmod vnet; insmod /vnet.ko'
check "the card runs again" ctl resume nic0
guest_check "pings" 'readdress; pings'
check "a frame is in the used ring, without an interrupt" held 4
guest_check "the card is removed from the bus at once, and found again" '
  device=$(readlink -f /sys/class/net/vnet0/device)
  echo 1 >"$device/remove"
  [ ! -e /sys/class/net/vnet0 ]
  echo 1 >/sys/bus/pci/rescan
  within 10 [ -e /sys/class/net/vnet0 ]'
check "the card runs again" ctl resume nic0
guest_check "pings" 'readdress; pings'

# That is what it does with a card that hangs.
check "the transmit queue is paused for long" ctl pause nic0:tx0
guest_check "the driver resets the card" '
  ping -c 1 -W 1 $gateway || true
  within 30 eval "[ \$(counter resets) -ge 1 ]"'
check "the card runs again" ctl resume nic0
guest_check "and all is well" 'within 20 ping -c 1 -W 1 $gateway; pings; from_card 300000 5; to_card 300000'
# shellcheck disable=SC2034 # read by kernel_log_clean
LOG_EXPECTED='NETDEV WATCHDOG: .*: transmit queue 0 timed out'
finish
