#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# The card on a TAP interface: the host's own network stack is the peer. All in a network namespace.
. "$(dirname "$0")/../lib/check.sh"
. "$(dirname "$0")/../lib/tap.sh"

boot NET=tap:name=vnettest MEM=1G
guest_check "link is up" 'ip addr add 10.99.0.2/24 dev vnet0; ip link show dev vnet0 | grep LOWER_UP'
$BUSYBOX ip link set vnettest down
guest_check "the guest sees the link go" '
  within 10 grep -qx 0 /sys/class/net/vnet0/carrier
  dmesg | grep "vnet0: link down"'
$BUSYBOX ip link set vnettest up
guest_check "the guest sees the link come" '
  within 10 grep -qx 1 /sys/class/net/vnet0/carrier
  [ $(counter link_changes) -ge 3 ]'
guest_check "ping the host" 'gateway=10.99.0.1; pings; pings -s 9000'
check "ping from the host" "$BUSYBOX" ping -c 3 -W 5 10.99.0.2
# hears COUNT: of three frames to a group so many come through the card's filter.
hears() {
  guest 'cat /sys/class/net/vnet0/statistics/multicast >/tmp/multicast' || return
  "$BUSYBOX" ping -q -c 3 -W 1 -I vnettest 224.0.0.9
  guest "came=\$((\$(cat /sys/class/net/vnet0/statistics/multicast) - \$(cat /tmp/multicast)))
    echo came: \$came
    [ \$came = $1 ]"
}
# after COMMAND COUNT
after() {
  guest "$1" && hears "$2"
}
guest 'echo 1 >/proc/sys/net/ipv6/conf/vnet0/disable_ipv6'
check "a group that nobody has joined is not for the card" hears 0
join='ip addr add 224.0.0.9/32 dev vnet0 autojoin' leave='ip addr del 224.0.0.9/32 dev vnet0'
check "one that somebody has joined is" after "$join" 3
check "... until he leaves it" after "$leave" 0
check "with promiscuous mode all is" after 'ip link set vnet0 promisc on' 3
check "... until that ends" after 'ip link set vnet0 promisc off' 0
check "with all-multicast mode all groups are" after 'ip link set vnet0 allmulticast on' 3
check "... until that ends, too" after 'ip link set vnet0 allmulticast off' 0
# A reset is not long: as often as it takes until it is still going afterwards.
guest_check "a group is joined in the middle of a reset" '
  in_the_middle() {
    echo 1 >/sys/class/net/vnet0/device/reset &
    usleep 20000
    '"$join"' && kill -0 $! && wait && return
    wait
    '"$leave"'
    return 1
  }
  within 5 in_the_middle'
check "the card knows of it afterwards" hears 3
host_program /usr/bin/iperf3 -s -B "$HOST" >"$GUEST_DIR/iperf3.log" 2>&1
host_listens 5201
guest_check "TCP to the host" 'iperf -c 10.99.0.1 -t 3'
guest_check "TCP from the host" 'iperf -c 10.99.0.1 -t 3 -R'
guest_check "UDP to the host" 'iperf -c 10.99.0.1 -u -b 20M -t 2'
guest_check "UDP from the host" 'iperf -c 10.99.0.1 -u -b 20M -t 2 -R'
guest_check "no errors" '[ $(stat_of tx_errors) = 0 ]; [ $(stat_of rx_errors) = 0 ]'
check "somebody deletes the interface" "$BUSYBOX" ip link del vnettest
guest_check "the guest sees the link go for good, and is none the worse" '
  within 10 grep -qx 0 /sys/class/net/vnet0/carrier
  refused ping -c 2 -i 0.2 -W 1 10.99.0.1
  ip link set vnet0 down
  ip link set vnet0 up
  refused ping -c 1 -W 1 10.99.0.1'
finish
