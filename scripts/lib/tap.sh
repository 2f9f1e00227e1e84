# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# For tests in which the host's own network stack is the peer: runs the test that sources this once
# more in a network namespace of its own, and makes the TAP interface "vnettest" there. After check.sh.

HOST=10.99.0.1
BUSYBOX=$ROOT/usr/bin/busybox

own_network "TAP"

$BUSYBOX ip link set lo up
check "a TAP interface can be made" "$BUSYBOX" tunctl -t vnettest
# Without IPv6 the host sends only what it is asked to send: no reports of groups, no solicitations.
no_ipv6=/proc/sys/net/ipv6/conf/vnettest/disable_ipv6
[ ! -e $no_ipv6 ] || echo 1 >$no_ipv6
$BUSYBOX ip addr add "$HOST/24" dev vnettest
$BUSYBOX ip link set vnettest up
