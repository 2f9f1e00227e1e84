#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# The device server is killed under traffic: the guest lives on, says so, and gets rid of the card.
. "$(dirname "$0")/../lib/check.sh"

boot
guest_check "traffic" 'ping -f $gateway >/dev/null 2>&1 & sleep 1'
kill -KILL "${VNETD_PIDS[0]}"
wait "${VNETD_PIDS[0]}" 2>/dev/null
unset "VNETD_PIDS[0]"
guest_check "the guest is alive" 'sleep 3; ip -s link show dev vnet0'
guest_check "the driver says so, and not again and again" '
  lines=$(dmesg | grep -ci "vnet.*card.*not answer")
  dmesg | grep -i vnet | tail
  [ $lines -ge 1 ]
  [ $lines -le 2 ]'
guest_check "no command on the interface hangs" '
  ethtool -S vnet0 >/dev/null || true
  ethtool vnet0 >/dev/null || true
  ip link set vnet0 mtu 2000 || true
  ip -s link show vnet0' 20
guest_check "it can be set down" 'killall ping; ip link set vnet0 down' 20
guest_check "rmmod works" 'rmmod vnet; [ ! -e /sys/class/net/vnet0 ]' 20
finish
