#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# Checksums inside a tunnel are left to the card, like others. What the card sends comes back here,
# complete, for without receive offloads nothing else may.
. "$(dirname "$0")/../lib/check.sh"

boot NET=loopback
guest_check "set up: a tunnel over the card, to a peer that is nowhere" '
  ethtool -K vnet0 rx off
  echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6
  ip addr add 192.0.2.1/24 dev vnet0
  ip neigh add 192.0.2.2 lladdr 02:00:00:00:00:99 dev vnet0
  modprobe vxlan
  ip link add tunnel0 type vxlan id 7 remote 192.0.2.2 dstport 4789 udpcsum dev vnet0
  ip addr add 198.51.100.1/24 dev tunnel0
  ip link set tunnel0 up
  ip neigh add 198.51.100.2 lladdr 02:00:00:00:00:77 dev tunnel0
  ip route get 198.51.100.2'
guest_check "frames of TCP and UDP in it" '
  tcpdump -n -U -i vnet0 -Q out -w /tmp/sent "udp port 4789" 2>/tmp/told.out &
  sender=$!
  tcpdump -n -U -i vnet0 -Q in -w /tmp/back "udp port 4789" 2>/tmp/told.in &
  receiver=$!
  for way in out in; do within 10 grep -q listening /tmp/told.$way; done
  timeout 3 nc 198.51.100.2 80 </dev/null || true
  for datagram in 1 2 3; do bash -c "echo datagram $datagram >/dev/udp/198.51.100.2/9"; done
  # The kernel keeps the last ones from tcpdump for a second.
  sleep 2
  kill $sender $receiver
  wait
  for file in sent back; do
    tcpdump -n -vv -r /tmp/$file >/tmp/$file.text
    grep -E "Flags|UDP, length|sum" /tmp/$file.text
  done
  grep "Flags \[S\]" /tmp/back.text
  [ $(grep -c "VXLAN.* vni 7" /tmp/back.text) -ge 4 ]'
guest_check "the driver left their checksums to the card" '
  grep "Flags \[S\], cksum 0x[0-9a-f]* (incorrect" /tmp/sent.text
  grep "bad udp cksum .* UDP, length 11" /tmp/sent.text'
guest_check "the card summed them up, inside" '
  grep "Flags \[S\], cksum 0x[0-9a-f]* (correct)" /tmp/back.text
  [ $(grep -c "\[udp sum ok\] UDP, length 11" /tmp/back.text) = 3 ]
  refused grep -E "incorrect|bad udp cksum" /tmp/back.text'
guest_check "and the checksum of the tunnel itself is right" '
  [ $(grep -c "\[udp sum ok\] VXLAN" /tmp/back.text) = $(grep -c VXLAN /tmp/back.text) ]'
finish
