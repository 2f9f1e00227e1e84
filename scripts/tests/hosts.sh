#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# Two machines on two hosts, which are joined by bridges and VXLAN as docs/deploy.md has it. A host is a network
# namespace with a vnetd of its own.
. "$(dirname "$0")/../lib/check.sh"
. "$(dirname "$0")/../lib/two-guests.sh"
own_network "hosts"

ip() {
  "$ROOT/usr/lib64/ld-linux-x86-64.so.2" --library-path "$ROOT/usr/lib/x86_64-linux-gnu" "$ROOT/usr/bin/ip" "$@"
}
# at HOST COMMAND...: what a host does in its network.
at() {
  local pid=$1
  shift
  if [ "$1" = ip ]; then
    shift
    set -- "$ROOT/usr/lib64/ld-linux-x86-64.so.2" --library-path "$ROOT/usr/lib/x86_64-linux-gnu" "$ROOT/usr/bin/ip" "$@"
  fi
  nsenter --net="/proc/$pid/ns/net" "$@"
}
child unshare --net sleep 600
A=$!
child unshare --net sleep 600
B=$!
trap 'guests_stop; kill "$A" "$B" 2>/dev/null' EXIT
for host in "$A" "$B"; do
  in_its_network "$host" || exit
done

# What docs/deploy.md has an administrator do on each host, with a wire between them.
wire() {
  ip link add wire-a mtu 9100 netns "/proc/$A/ns/net" type veth peer name wire-b netns "/proc/$B/ns/net" &&
    at "$A" ip link set wire-a mtu 9100 && at "$B" ip link set wire-b mtu 9100
}
underlay() {
  at "$1" ip addr add "$3/24" dev "$2" && at "$1" ip link set "$2" up && at "$1" ip link set lo up
}
overlay() {
  at "$1" ip link add br0 type bridge &&
    at "$1" ip link add vxlan42 type vxlan id 42 local "$2" remote "$3" dstport 4789 &&
    at "$1" ip link set vxlan42 mtu 9000 master br0 &&
    at "$1" ip link set br0 mtu 9000 &&
    at "$1" ip link set vxlan42 up && at "$1" ip link set br0 up
}
if ! output=$(wire 2>&1); then
  skip "hosts: this machine makes no pairs of interfaces ($output)"
  exit
fi
check "the wire between the hosts" eval 'underlay "$A" wire-a 192.0.2.1 && underlay "$B" wire-b 192.0.2.2'
check "a bridge with a VXLAN port on each" eval 'overlay "$A" 192.0.2.1 192.0.2.2 && overlay "$B" 192.0.2.2 192.0.2.1'

boot_as a NET="tap:name=vm0,netns=/proc/$A/ns/net,bridge=br0" MEM=384M
boot_as b NET="tap:name=vm0,netns=/proc/$B/ns/net,bridge=br0" MEM=384M
port_of_the_bridge() {
  at "$1" ip -o link show vm0 | tee /dev/stderr | grep ',UP,.*mtu 9000.*master br0'
}
check "vnetd has made each TAP a port of its host's bridge" eval 'port_of_the_bridge "$A" && port_of_the_bridge "$B"'
for n in 1 2; do
  on "$(nth $((n - 1)) a b)" guest_check "machine $n has an address, and an MTU of 9000" "
    ip link set vnet0 mtu 9000
    ip addr add 10.8.0.$n/24 dev vnet0"
done
on a guest_check "ping, also in jumbo frames" '
  within 10 ping -c 1 -W 1 10.8.0.2
  ping -c 3 -i 0.2 -W 5 10.8.0.2
  ping -c 3 -i 0.2 -W 5 -M do -s 8972 10.8.0.2'
on b guest_check "the second machine serves" '
  iperf3 -s -D
  nc -l -p 7001 -e sha256sum </dev/null >/dev/null 2>&1 &
  within 10 sh -c "netstat -ltn | grep -q :7001"
  within 10 sh -c "netstat -ltn | grep -q :5201"'
on a guest_check "a file arrives as it was sent" '
  head -c 20000000 /dev/urandom >/tmp/file
  [ "$(nc 10.8.0.2 7001 </tmp/file)" = "$(sha256sum </tmp/file)" ]'
on a guest_check "TCP in both directions" '
  iperf -c 10.8.0.2 -t 2
  iperf -c 10.8.0.2 -t 2 -R'
tunnelled() {
  local bytes
  bytes=$(at "$A" cat /proc/net/dev | sed -n 's/^ *vxlan42: *//p' | awk '{ print $1 + $9 }')
  echo "$bytes bytes by VXLAN"
  [ "$bytes" -gt 20000000 ]
}
check "it went through the tunnel" tunnelled
for name in a b; do
  on $name guest_check "no errors in machine $name" '
    [ $(cat /sys/class/net/vnet0/statistics/tx_errors) = 0 ]
    [ $(cat /sys/class/net/vnet0/statistics/rx_errors) = 0 ]'
done
# refused_with PART BACKEND: vnetd says that in one line, and ends.
refused_with() {
  local told
  told=$("$REPO/scripts/vnetd" --socket "$GUEST_DIR/x.sock" --net "$2" 2>&1)
  [ $? = 1 ] && echo "$told" && [ "$(wc -l <<<"$told")" = 1 ] && grep -qF "$1" <<<"$told"
}
check "a bridge that is not there is told" refused_with "cannot join bridge br9 (there is no such bridge)" \
  "tap:name=vm2,netns=/proc/$A/ns/net,bridge=br9"
check "so is a namespace that is none" refused_with "cannot enter network namespace /proc/self/status (it is none)" \
  "tap:name=vm2,netns=/proc/self/status,bridge=br0"
finish_guests
