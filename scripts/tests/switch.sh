#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# Cards of one device server, joined by its switches. Each is in a network namespace of the guest.
. "$(dirname "$0")/../lib/check.sh"
. "$(dirname "$0")/../lib/one-server.sh"

dir=$(mktemp -d "${TMPDIR:-/tmp}/vnet-switch.XXXXXX")
trap 'guest_stop; rm -rf "$dir"' EXIT
# The third card is served no received frames: what is for it waits, and then is lost.
echo 'stop-fetching queue=rx' >"$dir/stalls"

cat >"$dir/storm" <<'END'
# To everybody, two thousand a second, until it is stopped.
cd /proc/net/pktgen
echo 'add_device vnet0' >kpktgend_0
for setting in 'dst_mac ff:ff:ff:ff:ff:ff' 'pkt_size 60' 'count 0' 'delay 500000'; do
  echo "$setting" >vnet0
done
echo start >pgctrl
END

cat >"$dir/groups" <<'END'
# Whether so many, of three packets to a group, get to the wires of cards 0 and 1: of IPv4 and of IPv6 to the
# first, and the same to the second. What comes after them is for all hosts, and says that they are through.
for n in 0 1; do
  ip netns exec n$n tcpdump -l -n -i vnet$n 'icmp or icmp6' >/tmp/wire$n 2>/tmp/told$n &
  echo $! >/tmp/dump$n
done
within() {
  for _ in $(seq 100); do
    "$@" && return
    usleep 100000
  done
  return 1
}
for n in 0 1; do within grep -q listening /tmp/told$n; done
for group in 239.1.2.3 ff15::1234; do
  ip netns exec n2 ping -q -I vnet2 -c 3 -i 0.02 -W 0.1 $group >/dev/null 2>&1
done
ip netns exec n2 ping -q -I vnet2 -c 1 -W 0.1 224.0.0.1 >/dev/null 2>&1
for n in 0 1; do
  within grep -q '> 224.0.0.1: ICMP echo request' /tmp/wire$n
  kill "$(cat /tmp/dump$n)"
done
wait
came=''
for n in 0 1; do
  for group in 239.1.2.3 ff15::1234; do
    came="$came $(grep -c "> $group: .*echo request" /tmp/wire$n)"
  done
done
echo "came:$came"
[ "$came" = " $*" ]
END

CARDS=(
  'net = "switch:name=lan,port=zero,snooping"'
  'net = { type = "switch", name = "lan", port = "one" }'
  'net = "switch:name=lan,port=two"
   faults = "'"$dir/stalls"'"'
  'net = "switch:name=lan,vlan=10,rate=40M"'
  'net = "switch:name=lan,trunk=1+10+20"'
  'net = "switch:name=lan,mirror=one"'
  'net = "switch:name=other,uplink=gateway"'
)
FILES=("$dir/storm" "$dir/groups")
boot NICS=7 NET=switch MEM=1G VNETD_LOG=info SMP=2
guest_check "cards in namespaces" '
  for n in 0 1 2 3 4 5; do
    ip netns add n$n
    ip link set vnet$n netns n$n
    ip -n n$n link set vnet$n mtu 9000 up
    ip -n n$n addr add 10.6.0.$((n + 1))/24 dev vnet$n
  done
  ip -n n4 addr flush dev vnet4
  ip -n n4 link add link vnet4 name v10 type vlan id 10
  ip -n n4 addr add 10.6.0.5/24 dev v10
  ip -n n4 link set v10 up'
at='at() { n=$1; shift; ip netns exec n$n "$@"; }'
guest_check "ping, also in jumbo frames" "$at
  at 0 ping -c 3 -i 0.2 -W 5 10.6.0.2
  at 0 ping -c 3 -i 0.2 -W 5 -M do -s 8972 10.6.0.2"
guest_check "TCP in both directions; large frames cross whole" "$at
  for n in 0 1; do at \$n ip link set vnet\$n mtu 1500; done
  at 1 iperf3 -s -D
  card() { at 1 ethtool -S vnet1 | sed -n \"s/^ *card_rx0_\$1: //p\"; }
  packets=\$(card packets) bytes=\$(card bytes)
  within 10 at 0 iperf3 -c 10.6.0.2 -t 3
  within 10 at 0 iperf3 -c 10.6.0.2 -t 2 -R
  echo \"\$((\$(card bytes) - bytes)) bytes in \$((\$(card packets) - packets)) frames\"
  [ \$((\$(card bytes) - bytes)) -gt \$(((\$(card packets) - packets) * 2500)) ]"
guest_check "a file arrives as it was sent, also where large frames are not taken" "$at
  at 1 ethtool -K vnet1 rx-gro-hw off
  head -c 20000000 /dev/urandom >/tmp/file
  at 1 nc -l -p 7001 -e sha256sum &
  within 10 sh -c 'ip netns exec n1 netstat -ltn | grep -q :7001'
  [ \"\$(at 0 nc 10.6.0.2 7001 </tmp/file)\" = \"\$(sha256sum </tmp/file)\" ]"
guest_check "VLAN 10, on an access port and a trunk" "$at
  at 3 ping -c 3 -i 0.2 -W 5 10.6.0.5
  refused at 0 ping -c 1 -W 1 10.6.0.4
  refused at 0 ping -c 1 -W 1 10.6.0.5
  [ -z \"\$(at 0 ip neigh show 10.6.0.5 | grep lladdr)\" ]"
guest_check "no more than the port's rate" "$at
  at 4 iperf3 -s -D
  within 10 at 3 iperf3 -c 10.6.0.5 -t 3 --json >/tmp/json
  rate=\$(sed -n '/sum_received/,/}/s/.*\"bits_per_second\":[^0-9]*\\([0-9]*\\).*/\\1/p' /tmp/json)
  echo \"\$rate bit/s\"
  [ \$rate -gt 1000000 ] && [ \$rate -lt 44000000 ]"
guest_check "a mirror shows what comes and goes at one port" "$at
  at 5 tcpdump -n -i vnet5 -c 6 icmp >/tmp/mirrored 2>/tmp/told &
  dump=\$!
  within 10 grep -q listening /tmp/told
  at 0 ping -c 3 -i 0.2 -W 5 10.6.0.2
  within 10 sh -c \"! kill -0 \$dump 2>/dev/null\"
  cat /tmp/mirrored
  [ \$(grep -c 'echo request' /tmp/mirrored) = 3 ]
  [ \$(grep -c 'echo reply' /tmp/mirrored) = 3 ]"
guest_check "a storm to all, one of whom stalls: the others go on" "$at
  modprobe pktgen
  at 0 sh /root/storm &
  sleep 1
  at 1 ping -c 20 -i 0.1 -w 10 10.6.0.1 | tee /tmp/calls
  at 0 sh -c 'cat /proc/net/pktgen/vnet0; echo stop >/proc/net/pktgen/pgctrl'
  wait
  # With -w, ping goes on until as many are answered; the last answers of a busy machine are late.
  awk '/ received/ { exit !(\$4 == 20 && \$1 <= 23) }' /tmp/calls"
# A card looks at what its backend has lost when it is at work: here, when it sends.
guest_check "what the stalled card did not get is counted there" "$at
  at 2 ping -c 1 -W 1 10.6.0.1 || :
  at 2 ethtool -S vnet2 | grep -E 'card_.x0_(drops|missed)'
  [ \$(at 2 ethtool -S vnet2 | awk '/card_rx0_missed:/ { print \$2 }') -gt 100 ]
  [ \$(at 2 ethtool -S vnet2 | awk '/card_tx0_drops:/ { print \$2 }') = 0 ]
  within 5 at 2 sh -c '[ \$(cat /sys/class/net/vnet2/statistics/rx_missed_errors) -gt 100 ]'
  [ \$(at 2 cat /sys/class/net/vnet2/statistics/rx_packets) = 0 ]"
# One bridge asks for members; it has no address of IPv4, so it is no router for that.
guest_check "a group goes to all while nobody asks for members, and then to those" "$at
  within 2 sh /root/groups 3 3 3 3
  at 4 sh -c 'echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad'
  ip -n n4 link add link vnet4 name v1 type vlan id 1
  ip -n n4 link add asks type bridge mcast_querier 1 mcast_query_response_interval 50 \
    mcast_last_member_interval 50 mcast_startup_query_interval 50 mcast_startup_query_count 20
  ip -n n4 link set v1 master asks
  for i in v1 asks; do ip -n n4 link set \$i up; done
  ip -n n1 addr add 239.1.2.3/32 dev vnet1 autojoin
  ip -n n1 addr add ff15::1234/128 dev vnet1 autojoin
  within 2 sh /root/groups 0 0 3 3"
guest_check "who leaves gets it no more" "$at
  ip -n n1 addr del 239.1.2.3/32 dev vnet1
  ip -n n1 addr del ff15::1234/128 dev vnet1
  within 2 sh /root/groups 0 0 0 0"
guest_check "ARP and neighbour discovery go on" "$at
  for n in 0 1; do ip -n n\$n neigh flush dev vnet\$n; done
  at 0 ping -c 3 -i 0.2 -W 5 10.6.0.2
  near=\$(ip -n n1 -6 -o addr show dev vnet1 scope link | awk '{ sub(\"/.*\", \"\", \$4); print \$4 }')
  at 0 ping -c 3 -i 0.2 -W 5 \"\$near%vnet0\""
guest_check "behind the other switch is the gateway" '
  udhcpc -f -n -q -t 10 -T 1 -i vnet6 -s /usr/bin/vnet-dhcp
  pings
  from_card 5000000 3'
guest_check "no errors" "$at
  for n in 0 1 3 4 5; do
    [ \$(at \$n cat /sys/class/net/vnet\$n/statistics/tx_errors) = 0 ]
    [ \$(at \$n cat /sys/class/net/vnet\$n/statistics/rx_errors) = 0 ]
  done"
finish
