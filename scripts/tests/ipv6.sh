#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# IPv6: neighbour discovery, address by router advertisement, ping, TCP.
. "$(dirname "$0")/../lib/check.sh"

boot
guest_check "router advertisement gives an address" '
  for i in $(seq 50); do
    if ip -6 addr show dev vnet0 scope global -tentative | grep "inet6 fd76:6e65:7400:"; then exit 0; fi
    usleep 200000
  done
  ip -6 addr
  exit 1'
guest_check "ping the gateway's link-local address" 'ping -6 -c 3 -i 0.2 -W 5 fe80::1%vnet0'
for size in 64 1400 5000 9000; do
  guest_check "ping the gateway's address, payload $size" "gateway=\$gateway6; pings -6 -s $size"
done
guest_check "5 MB of TCP each way" 'from_card 5000000 3 $gateway6; to_card 5000000 $gateway6' 120
guest_check "frames are counted as IPv6" '
  [ $(counter rx_ipv6) -gt 10 ]
  [ $(counter tx_ipv6) -gt 10 ]'
finish
