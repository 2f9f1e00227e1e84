#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# A card on one end of a veth pair, by a packet socket; on the other end is another namespace. And two
# cards on both ends of a second pair. All in a network namespace.
. "$(dirname "$0")/../lib/check.sh"
. "$(dirname "$0")/../lib/tap.sh"

ip() {
  "$ROOT/usr/lib64/ld-linux-x86-64.so.2" --library-path "$ROOT/usr/lib/x86_64-linux-gnu" "$ROOT/usr/bin/ip" "$@"
}
child unshare --net "$BUSYBOX" sleep 900
FAR=$!
far() { nsenter --net="/proc/$FAR/ns/net" "$@"; }
in_its_network "$FAR" || exit
if ! ip link add vnetp type veth peer name vnetq; then
  skip "packet: this machine has no veth"
  exit
fi
ip link set vnetp mtu 9000 up
ip link set vnetq netns "$FAR"
far "$BUSYBOX" ip link set lo up
far "$BUSYBOX" ip link set vnetq mtu 9000 up
far "$BUSYBOX" ip addr add 10.98.0.1/24 dev vnetq
ip link add vnetr mtu 9000 type veth peer name vnets mtu 9000
ip link set vnetr up
ip link set vnets up

NET=(packet:name=vnetp packet:name=vnetr packet:name=vnets)
boot NICS=3 MEM=1G QUEUES=2 SMP=2
guest_check "link is up, ping, also in jumbo frames" '
  ip addr add 10.98.0.2/24 dev vnet0
  within 10 grep -qx 1 /sys/class/net/vnet0/carrier
  gateway=10.98.0.1 pings
  ip link set vnet0 mtu 9000
  gateway=10.98.0.1 pings -M do -s 8972'
# The kernel takes the tag off each frame that comes in, and has it beside the frame.
guest_check "a VLAN between two cards" '
  for n in 1 2; do
    ip netns add n$n
    ip link set vnet$n netns n$n
    ip -n n$n link set vnet$n mtu 9000 up
    ip -n n$n link add link vnet$n name v7 type vlan id 7
    ip -n n$n addr add 10.7.0.$n/24 dev v7
    ip -n n$n link set v7 up
  done
  ip netns exec n1 ping -c 3 -i 0.2 -W 5 10.7.0.2
  ip netns exec n1 ping -c 3 -i 0.2 -W 5 -M do -s 8972 10.7.0.2
  ip netns exec n2 iperf3 -s -D
  within 10 ip netns exec n1 iperf3 -c 10.7.0.2 -t 2 --bidir'
child nsenter --net="/proc/$FAR/ns/net" "$ROOT/usr/lib64/ld-linux-x86-64.so.2" \
  --library-path "$ROOT/usr/lib/x86_64-linux-gnu" "$ROOT/usr/bin/iperf3" -s >"$GUEST_DIR/far.log" 2>&1
guest_check "TCP in both directions" '
  iperf -c 10.98.0.1 -t 3
  iperf -c 10.98.0.1 -t 3 -R'
guest_check "TCP to a driver that takes no large frames and no unfinished checksums" '
  ethtool -K vnet0 rx-gro-hw off
  iperf -c 10.98.0.1 -t 2 -R
  ethtool -K vnet0 rx off
  iperf -c 10.98.0.1 -t 2 -R'
far "$BUSYBOX" ip link set vnetq down
guest_check "the other end goes down: so does the carrier" '
  within 10 grep -qx 0 /sys/class/net/vnet0/carrier'
far "$BUSYBOX" ip link set vnetq up
guest_check "and comes back" '
  within 10 grep -qx 1 /sys/class/net/vnet0/carrier
  gateway=10.98.0.1 pings'
guest_check "no errors" '[ $(stat_of tx_errors) = 0 ]; [ $(stat_of rx_errors) = 0 ]'
ip link set vnetp down
ip link set vnetp name vnetp2
ip link set vnetp2 up
guest_check "the interface has another name: that is all" '
  within 10 grep -qx 1 /sys/class/net/vnet0/carrier
  gateway=10.98.0.1 pings'
ip link del vnetp2
ip link add vnetp type veth peer name vnetq
ip link set vnetq up
ip link set vnetp up
guest_check "another interface has the first name: that is another one" '
  within 10 grep -qx 0 /sys/class/net/vnet0/carrier
  sleep 2
  grep -qx 0 /sys/class/net/vnet0/carrier'
# refused INTERFACE WORDS: it is, in one line with these words.
refused() {
  ! "$REPO/scripts/vnetd" --socket "$GUEST_DIR/none" --net "packet:name=$1" 2>"$GUEST_DIR/none.log" &&
    cat "$GUEST_DIR/none.log" && [ "$(wc -l <"$GUEST_DIR/none.log")" = 1 ] && grep -qF "$2" "$GUEST_DIR/none.log"
}
check "an interface that does not exist is refused in one line" refused nosuch \
  "cannot open interface nosuch (there is no such interface)"
ip tuntap add mode tun name vnettun
check "so is one that is not of Ethernet" refused vnettun "cannot use interface vnettun: it is not one of Ethernet"
ip link set vnetr mtu 1400
child "$REPO/scripts/vnetd" --socket "$GUEST_DIR/short" --net packet:name=vnetr 2>"$GUEST_DIR/short.log"
warned() {
  for _ in $(seq 100); do
    grep 'WARN.* interface vnetr has an MTU of 1400, and a card has 1500 at least' "$GUEST_DIR/short.log" && return
    sleep 0.1
  done
  cat "$GUEST_DIR/short.log"
  return 1
}
check "of one with a short MTU the log says so" warned
finish
