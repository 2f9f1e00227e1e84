#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# Cards whose backends make traffic up: what the guest sees of it, and what they count of what it sends
# back or passes on.
. "$(dirname "$0")/../lib/check.sh"

ctl() {
  "$REPO/scripts/vnetctl" --socket "$GUEST_DIR/control.sock" "$@"
}
# made CARD COUNTER: what its generator counts.
made() {
  ctl --json counters "$1" | sed -n "s/.*\"generator\":{.*\"$2\":\([0-9]*\).*/\1/p"
}
# until_made CARD COUNTER NUMBER: waits until it is as much.
until_made() {
  local found
  for _ in $(seq 300); do
    found=$(made "$1" "$2")
    [ "${found:-0}" -lt "$3" ] || break
    sleep 0.1
  done
  ctl counters "$1"
  [ "$found" = "$3" ]
}
# timed: the time that frames were under way was measured for so many.
timed() {
  ctl --json counters "$1" | sed 's/.*"latency":\(.*\)"longest".*/\1/' | grep -o '"count":[0-9]*' |
    awk -F: -v due="$2" '{ n += $2 } END { print n " timed"; exit n != due }'
}

NET=(null) VNETD_ARGS=(--metrics 127.0.0.1:0)
boot CONFIG=yes NICS=2 VNETD_LOG=info
guest_check "no traffic of its own" '
  for nic in 0 1; do echo 1 >/proc/sys/net/ipv6/conf/vnet$nic/disable_ipv6; done
  ip addr add $guest/24 dev vnet0
  tcpdump -e -n -t -c 2 -i vnet0 arp >/tmp/arp 2>/tmp/dump &
  within 10 grep -q listening /tmp/dump'
check "a card is connected to a generator" ctl backend nic0 generator
guest_check "without options, that asks by ARP once a second" '
  within 20 grep -q Reply /tmp/arp
  cat /tmp/arp
  grep "^02:67:0a:4d:00:01 > ff:ff:ff:ff:ff:ff, .*, length 60: Request who-has 10.77.0.2 tell 10.77.0.1, length 46" /tmp/arp'
arp_answered() {
  for _ in $(seq 100); do
    [ "$(made nic0 received)" -lt 2 ] || return 0
    sleep 0.1
  done
  ctl counters nic0
  return 1
}
check "and counts the answers" arp_answered

# echo_run NAME SEED: 600 echo requests of mixed sizes; the guest's list of them is in /tmp/NAME.
echo_run() {
  guest "
    tcpdump -c 600 -i vnet0 -w /tmp/$1.pcap 'icmp[icmptype] = icmp-echo' 2>/tmp/dump.$1 &
    for _ in 1 2 3 4 5 6 7 8 9 10; do grep -q listening /tmp/dump.$1 || sleep 1; done" &&
    ctl backend nic0 "generator:traffic=icmp,size=imix,flows=3,pps=500,count=600,seed=$2" &&
    until_made nic0 received 600 && timed nic0 600 &&
    guest "
      for _ in 1 2 3 4 5 6 7 8 9 10; do killall -0 tcpdump 2>/dev/null || break; sleep 1; done
      tcpdump -e -n -tt -r /tmp/$1.pcap 2>/dev/null >/tmp/$1.times
      cut -d' ' -f2- /tmp/$1.times >/tmp/$1"
}
check "the guest's answers to 600 pings are counted and timed" echo_run first 3
guest_check "they came in the sizes of IMIX, seven to four to one" '
  for length in 60 590 1514; do grep -c ", length $length: " /tmp/first; done | xargs | tee /tmp/sizes
  read -r small middle large </tmp/sizes
  [ $((small + middle + large)) = 600 ]
  [ $small -gt 290 ] && [ $small -lt 410 ] && [ $middle -gt 140 ] && [ $middle -lt 260 ] && [ $large -gt 15 ] && [ $large -lt 85 ]'
check "the same again" echo_run again 3
# By when they arrive: the first one may be late, which makes the time shorter, but hardly twice.
guest_check "not faster than they were to be, 500 a second" '
  for run in first again; do
    awk "NR == 1 { first = \$1 } END { print \$1 - first }" /tmp/$run.times
  done | sort -n | tee /tmp/spans
  tail -n 1 /tmp/spans | awk "{ exit \$1 < 1.0 }"'
check "and others" echo_run other 4
guest_check "the same seed is the same frames, another is not" '
  wc -l /tmp/first /tmp/again /tmp/other
  cmp /tmp/first /tmp/again
  refused cmp -s /tmp/first /tmp/other'

guest_check "the guest has an address of IPv6, too" '
  echo 0 >/proc/sys/net/ipv6/conf/vnet0/disable_ipv6
  ip addr add fd76:6e65:7400::2/64 dev vnet0 nodad'
echo_v6() {
  ctl backend nic0 generator:to=fd76:6e65:7400::2,traffic=icmp,size=imix,flows=3,pps=500,count=200,seed=3 &&
    until_made nic0 received 200 && timed nic0 200 && [ "$(made nic0 damaged)$(made nic0 lost)" = 00 ]
}
check "neighbours find each other, and 200 pings over IPv6 are answered" echo_v6
guest_check "as that says" '
  ip -6 neigh show dev vnet0 | tee /tmp/neigh
  grep "^fd76:6e65:7400::1 lladdr 02:67:00:00:00:01" /tmp/neigh
  echo 1 >/proc/sys/net/ipv6/conf/vnet0/disable_ipv6'
guest_check "the guest does not answer any more" 'echo 1 >/proc/sys/net/ipv4/icmp_echo_ignore_all'
unanswered() {
  ctl backend nic0 generator:traffic=icmp,pps=1000,count=50 && until_made nic0 sent 50 &&
    [ "$(made nic0 unanswered)" = 50 ] && [ "$(made nic0 received)" = 0 ]
}
check "what does not come back is counted, too" unanswered

# From one generator to the other, with the guest as the router between them.
guest_check "the guest routes" '
  ip addr flush dev vnet0
  ip addr add 10.1.0.254/24 dev vnet0
  ip addr add 10.2.0.254/24 dev vnet1
  # Frames that wait for an address are few.
  ip neigh add 10.2.0.1 lladdr 02:67:0a:02:00:01 dev vnet1
  echo 1 >/proc/sys/net/ipv4/ip_forward'
routed() {
  local options=traffic=udp+tcp,flows=20,size=70-1514,pps=1000,count=1000
  # Both are there before either is sent to.
  ctl backend nic1 "generator:from=10.2.0.1,to=10.1.0.1,mac=52:54:00:76:6e:01,count=0" &&
    ctl backend nic0 "generator:from=10.1.0.1,to=10.2.0.1,mac=52:54:00:76:6e:00,$options,seed=5" &&
    until_made nic1 received 1000 && timed nic1 1000 &&
    [ "$(made nic1 lost)$(made nic1 damaged)$(made nic1 duplicated)" = 000 ]
}
check "UDP and TCP pass through it, and nothing is lost or damaged" routed
# scraped METRIC: what it is now.
scraped() {
  local port
  port=$(sed -n 's,.*metrics at http://127.0.0.1:\([0-9]*\)/metrics$,\1,p' "$GUEST_DIR/vnetd0.log")
  exec {http}<>"/dev/tcp/127.0.0.1/$port" || return
  printf 'GET /metrics HTTP/1.1\r\nHost: vnetd\r\n\r\n' >&"$http"
  grep -a "^vnet_generator_$1" <&"$http" | tr -d '\r' | awk '{ print $NF }'
  exec {http}>&-
}
metrics_say_the_same() {
  [ "$(scraped 'frames_total{card="nic1",direction="transmit"}')" = 1000 ] &&
    [ "$(scraped 'latency_seconds_count{card="nic1"}')" = 1000 ]
}
check "metrics say the same" metrics_say_the_same
nonsense() {
  ! ctl backend nic0 generator:size=59 2>"$GUEST_DIR/told.log" && cat "$GUEST_DIR/told.log" &&
    [ "$(wc -l <"$GUEST_DIR/told.log")" = 1 ] && grep -q 'size=59: imix or lengths' "$GUEST_DIR/told.log"
}
check "what makes no sense is refused in one line" nonsense
finish
