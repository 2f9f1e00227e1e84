#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# Cards with a line before the gateway: one that is far away and loses frames, one that is slow.
. "$(dirname "$0")/../lib/check.sh"
. "$(dirname "$0")/../lib/one-server.sh"

CARDS=(
  'shape = "delay=20ms,jitter=5ms,loss=20%,duplicate=5%,seed=7"'
  'shape = "rate=20M,receive.delay=5ms"'
)
# Without address from the gateway: DHCP would be frames that nobody has counted.
NICS=2 NET=(gateway) VNETD_LOG=info
guest_start
# From the card's reset on each frame is one of the test's: no IPv6, no ARP.
guest_check "as many pings come back each time, and none before its time" '
  echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6
  for round in 1 2 3; do
    insmod /vnet.ko
    within 10 test -e /sys/class/net/vnet1
    ip link set vnet0 up
    ip addr add $guest/24 dev vnet0
    ip neigh add $gateway lladdr 02:76:6e:65:74:01 dev vnet0 nud permanent
    ping -c 200 -i 0.01 -W 2 $gateway >/tmp/$round || :
    tail -n 2 /tmp/$round
    # Those that are late for ping count, too.
    sleep 1
    echo "$(stat_of tx_packets) sent, $(stat_of rx_packets) came back" | tee /tmp/count$round
    rmmod vnet
  done
  cmp /tmp/count1 /tmp/count2
  cmp /tmp/count1 /tmp/count3
  read -r sent _ back _ </tmp/count1
  [ $sent = 200 ] && [ $back -gt 100 ] && [ $back -lt 170 ]
  grep -q duplicates /tmp/1
  awk -F/ "/^rtt/ { split(\$4, first, \" = \"); exit first[2] < 30 }" /tmp/1'
each_round_alike() {
  grep 'name="nic0".*shape: sent' "$GUEST_DIR/vnetd0.log"
  [ "$(grep -c 'name="nic0".*shape: sent 200 frames' "$GUEST_DIR/vnetd0.log")" = 3 ] &&
    [ "$(sed -n 's/.*name="nic0".*shape: sent/sent/p' "$GUEST_DIR/vnetd0.log" | sort -u | wc -l)" = 1 ]
}
check "the log says what became of the frames, alike each time" each_round_alike
guest_check "a slow line is not faster than it is" '
  vnet-up vnet 2
  ip link set vnet0 down
  udhcpc -f -n -q -t 10 -T 1 -i vnet1 -s /usr/bin/vnet-dhcp
  before=$(cut -d" " -f1 /proc/uptime)
  from_card 4000000 5
  to_card 4000000
  after=$(cut -d" " -f1 /proc/uptime)
  echo "$before $after"
  awk "BEGIN { exit $after - $before < 1.6 * 2 * 0.95 }"'
guest_check "pings over it take their time" '
  ping -c 5 -i 0.2 -W 5 $gateway | tee /tmp/far
  awk -F/ "/^rtt/ { split(\$4, first, \" = \"); exit first[2] < 5 }" /tmp/far'
finish
