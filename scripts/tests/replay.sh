#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# What one guest has captured another one receives: the same frames, in the same order.
. "$(dirname "$0")/../lib/check.sh"

dir=$(mktemp -d "${TMPDIR:-/tmp}/vnet-replay.XXXXXX")
trap 'guest_stop; rm -rf "$dir"' EXIT

# list FILE: frames without their times, as lines of the guest's shell. Sequence numbers as they are: one tcpdump
# may have seen the beginning of a connection, and another not.
list() {
  echo "tcpdump -n -e -t -S -r $1 2>/dev/null"
}

boot
guest_check "a capture of what a card receives" "
  ethtool -K vnet0 gro off rx-gro-hw off
  tcpdump -n -i vnet0 -Q in -w /tmp/a.pcap 2>/tmp/dump &
  dump=\$!
  within 10 grep -q listening /tmp/dump
  pings -s 1000
  # When this is replayed, tcpdump starts meanwhile.
  sleep 3
  from_card 300000 7
  ip neigh flush dev vnet0
  pings
  sleep 1
  kill \$dump
  wait
  [ \$($(list /tmp/a.pcap) | wc -l) -gt 30 ]"
guest 'cat /tmp/a.pcap' >"$dir/a.pcap"
guest "$(list /tmp/a.pcap)" >"$dir/frames"
frames=$(wc -l <"$dir/frames")
finish_guest

refuses() {
  ! "$REPO/scripts/vnetd" --socket "$dir/none" --net "replay:file=$1" 2>"$dir/told" &&
    cat "$dir/told" && [ "$(wc -l <"$dir/told")" = 1 ] && grep -q "$2" "$dir/told"
}
head -c 2000 "$dir/a.pcap" >"$dir/cut.pcap"
check "a capture that is cut off is refused in one line" refuses "$dir/cut.pcap" 'damaged after [0-9]* frames: it ends too early'
check "so is a file that is none" refuses "$0" "the header is neither's"

# Traffic begins when the driver begins to receive.
NET=("replay:file=$dir/a.pcap")
guest_start
guest_check "another guest receives the $frames frames, in their order" "
  insmod /vnet.ko
  within 10 test -e /sys/class/net/vnet0
  ethtool -K vnet0 gro off rx-gro-hw off
  ip link set vnet0 promisc on up
  tcpdump -n -i vnet0 -Q in -w /tmp/b.pcap 2>/tmp/dump &
  dump=\$!
  within 20 sh -c '[ \$(cat /sys/class/net/vnet0/statistics/rx_packets) -ge $frames ]'
  # The kernel keeps the last ones from tcpdump for a second.
  sleep 2
  kill \$dump
  wait
  cat /tmp/dump
  $(list /tmp/b.pcap) >/tmp/frames
  wc -l /tmp/frames
  [ \$(cat /sys/class/net/vnet0/statistics/rx_packets) = $frames ]"
same() {
  guest 'cat /tmp/frames' >"$dir/again"
  # The first ones came before tcpdump listened.
  tail -n "$(wc -l <"$dir/again")" "$dir/frames" | diff - "$dir/again" && [ "$(wc -l <"$dir/again")" -gt 20 ]
}
check "they are the same" same
finish
