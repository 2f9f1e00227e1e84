#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# The hash of received frames gets to the stack: what it is over, its value, and that it named the
# queue pair.
. "$(dirname "$0")/../lib/check.sh"

# key_byte N: of the key that the guest sets.
key_byte() {
  echo $(($1 * 37 % 251))
}
# toeplitz BYTE...: the hash of these bytes, by the definition: for each bit that is set, the 32 bits
# of the key that begin there.
toeplitz() {
  local key=0 hash=0 byte bit at=4 i
  for i in 0 1 2 3; do key=$((key << 8 | $(key_byte $i))); done
  for byte; do
    for bit in 7 6 5 4 3 2 1 0; do
      ((byte >> bit & 1)) && hash=$((hash ^ key))
      key=$(((key << 1 | $(key_byte $at) >> bit & 1) & 0xffffffff))
    done
    at=$((at + 1))
  done
  printf '0x%08x\n' $hash
}
# From the gateway to the guest: addresses, and for TCP ports too.
addresses=(10 77 0 1 10 77 0 2)
ping_hash=$(toeplitz "${addresses[@]}")
key=$(for i in $(seq 0 39); do printf ':%02x' "$(key_byte "$i")"; done)

boot SMP=2 QUEUES=4 MEM=1G
IN_GUEST+='
trace=/sys/kernel/tracing
# hashes COMMAND...: what the driver told the stack of the frames that came meanwhile, one line each:
# protocol, receive queue plus one, hash, whether it covers ports.
hashes() {
  echo "name == \"vnet0\"" >$trace/events/net/napi_gro_receive_entry/filter
  echo 0 >$trace/tracing_on
  echo >$trace/trace
  echo 1 >$trace/events/net/napi_gro_receive_entry/enable
  echo 1 >$trace/tracing_on
  "$@" >/dev/null
  echo 0 >$trace/tracing_on
  sed -n "s/.*napi_gro_receive_entry:.* queue_mapping=\([0-9]*\) .* protocol=\([0-9a-fx]*\) .* hash=\([0-9a-fx]*\) l4_hash=\([01]\) .*/\2 \1 \3 \4/p" $trace/trace >/tmp/hashes
  sort /tmp/hashes | uniq -c
}
# all PROTOCOL END: there were such frames, and their lines all end so.
all() {
  grep "^$1 " /tmp/hashes >/tmp/chosen
  refused grep -v " $2\$" /tmp/chosen
}
# The indirection table, an entry a line.
table() {
  ethtool -x vnet0 | sed -n "s/^ *[0-9]*:  *//p" | xargs -n 1
}
flows() {
  for i in 1 2 3 4 5 6 7 8; do echo "20000 $i" | nc $gateway 5002; done
}
'
guest_check "the feature is on" '
  ethtool -k vnet0 | grep -x "receive-hashing: on"
  ethtool -L vnet0 combined 4'
guest_check "a frame without ports has the hash of its addresses" "
  ethtool -X vnet0 hkey ${key#:}
  hashes pings
  all 0x0800 '$ping_hash 0'"
guest_check "one that is not IP has none" '
  ip neigh flush dev vnet0
  hashes pings
  all 0x0806 "0x00000000 0"'
guest_check "those of TCP have one for each flow, over ports" '
  hashes flows
  all 0x0800 1
  [ "$(cut -d" " -f3 /tmp/chosen | sort -u | wc -l)" = 8 ]'
guest_check "it is what chose the queue pair" '
  table >/tmp/table
  while read -r protocol queue hash ports; do
    pair=$(sed -n "$((hash % 128 + 1))p" /tmp/table)
    [ $queue = $((pair + 1)) ]
  done </tmp/hashes
  [ "$(cut -d" " -f2 /tmp/hashes | sort -u | wc -l)" -gt 1 ]'
port=40123
tcp_hash=$(toeplitz "${addresses[@]}" $((5002 >> 8)) $((5002 & 255)) $((port >> 8)) $((port & 255)))
guest_check "the value is Toeplitz's, over the ports in their order" "
  echo $port $port >/proc/sys/net/ipv4/ip_local_port_range
  flow() { echo '20000 1' | nc \$gateway 5002; }
  hashes flow
  echo 32768 60999 >/proc/sys/net/ipv4/ip_local_port_range
  all 0x0800 '$tcp_hash 1'"
guest_check "with one pair, too" "
  ethtool -L vnet0 combined 1
  hashes pings
  all 0x0800 '1 $ping_hash 0'"
guest_check "switched off, no frame has one; on again, after down and up too" "
  ethtool -K vnet0 rxhash off
  hashes flows
  all 0x0800 '0x00000000 0'
  ethtool -K vnet0 rxhash on
  hashes pings
  all 0x0800 '$ping_hash 0'
  ip link set vnet0 down
  readdress
  hashes pings
  all 0x0800 '$ping_hash 0'"
finish
