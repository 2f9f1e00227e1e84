#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# The card on a TAP interface: the host's own network stack is the peer. All in a network namespace.
. "$(dirname "$0")/../lib/check.sh"

if [ -z "${VNET_TEST_TAP:-}" ]; then
  user=()
  [ "$(id -u)" = 0 ] || user=(--user --map-root-user)
  if [ ! -c /dev/net/tun ] || ! unshare "${user[@]}" --net true 2>/dev/null; then
    skip "TAP: this machine has no /dev/net/tun or gives no network namespace"
    exit
  fi
  VNET_TEST_TAP=1 exec unshare "${user[@]}" --net "$0"
fi

host=10.99.0.1
box=$ROOT/usr/bin/busybox
host_program() {
  local lib=$ROOT/usr/lib/x86_64-linux-gnu program=$1
  shift
  child "$ROOT/usr/lib64/ld-linux-x86-64.so.2" --library-path "$lib" "$ROOT$program" "$@"
}

$box ip link set lo up
check "a TAP interface can be made" "$box" tunctl -t vnettest
$box ip addr add $host/24 dev vnettest
$box ip link set vnettest up

boot NET=tap:name=vnettest MEM=1G
guest_check "link is up" 'ip addr add 10.99.0.2/24 dev vnet0; ip link show dev vnet0 | grep LOWER_UP'
$box ip link set vnettest down
guest_check "the guest sees the link go" '
  within 10 grep -qx 0 /sys/class/net/vnet0/carrier
  dmesg | grep "vnet0: link down"'
$box ip link set vnettest up
guest_check "the guest sees the link come" '
  within 10 grep -qx 1 /sys/class/net/vnet0/carrier
  [ $(counter link_changes) -ge 3 ]'
guest_check "ping the host" 'gateway=10.99.0.1; pings; pings -s 9000'
check "ping from the host" "$box" ping -c 3 -W 5 10.99.0.2
host_program /usr/bin/iperf3 -s -B $host >"$GUEST_DIR/iperf3.log" 2>&1
guest_check "TCP to the host" 'iperf3 -c 10.99.0.1 -t 3'
guest_check "TCP from the host" 'iperf3 -c 10.99.0.1 -t 3 -R'
guest_check "UDP to the host" 'iperf3 -c 10.99.0.1 -u -b 20M -t 2'
guest_check "UDP from the host" 'iperf3 -c 10.99.0.1 -u -b 20M -t 2 -R'
guest_check "no errors" '[ $(stat_of tx_errors) = 0 ]; [ $(stat_of rx_errors) = 0 ]'
finish
