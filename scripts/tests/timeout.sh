#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# A transmit queue that makes no progress: the stack's watchdog calls, the driver resets the card,
# and traffic flows again. The card stops to fetch from it. Lost interrupts alone are no reason: the
# driver finds out by itself.
. "$(dirname "$0")/../lib/check.sh"

boot FAULTS=yes VNETD_LOG=info
guest_check "traffic, and no timeout so far" '
  pings
  [ $(counter tx_timeouts) = 0 ]
  [ $(counter resets) = 0 ]'
faults lost-interrupt
guest_check "without interrupts, frames arrive nevertheless, if late" '
  ping -c 3 -i 0.2 -W 5 $gateway
  [ $(counter rx0_lost_interrupts) -gt 0 ]
  [ $(counter resets) = 0 ]'
faults
guest_check "with interrupts, none is missed" '
  sleep 1
  lost=$(counter rx0_lost_interrupts)
  pings
  [ $(counter rx0_lost_interrupts) = $lost ]'
# Nothing answers what is sent there: what comes in would have the channel polled.
faults "lost-interrupt queue=tx"
guest_check "nor is it one that only the transmit queue waits for: what was sent is found" '
  lost=$(counter rx0_lost_interrupts)
  # Unless something comes in all the same.
  for turn in 1 2 3; do
    bash -c "exec 3<>/dev/udp/$gateway/9; dd if=/dev/zero bs=1400 count=1 >&3"
    within 5 grep -x 0 /sys/class/net/vnet0/queues/tx-0/byte_queue_limits/inflight
    [ $(counter rx0_lost_interrupts) = $lost ] || break
  done
  [ $(counter rx0_lost_interrupts) -gt $lost ]'
guest_check "a sender of more than the stack lets it goes on" '
  bash -c "exec 3<>/dev/udp/$gateway/9; dd if=/dev/zero bs=1400 count=1000 >&3"
  [ $(counter tx_timeouts) = 0 ]
  [ $(counter resets) = 0 ]'
guest_check "what the card has sent by the time that the interface goes down is not dropped" '
  sent=$(counter tx0_packets) shown=$(counter card_tx0_packets)
  bash -c "exec 3<>/dev/udp/$gateway/9; for i in 1 2 3 4 5 6 7 8 9 10; do echo \$i >&3; done"
  within 5 eval "[ \$(counter card_tx0_packets) -ge $((shown + 10)) ]"
  ip link set vnet0 down
  [ $(($(counter tx0_packets) - sent)) -ge 10 ]
  [ $(stat_of tx_dropped) = 0 ]
  readdress'
faults
# The stack may send so few bytes that have not left that it has to stop: so it watches.
faults "stop-fetching queue=tx count=1"
guest_check "the watchdog finds the stuck queue, and the driver resets the card" '
  bash -c "exec 3<>/dev/udp/$gateway/9; dd if=/dev/zero bs=1400 count=3000 >&3" >/dev/null 2>&1 &
  for i in $(seq 150); do
    ! dmesg | grep -q "vnet0: resetting the card" || break
    usleep 100000
  done
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
  within 5 eval "tc -s qdisc show dev vnet0 | grep \"backlog 0b 0p\""'
guest_check "traffic again" 'pings; from_card 5000000 8; to_card 5000000'
guest_check "it took one timeout and one reset" '
  [ $(counter tx_timeouts) = 1 ]
  [ $(counter resets) = 1 ]'
guest_check "no frame of before the reset counts as in flight" '
  within 5 grep -x 0 /sys/class/net/vnet0/queues/tx-0/byte_queue_limits/inflight'
# With as many bytes as a fast transfer got allowed, a single ping does not stop the stack.
faults "stop-fetching queue=tx count=1"
guest_check "a queue that is stuck without the stack knowing is found, too" '
  refused ping -c 1 -W 1 $gateway
  within 20 eval "[ \$(counter resets) = 2 ]"
  pings
  [ $(counter tx_timeouts) = 2 ]'
# shellcheck disable=SC2034 # read by kernel_log_clean
LOG_EXPECTED='NETDEV WATCHDOG: .*: transmit queue 0 timed out'
finish
