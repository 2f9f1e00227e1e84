#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# Two cards in one guest, each with its own device server.
. "$(dirname "$0")/../lib/check.sh"

boot NICS=2 SMP=2
guest_check "vnet0 and vnet1 have addresses of their own" "
  grep -x $(guest_mac 0) /sys/class/net/vnet0/address
  grep -x $(guest_mac 1) /sys/class/net/vnet1/address"
# Both LANs have the same addresses, so the cards are used one after the other.
guest_check "ping through the first" 'ip addr flush dev vnet1; pings -I vnet0'
guest_check "ping through the second, with the first unbound" '
  basename "$(readlink /sys/class/net/vnet0/device)" >/sys/bus/pci/drivers/vnet/unbind
  [ ! -e /sys/class/net/vnet0 ]
  ip addr add $guest/24 dev vnet1
  pings -I vnet1'
finish
