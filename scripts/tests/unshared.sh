#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# A QEMU that does not share its memory: the card asks for every byte by message. Slow, but whole.
. "$(dirname "$0")/../lib/check.sh"

# The sanitizer has to see memory itself.
SANITIZE=off
boot MEMORY=private
check "the device server says that it is slow, and why" \
  grep -F 'share=on' "$GUEST_DIR/vnetd0.log"
guest_check "DHCP gave an address" 'ip -4 addr show dev vnet0 | grep "inet $guest/24"'
guest_check "ping" 'pings'
guest_check "ping with 1472 and 8000 bytes" 'pings -s 1472; pings -s 8000'
guest_check "4 MB to the card" 'to_card 4000000' 120
guest_check "4 MB from the card" 'from_card 4000000 5' 120
guest_check "1 MB both ways at once, by echo" '
  head -c 1000000 /dev/urandom >/tmp/data
  nc $gateway 7 </tmp/data >/tmp/back
  cmp /tmp/data /tmp/back' 120
guest_check "down and up under traffic" '
  ping -f -w 3 $gateway >/dev/null &
  for i in 1 2 3; do
    ip link set vnet0 down; ip link set vnet0 up; sleep 0.2
  done
  wait
  ip addr replace $guest/24 dev vnet0
  pings'
guest_check "rmmod and insmod again" '
  rmmod vnet
  vnet-up vnet 1 dhcp
  pings'
finish
