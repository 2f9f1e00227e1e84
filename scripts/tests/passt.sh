#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# Behind the card is passt, which gives the guest the host's network without privileges: a stream
# socket whose other end is killed and comes back. The host is a network namespace.
. "$(dirname "$0")/../lib/check.sh"

"$REPO/images/packages" test || exit
. "$(dirname "$0")/../lib/tap.sh"
# passt takes the interface of the default route for the way to the world.
$BUSYBOX ip route add default via 10.99.0.254 dev vnettest
# It pings by sockets that not everybody may have.
for groups in "0 2147483647" "0 0"; do
  ! echo "$groups" 2>/dev/null >/proc/sys/net/ipv4/ping_group_range || break
done

dir=$(mktemp -d "${TMPDIR:-/tmp}/vnet-passt.XXXXXX")
PASST=''
# It does not end with this shell as others do: who changes his user is not told.
trap 'guest_stop; [ -z "$PASST" ] || kill "$PASST"; rm -rf "$dir"' EXIT

# What the guest knows the host as, and its port on the host.
peer=10.88.0.1 inside=8022

# start_passt: as the program that is at the other end of the card from now on.
start_passt() {
  rm -f "$dir/s"
  host_program /usr/bin/passt --foreground --socket "$dir/s" -4 -a 10.88.0.2 -n 24 -g $peer \
    -t $inside </dev/null >>"$dir/passt.log" 2>&1
  PASST=$!
  for _ in $(seq 100); do
    [ ! -S "$dir/s" ] || return
    sleep 0.1
  done
  cat "$dir/passt.log"
}

start_passt
check "passt starts" test -S "$dir/s"
boot NET="stream:path=$dir/s" MEM=1G VNETD_LOG=info QUEUES=2 SMP=2
guest_check "link is up, and passt gives an address" '
  within 10 grep -qx 1 /sys/class/net/vnet0/carrier
  udhcpc -f -n -q -t 10 -T 1 -i vnet0 -s /usr/bin/vnet-dhcp
  ip -4 addr show dev vnet0 | grep 10.88.0.2/24'
guest_check "ping" "gateway=$peer pings"

mkdir "$dir/www"
head -c 8000000 /dev/urandom >"$dir/www/sent"
echo "a page of the host" >"$dir/www/index.html"
child "$BUSYBOX" httpd -f -p 127.0.0.1:8080 -h "$dir/www"
child "$BUSYBOX" nc -ll -p 7001 -e sha256sum 2>/dev/null
host_program /usr/bin/iperf3 -s -B 127.0.0.1 >"$dir/iperf3.log" 2>&1
for port in 8080 7001 5201; do
  host_listens $port
done
digest=$(sha256sum <"$dir/www/sent")
transfers="
  wget -O - http://$peer:8080/ | tee /tmp/page
  [ \"\$(cat /tmp/page)\" = 'a page of the host' ]
  wget -q -O /tmp/down http://$peer:8080/sent
  wc -c /tmp/down
  [ \"\$(sha256sum </tmp/down)\" = '$digest' ]
  head -c 8000000 /dev/urandom >/tmp/file
  nc $peer 7001 </tmp/file | tee /tmp/up
  [ \"\$(cat /tmp/up)\" = \"\$(sha256sum </tmp/file)\" ]"
# A window that fits what may wait for a queue pair: more would be lost, and passt finds that out by timeouts alone, of
# seconds and longer each time.
guest_check "a web page and files in both directions, over TCP" "
  echo 4096 131072 262144 >/proc/sys/net/ipv4/tcp_rmem
  $transfers"
guest_check "streams over TCP in both directions at once" "
  iperf -c $peer -t 2 --bidir"
guest_check "UDP in both directions" "
  iperf -c $peer -u -b 20M -t 1
  iperf -c $peer -u -b 20M -t 1 -R"
guest_check "a server in the guest listens" "
  (while :; do echo 'from the guest' | nc -l -p $inside; done) >/dev/null 2>&1 &
  within 10 sh -c 'netstat -ltn | grep -q :$inside'"
from_host() {
  [ "$("$BUSYBOX" nc -w 10 127.0.0.1 $inside </dev/null)" = "from the guest" ]
}
check "the host connects to it" from_host

kill -KILL "$PASST"
guest_check "passt is killed: the carrier goes, and what is sent is lost" "
  within 10 grep -qx 0 /sys/class/net/vnet0/carrier
  refused ping -c 1 -W 1 $peer"
start_passt
guest_check "the carrier comes back, and so does traffic" "
  within 20 grep -qx 1 /sys/class/net/vnet0/carrier
  gateway=$peer pings
  $transfers"
check "the host connects to the guest again" from_host
kill -STOP "$PASST"
guest_check "passt stops for a while: nothing hangs" "
  # More than the socket holds: what waits for longer than a second is lost.
  ping -q -f -c 400 -s 1400 -W 1 $peer || :
  [ \$(counter tx_timeouts) = 0 ]"
kill -CONT "$PASST"
guest_check "and goes on" "gateway=$peer pings; $transfers"
logged() {
  grep "stream $dir/s: " "$GUEST_DIR/vnetd0.log"
  [ "$(grep -c ': connected' "$GUEST_DIR/vnetd0.log")" = 2 ] &&
    [ "$(grep -cE 'the peer has closed|connection lost' "$GUEST_DIR/vnetd0.log")" = 1 ]
}
check "each connection and its end are in the log once" logged
guest_check "no errors" '[ $(stat_of tx_errors) = 0 ]; [ $(stat_of rx_errors) = 0 ]'
finish
