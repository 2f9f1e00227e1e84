#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# A TAP with more queues than the guest runs: the host must lose no frame to those that nobody reads.
. "$(dirname "$0")/../lib/check.sh"

own_network "TAP"

box=$ROOT/usr/bin/busybox
host_iperf3() {
  "$ROOT/usr/lib64/ld-linux-x86-64.so.2" --library-path "$ROOT/usr/lib/x86_64-linux-gnu" \
    "$ROOT/usr/bin/iperf3" "$@"
}

# The host begins each connection, before the guest has sent anything of it: the kernel chooses the
# queue by hash. Each of the eight must carry data.
connections() {
  local streams
  # As iperf in lib/in-guest.sh.
  for _ in {1..10}; do
    ! host_iperf3 -c 10.99.0.2 -P 8 -t 2 --connect-timeout 5000 >"$GUEST_DIR/iperf3.log" 2>&1 || break
    ! grep -q bits/sec "$GUEST_DIR/iperf3.log" || break
    sleep 0.5
  done
  cat "$GUEST_DIR/iperf3.log"
  streams=$(grep -E '^\[ +[0-9]+\].*receiver$' "$GUEST_DIR/iperf3.log" | grep -cv ' 0.00 bits/sec')
  [ "$streams" = 8 ]
}

boot NET=tap:name=vnettest QUEUES=4 SMP=2
$box ip link set lo up
$box ip addr add 10.99.0.1/24 dev vnettest
$box ip link set vnettest up
guest_check "two of four queue pairs run" '
  ip addr add 10.99.0.2/24 dev vnet0
  ethtool -l vnet0 | tail -n 6 | grep "Combined:.*2"
  within 10 grep -qx 1 /sys/class/net/vnet0/carrier
  iperf3 -s -D
  within 10 grep -q ":1451 .* 0A " /proc/net/tcp6'
check "the host reaches the guest on two queues" connections
guest_check "one queue pair" 'ethtool -L vnet0 combined 1'
check "the host reaches the guest on one queue" connections
guest_check "two queue pairs again" 'ethtool -L vnet0 combined 2'
check "the host reaches the guest on two queues again" connections
finish
