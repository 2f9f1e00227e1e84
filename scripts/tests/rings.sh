#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# The sizes of the rings change while frames flow.
. "$(dirname "$0")/../lib/check.sh"

boot SMP=2 QUEUES=2 MEM=1G
IN_GUEST+='
# sizes: of the receive and of the transmit ring, as in use.
sizes() {
  ethtool -g vnet0 | sed -n "/^Current/,\$ s/^[RT]X:[[:space:]]*//p" | xargs
}
'
guest_check "rings may have 4096 descriptors" '
  ethtool -g vnet0
  [ $(ethtool -g vnet0 | grep -cE "^[RT]X:[[:space:]]*4096\$") = 2 ]'
guest_check "every power of two from 64 to 4096" '
  for n in 64 128 256 512 1024 2048 4096; do
    ethtool -G vnet0 rx $n tx $n
    [ "$(sizes)" = "$n $n" ]
    flood_pings 100
  done'
guest_check "one ring at a time" '
  ethtool -G vnet0 rx 64
  [ "$(sizes)" = "64 4096" ]
  ethtool -G vnet0 tx 128
  [ "$(sizes)" = "64 128" ]
  pings -s 1400'
guest_check "other sizes are refused, with a reason, and change nothing" '
  for n in 0 1 32 63 65 100 4095 4097 8192 65536 4294967295; do
    refused ethtool -G vnet0 rx $n
    refused ethtool -G vnet0 tx $n
  done
  ethtool -G vnet0 tx 100 2>&1 | grep "power of two"
  [ "$(sizes)" = "64 128" ]
  pings'
guest_check "the sizes hold through down and up, and a change of channels" '
  ip link set vnet0 down
  ethtool -G vnet0 rx 512
  readdress
  ethtool -L vnet0 combined 1
  [ "$(sizes)" = "512 128" ]
  ethtool -L vnet0 combined 2
  [ "$(sizes)" = "512 128" ]
  pings'
guest_check "the smallest rings carry bulk transfers" '
  ethtool -G vnet0 rx 64 tx 64
  from_card 20000000 3
  to_card 20000000' 120
guest_check "the sizes change during a transfer, which loses nothing" '
  rm -f /tmp/done
  ( from_card 60000000 5 && touch /tmp/done ) &
  for n in 64 1024 256 4096 128; do
    ethtool -G vnet0 rx $n tx $n
    usleep 200000
  done
  wait
  [ -e /tmp/done ]' 120
# What is in flight is lost with the old rings: little, unless the machine was busy just then, which it is not
# each time.
guest_check "a change loses no more frames than the rings hold" '
  for try in 1 2 3; do
    ethtool -G vnet0 rx 64 tx 64
    ping -i 0.002 -c 1000 $gateway >/tmp/ping &
    for n in 128 64 128 64; do
      usleep 300000
      ethtool -G vnet0 rx $n tx $n
    done
    wait
    tail -n 3 /tmp/ping
    lost=$((1000 - $(sed -n "s/.* \([0-9]*\) received.*/\1/p" /tmp/ping)))
    [ $lost -gt 20 ] || break
  done
  [ $lost -le 20 ]' 120
guest_check "the sizes change 30 times under traffic" '
  traffic
  for i in $(seq 30); do
    ethtool -G vnet0 rx $((64 << i % 5)) tx $((64 << i % 3))
    usleep 100000
  done
  end_traffic
  pings
  flood_pings 1000' 120
guest_check "nothing is left in flight" '
  for queue in /sys/class/net/vnet0/queues/tx-*; do
    within 5 grep -qx 0 $queue/byte_queue_limits/inflight
  done
  [ $(counter resets) = 0 ]
  [ $(counter queue_errors) = 0 ]'
finish
