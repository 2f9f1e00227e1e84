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
# To everybody, ten thousand a second, until it is stopped.
cd /proc/net/pktgen
echo 'add_device vnet0' >kpktgend_0
for setting in 'dst_mac ff:ff:ff:ff:ff:ff' 'pkt_size 60' 'count 0' 'delay 100000'; do
  echo "$setting" >vnet0
done
echo start >pgctrl
END

CARDS=(
  'net = "switch:name=lan,port=zero"'
  'net = { type = "switch", name = "lan", port = "one" }'
  'net = "switch:name=lan,port=two"
   faults = "'"$dir/stalls"'"'
  'net = "switch:name=lan,vlan=10,rate=40M"'
  'net = "switch:name=lan,trunk=10+20"'
  'net = "switch:name=lan,mirror=one"'
  'net = "switch:name=other,uplink=gateway"'
)
FILES=("$dir/storm")
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
  at 0 iperf3 -c 10.6.0.2 -t 2 -R
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
  at 5 tcpdump -n -i vnet5 -c 6 icmp >/tmp/mirrored 2>/dev/null &
  dump=\$!
  within 10 sh -c 'grep -q . /proc/net/packet || ip netns exec n5 cat /proc/net/packet | grep -q ^[0-9a-f]'
  sleep 1
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
  at 2 ethtool -S vnet2 | grep card_.x0_drops
  [ \$(at 2 ethtool -S vnet2 | awk '/card_.x0_drops/ { n += \$2 } END { print n }') -gt 100 ]
  [ \$(at 2 cat /sys/class/net/vnet2/statistics/rx_packets) = 0 ]"
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
