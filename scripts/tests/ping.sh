#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# Ping with payloads from 64 to 9000 bytes, whole and in fragments.
. "$(dirname "$0")/../lib/check.sh"

boot
for size in 64 512 1472 1473 4000 9000; do
  guest_check "payload $size, MTU 1500" "pings -s $size"
done
guest_check "MTU 9000" 'ip link set vnet0 mtu 9000; grep -x 9000 /sys/class/net/vnet0/mtu'
for size in 64 1473 4068 4096 8191 8972 9000; do
  guest_check "payload $size, MTU 9000" "pings -s $size"
done
guest_check "a datagram as large as the MTU goes whole" 'pings -M do -s 8972'
guest_check "a larger one does not" 'refused ping -c 1 -W 1 -M do -s 8973 $gateway'
guest_check "flood of 2000, none lost" 'flood_pings 2000 -s 1400'
finish
