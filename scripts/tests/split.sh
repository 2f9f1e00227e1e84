#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# Header-data split: headers are linear and payload fills pages, which can be mapped into a process; it
# is switched on and off under traffic. The host's own network stack is the peer, then the gateway.
. "$(dirname "$0")/../lib/check.sh"
. "$REPO/scripts/lib/tap.sh"
. "$REPO/scripts/lib/xdp.sh"

reader=$CACHE/split/zerocopy
compile() {
  mkdir -p "$CACHE/split"
  in_root gcc -O2 -static -Wall -Werror -o /cache/split/zerocopy /repo/scripts/tests/split/zerocopy.c
}
check "the program compiles" compile

NET=(tap:name=vnettest) FILES=("$reader")
boot MEM=1G
guest 'ip addr add 10.99.0.2/24 dev vnet0'

IN_GUEST+='
# split VALUE: sets it; prints what it is without a value.
split() {
  if [ "${1:-}" ]; then ethtool -G vnet0 tcp-data-split $1; fi
  ethtool -g vnet0 | sed -n "s/^TCP data split:[[:space:]]*//p"
}
# What TCP frames looked like when the driver handed them to the stack, one line for each with data:
# length, linear part, fragments. With the MAC header pulled, TCP with a time stamp has 52 bytes of
# headers over IPv4.
trace=/sys/kernel/tracing
frames() {
  echo "name == \"vnet0\" && len > 100" >$trace/events/net/napi_gro_receive_entry/filter
  echo >$trace/trace
  echo 1 >$trace/events/net/napi_gro_receive_entry/enable
  "$@"
  echo 0 >$trace/events/net/napi_gro_receive_entry/enable
  sed -n "s/.*napi_gro_receive_entry:.* len=\([0-9]*\) data_len=\([0-9]*\) .* nr_frags=\([0-9]*\) .*/\1 \2 \3/p" \
    $trace/trace | awk "{ print \$1, \$1 - \$2, \$3 }" >/tmp/frames
  head -n 3 /tmp/frames
  [ $(wc -l </tmp/frames) -gt 50 ]
}
'
bytes=$((40000000 / ($(slowness) > 1 ? 4 : 1)))
head -c $bytes /dev/urandom >"$GUEST_DIR/sent"
digest=$(sha256sum <"$GUEST_DIR/sent")
child "$BUSYBOX" nc -ll -p 7000 -e cat "$GUEST_DIR/sent"

guest_check "it is off at first, and can be switched" '
  chmod +x /root/zerocopy
  echo 16384 >/sys/kernel/tracing/buffer_size_kb
  [ "$(split)" = off ]
  [ "$(split on)" = on ]
  [ "$(split auto)" = off ]
  [ "$(split on)" = on ]
  ping -c 3 -i 0.2 -W 5 10.99.0.1'
guest_check "data arrives as it was sent, in pages" "
  frames sh -c 'nc $HOST 7000 </dev/null | sha256sum >/tmp/arrived'
  [ \"\$(cat /tmp/arrived)\" = '$digest' ]"'
  # Not one byte of payload beside the headers, and no more pages than it fills.
  awk "\$2 != 52 || \$3 != int((\$1 - 52 + 4095) / 4096) { print; bad = 1 } END { exit bad }" /tmp/frames
  awk "\$1 > 30000 { n++ } END { print n, NR; exit !n }" /tmp/frames'
guest_check "pages are mapped into the process that reads them" "
  [ \"\$(/root/zerocopy $HOST 7000 2>/tmp/mapped | sha256sum)\" = '$digest' ]"'
  cat /tmp/mapped
  read mapped total </tmp/mapped
  [ $mapped -gt $((total / 4)) ]'"
  [ \$total = $bytes ]"
guest_check "switched off, none are" "
  split off
  [ \"\$(/root/zerocopy $HOST 7000 2>/tmp/mapped | sha256sum)\" = '$digest' ]"'
  cat /tmp/mapped'"
  grep -x '0 $bytes' /tmp/mapped"
# 40 bytes of headers and 12 of the time stamp.
"$BUSYBOX" ip link set vnettest mtu $((4096 + 52))
guest_check "frames of a page each, as on the wire, are mapped" "
  ip link set vnet0 mtu $((4096 + 52))
  ethtool -K vnet0 rx-gro-hw off
  split on
  large=\$(counter rx0_hw_gro_packets)
  [ \"\$(/root/zerocopy $HOST 7000 2>/tmp/mapped | sha256sum)\" = '$digest' ]"'
  cat /tmp/mapped
  read mapped total </tmp/mapped
  [ $mapped -gt $((total / 2)) ]
  [ $(counter rx0_hw_gro_packets) = $large ]'
guest_check "no errors" '[ $(stat_of rx_errors) = 0 ]; [ $(stat_of rx_dropped) = 0 ]
  [ $(counter queue_errors) = 0 ]; [ $(counter resets) = 0 ]'
finish_guest

# Two pairs, so that frames go from one to the other.
check "XDP programs compile" xdp_programs
NET=(gateway) FILES=("$XDP_PROGRAMS")
boot SMP=2 QUEUES=2
guest_check "frames of all kinds and sizes, split and not" '
  ethtool -G vnet0 tcp-data-split on
  ip link set vnet0 mtu 9000
  for size in 0 64 1400 8000; do pings -s $size; done
  from_card 5000000 3
  to_card 5000000
  for size in 1 64 1000 1473 9000; do
    head -c $size /dev/urandom >/tmp/out
    bash -c "exec 3<>/dev/udp/$gateway/7; cat /tmp/out >&3; timeout 5 dd bs=65536 count=1 <&3 >/tmp/in"
    cmp /tmp/out /tmp/in
  done
  within 10 sh -c "ip -6 addr show dev vnet0 scope global -tentative | grep fd76"
  gateway=$gateway6
  for size in 64 1400 8000; do pings -6 -s $size; done
  from_card 5000000 4 $gateway6
  to_card 5000000 $gateway6
  [ $(stat_of rx_errors) = 0 ]' 120
guest_check "it holds through down and up, other rings and other channels" '
  [ "$(split)" = on ]
  ip link set vnet0 down
  readdress
  ethtool -G vnet0 rx 64
  ethtool -L vnet0 combined 1
  [ "$(split)" = on ]
  from_card 10000000 5
  ethtool -L vnet0 combined 2
  ethtool -G vnet0 rx 4096 tcp-data-split off
  [ "$(split)" = off ]
  ethtool -G vnet0 rx 1024 tcp-data-split on
  [ "$(split)" = on ]
  pings -s 8000
  ip link set vnet0 down
  ethtool -G vnet0 tcp-data-split off
  readdress
  [ "$(split)" = off ]
  pings'
guest_check "XDP programs and it exclude each other" '
  split on
  program="obj /root/programs.o program"
  refused ip link set dev vnet0 xdpdrv $program pass
  refused ip link set dev vnet0 xdpdrv $program pass_frags
  split off
  ip link set dev vnet0 xdpdrv $program pass_frags
  refused ethtool -G vnet0 tcp-data-split on
  [ "$(split)" = off ]
  pings
  ip link set dev vnet0 xdpdrv off
  split on
  pings'
guest_check "the card counts on, and forgets no setting" '
  ethtool -X vnet0 equal 1
  ip link set vnet0 address 02:00:00:00:00:77
  before=$(counter card_rx0_packets)
  split off
  split on
  ping -c 5 -i 0.2 -W 5 $gateway
  [ $(counter card_rx0_packets) -ge $((before + 5)) ]
  [ $(counter resets) = 0 ]
  ethtool -X vnet0 default'
guest_check "switched 30 times under traffic" '
  traffic
  for i in $(seq 15); do
    split on
    usleep 100000
    split off
    usleep 100000
  done
  end_traffic
  split on
  pings
  flood_pings 1000
  [ $(counter queue_errors) = 0 ]; [ $(counter resets) = 0 ]
  [ $(stat_of rx_errors) = 0 ]' 120
finish
