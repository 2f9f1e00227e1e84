#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# The card misbehaves in every way that docs/faults.md knows, one after the other, under load: each
# time traffic flows again by itself when that ends, the driver has counted what it saw, and the
# kernel has nothing to complain about. A long run tries every fault with every kind of traffic.
# "--long" does so here, "--only PATTERN" takes a part of the table, and with "--unshared" the card has to ask for
# the guest's memory.
. "$(dirname "$0")/../lib/check.sh"
. "$REPO/scripts/lib/xdp.sh"

long=${VNET_LONG:-} only='*' memory=shared rows=0
while [ $# -gt 0 ]; do
  case $1 in
    --long) long=1 ;;
    --only) only=${2:?} && shift ;;
    --unshared) memory=private ;;
    *) die "usage: ${0##*/} [--long] [--only PATTERN] [--unshared]" ;;
  esac
  shift
done

# Fault, kind of traffic in a short run, and the counters of "ethtool -S" of which one must move. Of two, the first
# is what it is about: while one frame at a time is on its way, each has the id of the one before, rightly.
table="\
lost-interrupt rate=1/4           | ping    | rx[0-9]_lost_interrupts
lost-interrupt queue=tx           | tcp-out |
late-interrupt every=2 delay=20ms | tcp-in  |
duplicate-interrupt               | udp     |
spurious-interrupt                | xdp     |
used-id-range every=10            | tcp-in  | [rt]x[0-9]_bad_id
used-id-repeated every=3 + stall every=20 delay=50ms | tcp-out | [rt]x[0-9]_bad_id
used-order                        | udp     |
used-len-long every=10            | tcp-in  | [rt]x[0-9]_bad_length
used-len-short rate=1/10          | udp     |
used-len-zero rate=1/10           | tcp-in  | rx[0-9]_bad_(frames|buffers)
used-index every=10               | gso     | [rt]x[0-9]_bad_index
stall rate=1/50 delay=300ms       | tcp-out |
stop-fetching queue=tx            | gso     |
stop-fetching queue=rx            | tcp-in  |
dma-error rate=1/50               | udp     | queue_errors
frame-lost rate=1/10              | tcp-in  |
frame-corrupt rate=1/10           | tcp-out |
frame-truncated rate=1/10         | udp     |
frame-oversized rate=1/10         | xdp     |
frame-duplicated                  | tcp-in  |
frame-reordered                   | tcp-out |
bad-checksum rate=1/10            | tcp-in  | rx[0-9]_bad_frames
bad-segments rate=1/10            | xdp     | rx[0-9]_bad_frames
link-down                         | ping    | link_changes
register-ones                     | tcp-out | lost_cards
register-flip rate=1/3            | udp     |
config-ones                       | ping    |
reset every=20                    | tcp-in  | lost_states|queue_errors|resets
slow-mmio delay=2ms               | tcp-out |"
cpus=$([ -n "$long" ] && echo 2 || echo 1)
# Seconds for each fault. The debug kernel gets by with a few frames a second at times.
hold=$((cpus * ($(slowness) + 1) / 2))
kinds=(ping tcp-in tcp-out udp gso xdp)

IN_GUEST+='
counters() {
  ethtool -S vnet0 2>/dev/null | sed -nE "s/^ *($1): //p" | awk "{ n += \$1 } END { print n + 0 }"
}

# load KIND: traffic until /tmp/stop is there, whatever becomes of it; and looks at registers and
# config space. What gets through is noted, see flowing in in-guest.sh.
load() {
  while [ ! -e /tmp/stop ]; do
    hexdump -n 64 /sys/class/net/vnet0/device/config
    ethtool -S vnet0
    usleep 100000
  done &
  while [ ! -e /tmp/stop ]; do
    case $1 in
      ping) timeout 2 /usr/bin/ping -f -w 1 -s 1400 $gateway && echo pings >>/tmp/flows ;;
      tcp-in | xdp) echo "8000000 9" | timeout $((3 * slowness)) nc $gateway 5002 | arriving ;;
      tcp-out) leaving 4000000 | timeout $((3 * slowness)) nc $gateway 5001 ;;
      udp)
        timeout 1 bash -c "exec 3<>/dev/udp/$gateway/7
          dd if=/dev/zero bs=1200 count=500 >&3 & exec cat <&3" | arriving ;;
      gso)
        echo "8000000 9" | timeout $((3 * slowness)) nc $gateway 5002 | arriving &
        leaving 4000000 | timeout $((3 * slowness)) nc $gateway 5001
        wait $! ;;
    esac || usleep 10000
  done
  wait
}
# begin KIND PATTERN: says what the counters were. Then there is such traffic.
begin() {
  echo $(counters resets) $([ -z "$2" ] || counters "$2")
  rm -f /tmp/stop /tmp/ping
  ping -i 0.02 -W 1 $gateway >/tmp/ping 2>&1 &
  echo $! >/tmp/ping.pid
  if [ $1 = xdp ]; then
    ip -force link set vnet0 xdpdrv obj /root/programs.o program pass_frags >&2
    has_program
  fi
  load $1 >/dev/null 2>&1 &
  echo $! >/tmp/load.pid
  case $1 in
    ping) flowing pings ;;
    tcp-out) flowing out ;;
    gso) flowing in out ;;
    *) flowing in ;;
  esac >&2
}
has_program() { ip link show vnet0 | grep -q prog/xdp; }
hundredths() {
  sed "s/ .*//; s/\.//" /proc/uptime
}
# recovered KIND PATTERN RESETS BEFORE: how long it took until there was an answer, what was lost, and that all is well.
recovered() {
  since=$(hundredths)
  within 15 ping -c 1 -W 1 $gateway >/dev/null 2>&1
  took=$(($(hundredths) - since))
  touch /tmp/stop
  killall -q nc dd cat head bash || true
  killall -INT ping
  within 5 [ ! -e /proc/$(cat /tmp/load.pid) ]
  within 5 [ ! -e /proc/$(cat /tmp/ping.pid) ]
  if [ $1 = xdp ]; then
    has_program
    ip link set vnet0 xdpdrv off
  fi
  sed -nE "s/([0-9]+) packets transmitted, ([0-9]+) received.*/\1 \2/p" /tmp/ping >/tmp/pings
  read sent got </tmp/pings
  echo "$took $((sent - got)) $sent $(($(counters resets) - $3))"
  from_card 300000 5 >&2
  to_card 300000 >&2
  # An id that is repeated in a later poll cannot be told from a right one. But the card has that buffer twice from then
  # on, which shows when both come back in one poll.
  for turn in 1 2 3 4 5; do
    [ -z "$2" ] || [ $(counters "$2") -gt $4 ] || from_card 3000000 $turn >&2
  done
  if [ "$2" ]; then
    echo "$2: $4 before, $(counters "$2") now" >&2
    [ $(counters "$2") -gt $4 ]
  fi
}
'

# row FAULT TRAFFIC COUNTERS
row() {
  local before begun output status times took lost sent resets hold=$hold
  # One round is all that this is about, and a queue that stands still for longer is stuck.
  [[ $1 != stop-fetching* ]] || hold=$((hold < 3 ? hold : 3))
  before=$(in_guest "begin $2 '$3'")
  begun=$?
  # A slow guest may do nothing for as long that a fault could come to.
  for _ in 1 2 3 4 5; do
    faults "${1// + /$'\n'}" || break
    sleep "$hold"
    faults
    read -r times _ < <(faults_done)
    [ "${times:-0}" = 0 ] || break
  done
  output=$(in_guest "recovered $2 '$3' $before" 2>&1)
  status=$?
  read -r took lost sent resets < <(grep -E '^[0-9]+ [0-9]+ [0-9]+ [0-9]+$' <<<"$output")
  if [ $begun = 0 ] && [ $status = 0 ] && [ "${times:-0}" -gt 0 ]; then
    ok "$(printf '%-34s %-7s: %5s times, back after %3d.%02d s, %4s of %4s pings lost, %s resets' \
      "$1" "$2" "$times" $((took / 100)) $((took % 100)) "$lost" "$sent" "$resets")"
  else
    not_ok "$1, $2: begun with status $begun, ended with $status, came to pass ${times:-0} times"
    printf '%s\n' "$output" | sed 's/^/    /'
    tail -n 5 "$GUEST_DIR/vnetd0.log" | sed 's/^/    /'
    guest 'dmesg | tail -n 20; ethtool -S vnet0 | grep -v ": 0$"; ip link show vnet0' | sed 's/^/    /'
  fi
}
in_guest() {
  guest "set -e
$IN_GUEST
$1" 60
}

# keeps_word FAULT: what the card says of rings and registers is true all the same, so that the sanitizer can look on.
# Otherwise it would blame the driver; and it has to see memory itself.
keeps_word() {
  [ $memory = shared ] || return
  case $1 in
    *-interrupt* | used-order | stall* | stop-fetching* | frame-* | bad-* | link-down | slow-mmio*) ;;
    *) return 1 ;;
  esac
}

# guest_with SANITIZE: the rows in which the sanitizer does that, in a guest of their own.
guest_with() {
  local fault traffic counters booted=no
  while IFS='|' read -r fault traffic counters; do
    # The blanks that make it a table.
    read -r fault <<<"$fault"
    read -r traffic <<<"$traffic"
    read -r counters <<<"$counters"
    # shellcheck disable=SC2053 # a pattern
    [[ $fault == $only ]] || continue
    rows=$((rows + 1))
    [ "$(keeps_word "$fault" && echo strict || echo off)" = "$1" ] || continue
    if [ $booted = no ]; then
      boot FAULTS=yes VNETD_LOG=info SMP="$cpus" QUEUES="$cpus" SANITIZE="$1" MEMORY="$memory" </dev/null
      booted=yes
    fi
    if [ -n "$long" ]; then
      for traffic in "${kinds[@]}"; do row "$fault" "$traffic" "$counters" </dev/null; done
    else
      row "$fault" "$traffic" "$counters" </dev/null
    fi
    [ "$fault" != register-ones ] || without_registers </dev/null
  done <<<"$table"
  [ $booted = yes ] || return 0
  no_watchdog
  finish_guest
}

no_watchdog() {
  guest_check "no transmit queue needed the watchdog" '[ $(counter tx_timeouts) = 0 ]'
}

without_registers() {
  # Before the module is loaded anew, which counts anew.
  no_watchdog
  faults register-ones
  guest_check "without registers the interface goes down, and the module out and in" '
    ip link set vnet0 down
    refused ip link set vnet0 up
    rmmod vnet
    insmod /vnet.ko
    [ ! -e /sys/class/net/vnet0 ]
    dmesg | grep "card does not answer"'
  faults
  guest_check "with registers, it is a card as any other" '
    rmmod vnet
    insmod /vnet.ko
    readdress
    pings'
  faults register-ones
  guest_check "an interface that is set down meanwhile comes up afterwards" '
    within 5 eval "[ \$(counter lost_cards) = 1 ]"
    ip link set vnet0 down'
  faults
  guest_check "... at once" 'readdress; pings; from_card 300000 5'
  guest_check "traffic in both directions" 'traffic'
  # With --unshared, queues take a while to come to rest. All ones say nothing about that.
  faults "register-ones rate=1/2"
  guest_check "set down under traffic while every other read gives all ones" 'ip link set vnet0 down'
  faults
  check "... which some do" faults_came
  guest_check "... and up again" '
    ip link set vnet0 up
    readdress
    end_traffic
    pings
    from_card 300000 5'
  # Nor does a single look at a queue, whatever it gives: each is asked again before its buffers are freed.
  faults "register-ones register=Q_STATUS at=1"
  guest_check "set down while the first queue that is asked gives all ones" 'ip link set vnet0 down'
  faults
  check "... and is asked again" asked_again
  guest_check "... and up again" 'readdress; pings; from_card 300000 5'
  faults register-ones
  guest_check "without registers, a reset by the PCI core" 'echo 1 >/sys/class/net/vnet0/device/reset'
  faults
  check "... which it does without" faults_came
  guest_check "with registers, the card is in use by itself" 'within 15 ping -c 1 -W 1 $gateway; from_card 300000 5'
}
asked_again() {
  local times looks
  read -r times looks < <(faults_done)
  echo "$looks looks at $((2 * cpus)) queues, of which $times gave all ones"
  [ "$times" = 1 ] && [ "$looks" -gt $((4 * cpus)) ]
}

check "XDP programs compile" xdp_programs
FILES=("$XDP_PROGRAMS")
guest_with strict
guest_with off
[ $rows -gt 0 ] || not_ok "there is a fault like $only"
exit $((CHECKS_FAILED > 0))
