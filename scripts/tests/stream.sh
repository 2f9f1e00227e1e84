#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# Two cards, each joined by a unix socket to a virtio-net card on QEMU's -netdev stream: one has the
# socket, the other connects to QEMU's. The virtio-net cards are in network namespaces of the guest.
. "$(dirname "$0")/../lib/check.sh"

dir=$(mktemp -d "${TMPDIR:-/tmp}/vnet-stream.XXXXXX")
trap 'guest_stop; rm -rf "$dir"' EXIT

NICS=4 KINDS=(vnet vnet virtio-net virtio-net) MEM=1G VNETD_LOG=info
NET=("stream:path=$dir/a,listen" "stream:path=$dir/b" "stream:path=$dir/a" "stream:path=$dir/b,listen")
guest_start
guest_check "both kinds of cards come up, and have a link" '
  vnet-up vnet 2
  modprobe virtio_net
  n=0
  for mac in '"$(guest_mac 2) $(guest_mac 3)"'; do
    file=$(grep -l "$mac" /sys/class/net/*/address)
    device=$(basename "$(dirname "$file")")
    ip netns add far$n
    ip link set "$device" netns far$n name far
    ip -n far$n addr add 10.5.$n.2/24 dev far
    ip -n far$n link set far mtu 9000 up
    ip addr add 10.5.$n.1/24 dev vnet$n
    ip link set vnet$n mtu 9000
    n=$((n + 1))
  done
  for n in 0 1; do within 20 grep -qx 1 /sys/class/net/vnet$n/carrier; done'
for n in 0 1; do
  way=$([ $n = 0 ] && echo "vnetd listens" || echo "QEMU listens")
  guest_check "$way: ping, also in jumbo frames" "
    gateway=10.5.$n.2 pings
    gateway=10.5.$n.2 pings -M do -s 8972"
  guest_check "$way: TCP in both directions, segmented by the card" "
    ip netns exec far$n iperf3 -s -D -1
    before=\$(cat /sys/class/net/vnet$n/statistics/tx_packets)
    within 10 iperf3 -c 10.5.$n.2 -t 2 --bidir --json >/tmp/json || { cat /tmp/json; false; }
    [ \$(cat /sys/class/net/vnet$n/statistics/tx_packets) -gt \$((before + 100)) ]"
  guest_check "$way: files arrive as they were sent" "
    head -c 10000000 /dev/urandom >/tmp/file
    ip netns exec far$n nc -l -p 7001 -e sha256sum &
    within 10 sh -c 'ip netns exec far$n netstat -ltn | grep -q :7001'
    [ \"\$(nc 10.5.$n.2 7001 </tmp/file)\" = \"\$(sha256sum </tmp/file)\" ]
    ip netns exec far$n nc -l -p 7000 -e cat /tmp/file &
    within 10 sh -c 'ip netns exec far$n netstat -ltn | grep -q :7000'
    [ \"\$(nc 10.5.$n.2 7000 </dev/null | sha256sum)\" = \"\$(sha256sum </tmp/file)\" ]"
done
guest_check "no errors" '[ $(stat_of tx_errors) = 0 ]; [ $(stat_of rx_errors) = 0 ]'
finish
