#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# One interrupt vector for each queue pair and one for control; fewer interrupts than packets.
. "$(dirname "$0")/../lib/check.sh"

boot SMP=2 QUEUES=2 MEM=1G
guest_check "two queue pairs" '
  [ -e /sys/class/net/vnet0/queues/tx-1 ]
  [ -e /sys/class/net/vnet0/queues/rx-1 ]'
guest_check "three vectors" 'cat /proc/interrupts; [ $(vectors | wc -l) = 3 ]'
guest_check "a ping raises interrupts" '
  before=$(interrupts)
  pings
  [ $(($(interrupts) - before)) -ge 3 ]'
guest_check "the vector of each pair rises when both CPUs send" '
  vectors >/tmp/before
  for cpu in 0 1; do
    taskset -c $cpu ping -c 30 -i 0.05 -W 2 $gateway >/dev/null &
  done
  wait
  vectors >/tmp/after
  cat /proc/interrupts
  [ $(paste /tmp/before /tmp/after | awk "\$2 > \$1" | wc -l) -ge 2 ]'
guest_check "fewer interrupts than packets in bulk transfers" '
  packets=$(($(stat_of rx_packets) + $(stat_of tx_packets))) before=$(interrupts)
  echo "50000000 1" | nc $gateway 5002 >/dev/null
  head -c 50000000 /dev/zero | nc $gateway 5001 >/dev/null
  packets=$(($(stat_of rx_packets) + $(stat_of tx_packets) - packets))
  raised=$(($(interrupts) - before))
  echo "$raised interrupts, $packets packets"
  [ $raised -gt 0 ]
  [ $raised -lt $packets ]' 120

# Once a timer polls, the rings must not be armed; when it has found nothing often enough, they must.
# On one pair: the core goes on deferring for a NAPI that receives, and which pair has the answers is
# up to a hash with a random key.
guest_check "while the core defers interrupts the card raises none" '
  device=/sys/class/net/vnet0
  ethtool -L vnet0 combined 1
  echo 2000000 >$device/gro_flush_timeout
  echo 10000 >$device/napi_defer_hard_irqs
  pings
  before=$(interrupts)
  pings -i 0.01 -c 100
  from_card 3000000 4
  raised=$(($(interrupts) - before))
  echo 5 >$device/napi_defer_hard_irqs
  pings
  echo 0 >$device/napi_defer_hard_irqs
  echo 0 >$device/gro_flush_timeout
  ethtool -L vnet0 combined 2
  echo "$raised interrupts"
  [ $raised -lt 10 ]' 120
guest_check "afterwards it raises them again" '
  pings
  before=$(interrupts)
  pings
  [ $(($(interrupts) - before)) -ge 3 ]'
guest_check "data arrives intact for processes that poll busily" '
  echo 200 >/proc/sys/net/core/busy_read
  echo 200 >/proc/sys/net/core/busy_poll
  from_card 20000000 5
  to_card 20000000
  pings
  echo 0 >/proc/sys/net/core/busy_read
  echo 0 >/proc/sys/net/core/busy_poll' 120
finish
