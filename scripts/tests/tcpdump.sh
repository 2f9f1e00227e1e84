#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# tcpdump sees both directions, with the headers that they must have.
. "$(dirname "$0")/../lib/check.sh"

boot
mac=$(guest_mac 0)
guest_check "capture of a ping" '
  tcpdump -n -U -i vnet0 -w /tmp/ping "arp or icmp" 2>/tmp/told &
  within 10 grep -q listening /tmp/told
  ip neigh flush dev vnet0
  pings -p a5
  # The kernel keeps the last ones from tcpdump for a second.
  sleep 2
  kill $!
  wait
  tcpdump -n -e -vv -r /tmp/ping >/tmp/text
  cat /tmp/text'
guest_check "ARP request, broadcast from the card's address" \
  "grep '$mac > ff:ff:ff:ff:ff:ff.*Request who-has '\$gateway.*' tell '\$guest /tmp/text"
guest_check "ARP reply to it" "grep '> $mac.*Reply '\$gateway' is-at' /tmp/text"
guest_check "three echo requests and three replies" '
  [ $(grep -c "ICMP echo request" /tmp/text) = 3 ]
  [ $(grep -c "ICMP echo reply" /tmp/text) = 3 ]'
guest_check "payload arrives as it was sent" '
  tcpdump -n -x -r /tmp/ping "icmp[icmptype] = icmp-echoreply" | grep "a5a5 a5a5 a5a5"'
guest_check "no bad checksum" 'refused grep -i "bad cksum" /tmp/text'
guest_check "DHCP" '
  tcpdump -n -U -i vnet0 -w /tmp/dhcp "udp port 67 or udp port 68" 2>/tmp/told &
  within 10 grep -q listening /tmp/told
  udhcpc -f -n -q -i vnet0 -s /usr/bin/vnet-dhcp
  sleep 2
  kill $!
  wait
  tcpdump -n -v -r /tmp/dhcp >/tmp/text
  for message in Discover Offer Request ACK; do grep -i "DHCP-Message.*: $message" /tmp/text; done'
finish
