#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# Receive side scaling as ethtool shows and sets it: table, key, hash fields, symmetry.
. "$(dirname "$0")/../lib/check.sh"

boot SMP=2 QUEUES=4 MEM=1G
IN_GUEST+='
# table: the entries of the indirection table, in a row.
table() {
  ethtool -x vnet0 | sed -n "s/^ *[0-9]*:  *//p" | xargs
}
# pairs: how often each pair is in the table.
pairs() {
  table | tr " " "\n" | sort -n | uniq -c | awk "{ print \$2 \":\" \$1 }" | xargs
}
key() {
  ethtool -x vnet0 | grep -E "^([0-9a-f]{2}:){39}[0-9a-f]{2}\$"
}
fields() {
  ethtool -n vnet0 rx-flow-hash $1
}
# arrives PAIR: what comes in now comes to this pair, and to no other.
arrives() {
  for i in 0 1 2 3; do eval "before$i=$(counter rx${i}_packets)"; done
  pings
  from_card 200000 3
  for i in 0 1 2 3; do
    eval "came=\$((\$(counter rx${i}_packets) - before$i))"
    echo "pair $i: $came"
    if [ $i = $1 ]; then [ $came -gt 3 ]; else [ $came = 0 ]; fi || return
  done
}
'
guest_check "the table is spread evenly over the pairs in use" '
  ethtool -x vnet0
  [ "$(pairs)" = "0:64 1:64" ]
  ethtool -x vnet0 | grep "toeplitz: on"'
guest_check "the key is random, not zero" '
  key
  refused [ "$(key | tr -d 0:)" = "" ]'
guest_check "it follows the number of pairs" '
  ethtool -L vnet0 combined 4
  [ "$(pairs)" = "0:32 1:32 2:32 3:32" ]
  ethtool -L vnet0 combined 1
  [ "$(pairs)" = "0:128" ]
  pings
  ethtool -L vnet0 combined 4
  pings'
guest_check "... while the interface is down, too" '
  ip link set vnet0 down
  ethtool -L vnet0 combined 2
  [ "$(pairs)" = "0:64 1:64" ]
  ethtool -L vnet0 combined 4
  readdress
  [ "$(pairs)" = "0:32 1:32 2:32 3:32" ]'
guest_check "frames go where the table says" '
  pair=0
  for weights in "1 0 0 0" "0 1 0 0" "0 0 1 0" "0 0 0 1"; do
    ethtool -X vnet0 weight $weights
    [ "$(pairs)" = "$pair:128" ]
    arrives $pair
    pair=$((pair + 1))
  done'
guest_check "a table that the user chose survives down, up and other settings" '
  ethtool -X vnet0 weight 0 0 1 0
  ip link set vnet0 down
  readdress
  ethtool -G vnet0 rx 512
  [ "$(pairs)" = "2:128" ]
  arrives 2'
guest_check "pairs that it names cannot go" '
  refused ethtool -L vnet0 combined 2
  ethtool -L vnet0 combined 3
  [ "$(pairs)" = "2:128" ]
  arrives 2'
guest_check "by default again" '
  ethtool -X vnet0 default
  [ "$(pairs)" = "0:43 1:43 2:42" ]
  ethtool -L vnet0 combined 4
  [ "$(pairs)" = "0:32 1:32 2:32 3:32" ]'
guest_check "entries of pairs that do not run are refused" '
  ethtool -L vnet0 combined 2
  refused ethtool -X vnet0 equal 3
  ethtool -X vnet0 equal 2
  [ "$(pairs)" = "0:64 1:64" ]
  ethtool -X vnet0 default'
guest_check "a key is kept, through down and up too" '
  key=$(for i in $(seq 10 49); do printf ":%02x" $i; done)
  ethtool -X vnet0 hkey ${key#:}
  ip link set vnet0 down
  readdress
  echo "$key"; key
  [ "$(key)" = "${key#:}" ]
  pings'
guest_check "hash functions that the card does not have are refused" '
  refused ethtool -X vnet0 hfunc xor
  ethtool -X vnet0 hfunc toeplitz'
guest_check "ports of TCP are hashed, those of UDP are not, until told otherwise" '
  fields tcp4; fields udp4
  for flow in tcp4 tcp6; do fields $flow | grep "dst port"; done
  for flow in udp4 udp6 sctp4; do
    fields $flow | grep "IP DA"
    refused eval "fields $flow | grep \"dst port\""
  done
  ethtool -N vnet0 rx-flow-hash udp4 sdfn
  fields udp4 | grep "dst port"
  refused eval "fields udp6 | grep \"dst port\""
  ethtool -N vnet0 rx-flow-hash udp4 sd
  refused eval "fields udp4 | grep \"dst port\""
  ethtool -N vnet0 rx-flow-hash tcp4 sd
  ethtool -N vnet0 rx-flow-hash tcp4 sdfn'
guest_check "other choices of fields are refused" '
  for f in s d sf sdf n v; do refused ethtool -N vnet0 rx-flow-hash tcp4 $f; done
  refused ethtool -N vnet0 rx-flow-hash sctp4 sdfn'
guest_check "symmetric by exclusive or, and not by another rule" '
  ethtool -X vnet0 xfrm symmetric-xor
  ethtool -x vnet0 | grep "symmetric-xor: on"
  refused ethtool -X vnet0 xfrm symmetric-or-xor
  ip link set vnet0 down
  readdress
  ethtool -x vnet0 | grep "symmetric-xor: on"
  pings
  ethtool -X vnet0 xfrm none
  ethtool -x vnet0 | grep "symmetric-xor: off"'
guest_check "all of it changes under traffic" '
  traffic
  for i in $(seq 20); do
    ethtool -X vnet0 equal $((i % 2 + 1))
    ethtool -X vnet0 xfrm symmetric-xor
    ethtool -N vnet0 rx-flow-hash tcp4 sd
    usleep 50000
    ethtool -X vnet0 default
    ethtool -X vnet0 xfrm none
    ethtool -N vnet0 rx-flow-hash tcp4 sdfn
    usleep 50000
  done
  end_traffic
  flood_pings 1000' 120
finish
