#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# The largest MTU that a card can have: frames up to 64 KiB, whole, in both directions, into rings of
# large buffers and of single pages. The host's own network stack is the peer.
. "$(dirname "$0")/../lib/check.sh"
. "$(dirname "$0")/../lib/tap.sh"

check "the host's end has an MTU of 65510" "$BUSYBOX" ip link set vnettest mtu 65510
boot NET=tap:name=vnettest MTU_MAX=65510 MEM=1G
IN_GUEST+='
gateway=10.99.0.1
# data_arrives: the same bytes there and back.
data_arrives() {
  head -c 3000000 /dev/urandom >/tmp/out
  timeout 30 nc $gateway 7007 </tmp/out >/tmp/in
  cmp /tmp/out /tmp/in
}
'
child "$BUSYBOX" nc -ll -p 7007 -e "$BUSYBOX" cat </dev/null >"$GUEST_DIR/nc.log" 2>&1
guest_check "an MTU of 65510 is accepted, a larger one is not" '
  ip addr add 10.99.0.2/24 dev vnet0
  ip link set vnet0 mtu 65510
  grep -x 65510 /sys/class/net/vnet0/mtu
  refused ip link set vnet0 mtu 65511'
for size in 1500 9000 16384 65482; do
  guest_check "payload $size in one frame" "pings -M do -s $size"
done
guest_check "a datagram larger than the MTU does not go" 'refused ping -c 1 -W 1 -M do -s 65483 $gateway'
guest_check "TCP in both directions" data_arrives
guest_check "TCP while nothing is left to the card" '
  ethtool -K vnet0 tso off tx off gro off rx-gro-hw off
  data_arrives
  ethtool -K vnet0 tx on tso on gro on rx-gro-hw on'
guest_check "rings so large that buffers are single pages" '
  ethtool -G vnet0 rx 4096
  within 5 pings -M do -s 65482
  data_arrives'
guest_check "no frame was dropped or bad" '
  [ $(stat_of rx_errors) = 0 ]
  [ $(stat_of rx_dropped) = 0 ]
  [ $(stat_of tx_errors) = 0 ]'
finish
