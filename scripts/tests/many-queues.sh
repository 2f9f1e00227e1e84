#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# As many queue pairs as a card can have, in a guest with fewer CPUs.
. "$(dirname "$0")/../lib/check.sh"

boot SMP=2 QUEUES=16 MEM=1G
IN_GUEST+='
pairs=$(seq 0 15)
# channels LINE: combined channels, of the maximum (1) or in use (2).
channels() {
  ethtool -l vnet0 | sed -n "s/^Combined:[[:space:]]*//p" | sed -n ${1}p
}
# use PAIR: CPU 0 sends by this pair, and all frames are received by it.
use() {
  for pair in $pairs; do
    echo $([ $pair = $1 ] && echo 1 || echo 0) >/sys/class/net/vnet0/queues/tx-$pair/xps_cpus
  done
  ethtool -X vnet0 weight $(for pair in $pairs; do [ $pair = $1 ] && echo 1 || echo 0; done)
}
'
guest_check "sixteen pairs, of which two CPUs use two" '
  ethtool -l vnet0
  [ $(channels 1) = 16 ]
  [ $(channels 2) = 2 ]'
guest_check "all of them run, each with an interrupt" '
  ethtool -L vnet0 combined 16
  [ $(channels 2) = 16 ]
  [ $(vectors | wc -l) = 17 ]
  pings'
guest_check "each of them sends, receives and interrupts" '
  for n in $pairs; do
    use $n
    sent=$(counter tx${n}_packets) received=$(counter rx${n}_packets)
    before=$(vectors | sed -n $((n + 1))p)
    PING="taskset -c 0 /usr/bin/ping" flood_pings 30
    sent=$(($(counter tx${n}_packets) - sent)) received=$(($(counter rx${n}_packets) - received))
    interrupts=$(($(vectors | sed -n $((n + 1))p) - before))
    echo "pair $n: $sent sent, $received received, $interrupts interrupts"
    [ $sent -ge 30 ]
    [ $received -ge 30 ]
    [ $interrupts -gt 0 ]
  done'
guest_check "a transfer over all of them" '
  ethtool -X vnet0 equal 16
  from_card 20000000 5
  to_card 20000000' 120
guest_check "one pair and sixteen in turn, under traffic" '
  traffic
  for n in 1 16 2 16 1 16; do
    ethtool -X vnet0 default
    ethtool -L vnet0 combined $n
    usleep 300000
  done
  end_traffic
  pings
  [ $(counter resets) = 0 ]
  [ $(counter queue_errors) = 0 ]' 120
finish
