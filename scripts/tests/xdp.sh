#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# Native XDP: every verdict, frames of several buffers, redirection in and out, and programs that come
# and go under traffic. The programs are in xdp/programs.c; the peers are TAP interfaces in two network
# namespaces of this machine.
. "$(dirname "$0")/../lib/check.sh"
. "$REPO/scripts/lib/xdp.sh"

own_network "XDP"

check "the programs compile" xdp_programs

box=$ROOT/usr/bin/busybox
libraries=$ROOT/usr/lib/x86_64-linux-gnu
# host PROGRAM ARGUMENT...: one of the build root's programs.
host() {
  local program=$1
  shift
  "$ROOT/usr/lib64/ld-linux-x86-64.so.2" --library-path "$libraries" "$ROOT$program" "$@"
}
ip() { host /usr/bin/ip "$@"; }

# ten_pings ADDRESS ANSWERS [OPTION]...: of ten pings so many are answered, with the data that was sent. Each waits for
# its own answer: a program that sends ten waits for the last ones no longer than two round trips.
ten_pings() {
  local address=$1 answers=$2 output
  shift 2
  output=$(
    for _ in {1..10}; do
      host /usr/bin/ping -n -c 1 -W $((answers > 0 ? 5 : 1)) "$@" "$address" &
      sleep 0.05
    done
    wait
  )
  printf '%s\n' "$output"
  [ "$(grep -c ' 1 received' <<<"$output")" = "$answers" ] && [[ $output != *wrong* ]]
}
# from_host ANSWERS [OPTION]...: of ten pings to the guest.
from_host() { ten_pings 10.99.0.2 "$@"; }

# For the guest: programs by name, or "off", as the driver's own, and counters of all queues.
# shellcheck disable=SC2016 # expanded there
xdp='
load() {
  if [ "$2" = off ]; then
    ip link set dev $1 xdpdrv off
  else
    ip -force link set dev $1 xdpdrv obj /root/programs.o program $2
    ip link show $1 | grep "prog/xdp"
  fi
}
total() {
  ethtool -S ${2:-vnet0} | awk -v name="^ *[rt]x[0-9]+_$1:" "\$0 ~ name { n += \$2 } END { print n + 0 }"
}
'
# verdict PROGRAM COUNTER ANSWERS [OPTION]...: of ten pings so many are answered, and all are counted.
verdict() {
  local program=$1 counter=$2
  shift 2
  guest "set -e; $xdp load vnet0 $program; total $counter >/tmp/before" || return
  from_host "$@" || return
  guest "$xdp ethtool -S vnet0 | grep xdp_
    [ \$((\$(total $counter) - \$(cat /tmp/before))) -ge 10 ]"
}

ip link set lo up
for n in 0 1; do
  ip tuntap add vnetx$n mode tap
  ip link set vnetx$n mtu 9000 up
done
ip addr add 10.99.0.1/24 dev vnetx0

NET=(tap:name=vnetx0 tap:name=vnetx1) FILES=("$XDP_PROGRAMS")
boot NICS=2 MEM=1G FAULTS=yes VNETD_LOG=info
guest 'ip addr add 10.99.0.2/24 dev vnet0; ip link set vnet1 up'
check "ping from the host" from_host 10

check "pass" verdict pass xdp_pass 10
check "drop" verdict drop xdp_drop 0
check "abort" verdict fail xdp_errors 0
LOG_EXPECTED='nonsense|Illegal XDP return value'
check "an unknown verdict" verdict nonsense xdp_errors 0
check "redirect to where nothing is" verdict nowhere xdp_errors 0
check "transmit: a program answers" verdict answer xdp_tx 10
guest_check "the answers went by the transmit ring" "$xdp"'[ $(total xdp_xmit) -ge 10 ]; [ $(total xdp_full) = 0 ]'
check "there is as much headroom as the kernel promises" verdict move xdp_pass 10
guest_check "offloads that a program excludes are off, and remembered" '
  ethtool -k vnet0 >/tmp/features
  cat /tmp/features
  grep -x "rx-checksumming: off \[requested on\]" /tmp/features
  grep -x "rx-gro-hw: off \[requested on\]" /tmp/features'
check "the program leaves, traffic stays" verdict off packets 10
guest_check "the offloads are on again" '
  ethtool -k vnet0 >/tmp/features
  cat /tmp/features
  grep -x "rx-checksumming: on" /tmp/features
  grep -x "rx-gro-hw: on" /tmp/features'

guest_check "a program for frames of one buffer and a large MTU exclude each other" "$xdp"'
  ip link set vnet0 mtu 3502
  load vnet0 pass
  refused ip link set vnet0 mtu 3503
  load vnet0 off
  ip link set vnet0 mtu 9000
  refused load vnet0 pass
  load vnet0 pass_frags'
check "frames of several buffers: pass" verdict pass_frags xdp_pass 10 -s 8000
check "frames of several buffers: drop" verdict drop_frags xdp_drop 0 -s 8000
check "frames of several buffers: transmit" verdict answer_frags xdp_tx 10 -s 8000
reaches_the_end() {
  guest "set -e; $xdp load vnet0 swap_frags" || return
  local output
  output=$(host /usr/bin/ping -n -c 1 -W 2 -s 8000 10.99.0.2)
  printf '%s\n' "$output"
  [[ $output = *wrong* ]]
}
check "frames of several buffers: a program writes to the last" reaches_the_end

# A second stack on the other side of the guest, behind the second card.
far() { nsenter --net="/proc/$FAR/ns/net" "$@"; }
child unshare --net "$box" sleep 600
FAR=$!
second_side() {
  in_its_network "$FAR" || return
  ip link add vnetbr type bridge && ip link add vnetv type veth peer name vnetw || return
  ip link set vnetx1 master vnetbr
  ip link set vnetv master vnetbr mtu 9000 up
  ip link set vnetbr mtu 9000 up
  ip link set vnetw netns "$FAR" || return
  far "$box" ip addr add 10.99.0.3/24 dev vnetw
  far "$box" ip link set vnetw mtu 9000 up
}
if second_side 2>"$GUEST_DIR/side"; then
  across() { ten_pings 10.99.0.3 10 "$@"; }
  guest_check "redirect between the cards" "$xdp"'
    ip link set vnet0 promisc on; ip link set vnet1 mtu 9000 promisc on
    cat /sys/class/net/vnet[01]/ifindex
    load vnet0 across_frags
    load vnet1 across_frags'
  check "redirected frames arrive" across
  check "redirected frames of several buffers arrive whole" across -s 8000
  # A server listens anew after each client, of which the next one might come between.
  for port in 5201 5202; do
    child nsenter --net="/proc/$FAR/ns/net" "$ROOT/usr/lib64/ld-linux-x86-64.so.2" \
      --library-path "$libraries" "$ROOT/usr/bin/iperf3" -s -p $port >>"$GUEST_DIR/far.log" 2>&1
    host_listens $port "$FAR"
  done
  check "TCP through the redirecting guest" host /usr/bin/iperf3 -c 10.99.0.3 -p 5201 -t 3
  check "TCP the other way" host /usr/bin/iperf3 -c 10.99.0.3 -p 5202 -t 3 -R
  guest_check "both cards count it, on the way in and on the way out" "$xdp"'
    for card in vnet0 vnet1; do
      ethtool -S $card | grep xdp_
      [ $(total xdp_redirect $card) -ge 1000 ]; [ $(total xdp_xmit $card) -ge 1000 ]
      # Offloads that are in use would show here.
      [ $(total bad_frames $card) = 0 ]; [ $(total csum_partial $card) = 0 ]
    done
    load vnet1 off; load vnet0 off; ip link set vnet0 promisc off'
else
  skip "redirect between the cards: this machine gives no bridge or veth"
  cat "$GUEST_DIR/side"
fi

guest_check "frames of another driver go out" "$xdp"'
  load vnet0 off
  ip link add veth0 type veth peer name veth1
  ip link set veth0 up; ip link set veth1 up
  ip addr add 10.98.0.1/24 dev veth1
  ip neigh add 10.98.0.2 lladdr ff:ff:ff:ff:ff:ff dev veth1
  load veth0 out
  total xdp_xmit >/tmp/before
  ping -c 10 -i 0.05 -W 1 10.98.0.2 || true
  [ $(($(total xdp_xmit) - $(cat /tmp/before))) -ge 10 ]
  ip link del veth0'

host_program /usr/bin/iperf3 -s >"$GUEST_DIR/iperf3.log" 2>&1
host_listens 5201
guest_check "programs come, change and go under traffic" "$xdp"'
  ip link set vnet0 mtu 1500
  iperf3 -c 10.99.0.1 -t 10 --bidir >/tmp/stream 2>&1 &
  for round in 1 2 3 4; do
    for program in pass move pass_frags off; do
      load vnet0 $program
      usleep 400000
    done
  done
  wait $! || { cat /tmp/stream; exit 1; }
  tail -n 5 /tmp/stream' 90
# pings_while PROGRAM...: each is loaded in turn while a ping is sent every 2 ms; how many were lost is in
# $lost. By the kernel's count, as in flood_pings.
pings_while=$xdp'
  pings_while() {
    before=$(echoes)
    ping -i 0.002 -c 1000 10.99.0.1 >/tmp/ping &
    for program; do
      usleep 300000
      load vnet0 $program
    done
    wait
    tail -n 3 /tmp/ping
    within 2 answered "$before" 1000 || true
    set -- $before $(echoes)
    lost=$(($3 - $1 - ($4 - $2)))
    echo "of $(($3 - $1)) $lost were lost"
    [ $(($3 - $1)) -ge 1000 ]
  }
'
guest_check "one that replaces another loses no frame" "$pings_while"'
  load vnet0 pass
  pings_while move pass pass_frags move pass
  [ $lost = 0 ]'
# What is in flight is lost with the old rings: little, unless the machine was busy just then, which it is not
# each time.
guest_check "coming and going loses no more than what is in flight" "$pings_while"'
  for try in 1 2 3; do
    pings_while off pass off pass off
    [ $lost -gt 20 ] || break
  done
  [ $lost -le 20 ]' 120
check "ping from the host afterwards" from_host 10
# Longer than any frame of this MTU, so that it takes more than one buffer.
faults "frame-oversized queue=rx"
guest_check "a program for frames of one buffer" "$xdp"'
  load vnet0 drop
  total xdp_drop >/tmp/dropped; total bad_frames >/tmp/bad'
check "... and a card that sends frames of several get no answers" from_host 0
guest_check "... as it is shown none of them: they are bad" "$xdp"'
  [ $(total xdp_drop) = $(cat /tmp/dropped) ]
  [ $(($(total bad_frames) - $(cat /tmp/bad))) -ge 10 ]'
faults
# After a reset the transmit queue runs before the program can answer by it, or the sanitizer says so.
# The pings are asked for at all times, so that one waits whenever a receive queue starts.
address=$(guest 'cat /sys/class/net/vnet0/address')
ip neigh replace 10.99.0.2 lladdr "${address%%$'\r'}" dev vnetx0 nud permanent
host_program /usr/bin/ping -q -n -i 0.01 10.99.0.2 >"$GUEST_DIR/ping.log" 2>&1
pings=$!
guest_check "a program answers from the first frame on" "$xdp"'
  answers() { [ $(total xdp_tx) -ge 1 ]; }
  for round in 1 2 3 4 5 6 7 8 9 10; do
    rmmod vnet; insmod /vnet.ko
    load vnet0 answer
    ip link set vnet0 up
    within 10 answers
  done' 180
kill "$pings"
guest_check "a program survives down and up, and rmmod takes it along" "$xdp"'
  load vnet0 drop
  ip link set vnet0 down
  ip link set vnet0 up
  ip link show vnet0 | grep prog/xdp
  rmmod vnet'
finish
