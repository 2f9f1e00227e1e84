#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# A transmit queue that makes no progress: the stack's watchdog calls, the driver resets the card,
# and traffic flows again. The queue gets stuck because interrupts are lost: MSI-X is masked as a
# whole in the card's config space, behind the driver's back.
. "$(dirname "$0")/../lib/check.sh"

boot
IN_GUEST+='
config=/sys/class/net/vnet0/device/config
byte() {
  hexdump -s $1 -n 1 -e "1/1 \"%u\"" $config
}

# lose_interrupts ON: 1 or 0. Bit 6 of the upper byte of the control word in the capability MSI-X.
lose_interrupts() {
  at=$(byte 52)
  while [ $(byte $at) != 17 ]; do at=$(byte $((at + 1))); done
  control=$(($(byte $((at + 3))) & ~64 | 64 * $1))
  printf "\\$(printf %03o $control)" | dd of=$config bs=1 seek=$((at + 3)) conv=notrunc 2>/dev/null
}
'
guest_check "traffic, and no timeout so far" '
  pings
  [ $(counter tx_timeouts) = 0 ]
  [ $(counter resets) = 0 ]'
guest_check "without interrupts nothing gets through" '
  lose_interrupts 1
  refused ping -c 3 -i 0.2 -W 1 $gateway
  lose_interrupts 0
  pings'
guest_check "the watchdog finds the stuck queue, and the driver resets the card" '
  lose_interrupts 1
  bash -c "exec 3<>/dev/udp/$gateway/9; dd if=/dev/zero bs=1400 count=3000 >&3" >/dev/null 2>&1 &
  for i in $(seq 150); do
    ! dmesg | grep -q "vnet0: resetting the card" || break
    usleep 100000
  done
  lose_interrupts 0
  dmesg >/tmp/log
  tail -n 20 /tmp/log
  grep "vnet0: transmit queue 0 is stuck" /tmp/log
  grep "vnet0: resetting the card" /tmp/log'
# Nothing else is sent meanwhile: the reset itself has to set going what the stack held back.
guest_check "the sender goes on" '
  for i in $(seq 50); do
    pidof dd >/dev/null || break
    usleep 100000
  done
  tc -s qdisc show dev vnet0
  refused pidof dd
  tc -s qdisc show dev vnet0 | grep "backlog 0b 0p"'
guest_check "traffic again" 'pings; from_card 5000000 8; to_card 5000000'
guest_check "it took one timeout and one reset" '
  [ $(counter tx_timeouts) = 1 ]
  [ $(counter resets) = 1 ]'
guest_check "no frame of before the reset counts as in flight" '
  grep -x 0 /sys/class/net/vnet0/queues/tx-0/byte_queue_limits/inflight'
# shellcheck disable=SC2034 # read by kernel_log_clean
LOG_EXPECTED='NETDEV WATCHDOG: .*: transmit queue 0 timed out'
finish
