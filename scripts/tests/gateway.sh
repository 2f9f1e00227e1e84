#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# The gateway's LAN where the user wants it, with names, and ports that lead to the host; and one where
# all names and pages lead to it.
. "$(dirname "$0")/../lib/check.sh"

"$REPO/images/build-root" || exit
dir=$(mktemp -d "${TMPDIR:-/tmp}/vnet-gateway.XXXXXX")
trap 'guest_stop; rm -rf "$dir"' EXIT
PYTHONHOME=$ROOT/usr host_program /usr/bin/python3 -B "$REPO/scripts/tests/gateway/host.py" "$dir" >"$dir/log" 2>&1
for _ in $(seq 100); do
  [ ! -s "$dir/port" ] || break
  sleep 0.1
done
check "a service of the host is there" test -s "$dir/port"

NICS=2
NET=(
  "gateway:ip=192.168.5.1/24,ip6=fd00:5::1/64,name=www.example=192.168.5.9,name=www.example=fd00:5::9"
  'gateway:captive'
)
# Nobody is at the last two: port 1 of the loopback is not used.
for forward in "8000=unix:$dir/app.sock" "8001=127.0.0.1:$(cat "$dir/port")" "8002=unix:$dir/none" 8003=127.0.0.1:1; do
  NET[0]+=,forward=$forward
done
boot
guest_check "addresses by DHCP and router advertisement are those of the LAN" '
  for nic in 0 1; do udhcpc -f -n -q -t 10 -T 1 -i vnet$nic -s /usr/bin/vnet-dhcp; done
  within 20 sh -c "ip -6 addr show dev vnet0 scope global -tentative | grep -q fd00:5::"
  ip addr
  ip addr show dev vnet0 | grep "inet 192.168.5.2/24"
  ip addr show dev vnet1 | grep "inet 10.77.0.2/24"'
guest_check "the gateway is there" '
  gateway=192.168.5.1
  pings
  within 10 ping -c 1 -W 1 fd00:5::1
  from_card 300000 3
  to_card 300000
  from_card 300000 4 fd00:5::1'
guest_check "names have the addresses that were given, over IPv4 and IPv6" '
  for server in 192.168.5.1 fd00:5::1; do
    nslookup WWW.example $server | tee /tmp/found
    grep -q "Address.*: 192.168.5.9$" /tmp/found
    grep -q "Address.*: fd00:5::9$" /tmp/found
  done
  nslookup gateway 192.168.5.1 | grep "Address.*: fd00:5::1$"'
guest_check "other names do not exist" '
  nslookup no.example 192.168.5.1 >/tmp/none 2>&1 || :
  cat /tmp/none
  grep -q NXDOMAIN /tmp/none'
guest_check "programs find them by the server that DHCP named" '
  echo nameserver 192.168.5.1 >/etc/resolv.conf
  wget -q -O - http://gateway/ | grep "192.168.5.1 and fd00:5::1"'
guest_check "the page has live counters" '
  count() { wget -q -O - http://192.168.5.1/ | sed -n "s/^from you *\([0-9]*\) frames.*/\1/p"; }
  first=$(count)
  gateway=192.168.5.1
  pings
  second=$(count)
  echo "$first, then $second"
  [ $second -ge $((first + 3)) ]'
# Over both protocols, to both kinds of sockets.
guest_check "ports of the gateway lead to the host: what is sent there and fetched arrives whole" '
  amount=$(fewer 20000000)
  head -c $amount /dev/urandom >/tmp/up
  own="$amount $(sha256sum </tmp/up | cut -d" " -f1)"
  for place in "192.168.5.1 8000" "fd00:5::1 8001"; do
    got=$({ echo up; cat /tmp/up; } | nc $place)
    echo "$place: sent $own, arrived $got"
    [ "$got" = "$own" ]
    got="$amount $(echo "down $amount" | nc $place | sha256sum | cut -d" " -f1)"
    want=$(echo sum | nc $place)
    echo "$place: sent $want, arrived $got"
    [ "$got" = "$want" ]
  done
  rm /tmp/up' 120
guest_check "where nobody is, connections are refused" '
  for port in 8002 8003; do
    refused nc 192.168.5.1 $port </dev/null 2>/tmp/refused
    cat /tmp/refused
    grep -q "Connection refused" /tmp/refused
  done'
guest_check "the page counts that" '
  wget -q -O - http://192.168.5.1/ | tee /tmp/page
  grep -E "^port 8001 +3 connections to the host, 0 refused, [0-9]{7,} bytes there, [0-9]{7,} back$" /tmp/page
  grep -E "^port 8002 +0 connections to the host, 1 refused, 0 bytes there, 0 back$" /tmp/page'
said() {
  cat "$GUEST_DIR/vnetd0.log"
  [ "$(grep -c "is refused, as .* is: " "$GUEST_DIR/vnetd0.log")" = 2 ] &&
    grep -F "gateway: port 8002 is refused, as unix:$dir/none is: No such file or directory" "$GUEST_DIR/vnetd0.log" &&
    grep -F "gateway: port 8003 is refused, as 127.0.0.1:1 is: Connection refused" "$GUEST_DIR/vnetd0.log"
}
check "why they are refused is in the log, once" said
guest_check "in a captive LAN every name is the gateway, and every page leads to its own" '
  ip route replace default via 10.77.0.1 dev vnet1
  echo nameserver 10.77.0.1 >/etc/resolv.conf
  nslookup any.name.example 10.77.0.1 | grep "Address.*: 10.77.0.1$"
  wget -q -O - http://any.name.example/generate_204 | grep "Traffic through the gateway"'
guest_check "a router advertisement names the name server" '
  ( tcpdump -n -v -i vnet1 -c 1 "icmp6 and ip6[40] == 134" >/tmp/advertisement 2>/tmp/tcpdump ) &
  within 10 grep -q "listening on" /tmp/tcpdump
  ip link set vnet1 down
  ip link set vnet1 up
  within 20 grep "rdnss option (25).*addr: fd76:6e65:7400::1" /tmp/advertisement || {
    cat /tmp/advertisement /tmp/tcpdump
    exit 1
  }'
refuses() {
  ! "$REPO/scripts/vnetd" --socket "$GUEST_DIR/none" --net "gateway:ip=10.0.0.250/24" 2>"$GUEST_DIR/told.log" &&
    cat "$GUEST_DIR/told.log" && grep -q 'ip=10.0.0.250/24: the gateway.s address .* with room for 32 guests' "$GUEST_DIR/told.log"
}
check "a LAN without room for guests is refused" refuses
finish
