#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# MTU, MAC address and receive mode change, also under traffic; what is out of range is refused.
. "$(dirname "$0")/../lib/check.sh"

boot
guest_check "MTU 68 and 9000 are accepted" 'ip link set vnet0 mtu 9000; ip link set vnet0 mtu 68'
guest_check "MTU 67 and 9001 are refused" '
  refused ip link set vnet0 mtu 67
  refused ip link set vnet0 mtu 9001
  ip link set vnet0 mtu 1500'
# The segments fit every MTU that follows: a peer does not learn of a smaller one by itself.
guest_check "MTU changes during a transfer" '
  ip link set vnet0 mtu 576
  transfers
  for mtu in 9000 1500 4000 576 9000 1280 2000 1500; do
    ip link set vnet0 mtu $mtu
    usleep 100000
  done
  end_transfers' 120
guest_check "MAC address changes, and frames to the new one arrive" '
  ip link set vnet0 address 02:11:22:33:44:55
  tcpdump -n -e -l -i vnet0 icmp >/tmp/frames 2>/tmp/tcpdump &
  within 10 grep -q "listening on" /tmp/tcpdump
  pings
  within 10 grep "> 02:11:22:33:44:55.*echo reply" /tmp/frames
  kill $!
  wait'
guest_check "it changes with the interface up and under traffic" '
  traffic
  for i in 1 2 3 4 5; do
    ip link set vnet0 address 02:11:22:33:44:0$i
    usleep 300000
  done
  end_traffic
  pings'
guest_check "a multicast address is refused" 'refused ip link set vnet0 address 01:00:5e:00:00:01'
guest_check "the address outlives down and up" '
  ip link set vnet0 down
  ip link set vnet0 up
  grep -x 02:11:22:33:44:05 /sys/class/net/vnet0/address
  pings'
guest_check "promiscuous and all-multicast mode go on and off" '
  ip link set vnet0 promisc on
  ip link set vnet0 allmulticast on
  pings
  ip link set vnet0 promisc off
  ip link set vnet0 allmulticast off
  pings'
guest_check "forty multicast groups, more than the card filters" '
  for i in $(seq 40); do ip maddr add 33:33:00:00:01:$(printf %02x $i) dev vnet0; done
  pings
  for i in $(seq 40); do ip maddr del 33:33:00:00:01:$(printf %02x $i) dev vnet0; done
  pings'
finish
