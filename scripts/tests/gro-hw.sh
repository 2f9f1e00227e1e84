#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# Large receive: frames of many segments pass through whole and say so; it can be switched off and on
# under traffic; those that cannot be what the card says are dropped. The host's own network stack is the peer.
. "$(dirname "$0")/../lib/check.sh"
. "$(dirname "$0")/../lib/tap.sh"

boot NET=tap:name=vnettest MEM=1G FAULTS=yes VNETD_LOG=info
guest 'ip addr add 10.99.0.2/24 dev vnet0'
host_program /usr/bin/iperf3 -s -B "$HOST" >"$GUEST_DIR/iperf3.log" 2>&1
host_listens 5201

# What every frame of a transfer looked like when the driver handed it to the stack.
IN_GUEST+='
trace=/sys/kernel/tracing
frames() {
  echo "name == \"vnet0\"" >$trace/events/net/napi_gro_receive_entry/filter
  echo 0 >$trace/tracing_on
  echo >$trace/trace
  echo 1 >$trace/events/net/napi_gro_receive_entry/enable
  echo 1 >$trace/tracing_on
  "$@"
  echo 0 >$trace/tracing_on
  grep -o "napi_gro_receive_entry:.*" $trace/trace >/tmp/frames
}
# The frames with data, one line each: length, bytes beside the linear part, truesize, checksum
# state, fragments, segment size and type.
with_data() {
  sed -n "s/.* ip_summed=\([0-9]*\) .* len=\([0-9]*\) data_len=\([0-9]*\) truesize=\([0-9]*\) .* nr_frags=\([0-9]*\) gso_size=\([0-9]*\) gso_type=\([0-9a-fx]*\).*/\2 \3 \4 \1 \5 \6 \7/p" /tmp/frames |
    awk "\$1 > 200"
}
'
guest_check "the feature is on, and can be switched" '
  ethtool -k vnet0 | grep -x "rx-gro-hw: on"
  echo 16384 >/sys/kernel/tracing/buffer_size_kb'
guest_check "TCP frames arrive whole, with the segment size of the connection" '
  frames iperf -c 10.99.0.1 -t 2 -R
  with_data >/tmp/data
  head -n 5 /tmp/data
  # Tens of kilobytes each for the most part, in segments of 1448 bytes, as TCP over IPv4, from an
  # untrusted source.
  awk "\$1 > 30000 { n++ } END { print n, NR; exit !(n > NR / 2) }" /tmp/data
  awk "\$1 > 2000 && (\$6 != 1448 || \$7 != \"0x3\") { print; bad = 1 } END { exit bad }" /tmp/data'
guest_check "64 KiB take few buffers and little more memory" '
  # Where memory has no large pieces for a moment, the driver takes small ones.
  awk "\$1 > 60000 { n++; frags += \$5; if (\$5 > 8 || \$3 > 1.3 * \$1) { print; bad++ } }
    END { print n, frags / n; exit bad > n / 100 || frags / n > 6 }" /tmp/data'
guest_check "headers are linear, and only they" '
  awk "\$1 > 2100 && \$1 - \$2 != 66 - 14 { print; bad = 1 } END { exit bad }" /tmp/data'
guest_check "segments are counted, by the driver and by the stack" '
  segments() {
    awk "/^IpExt:/ { if (!n) n = split(\$0, name); else for (i = 2; i <= n; i++) if (name[i] == \"InNoECTPkts\") print \$i }" /proc/net/netstat
  }
  before=$(segments) wire=$(counter rx0_hw_gro_wire_packets)
  bytes=$(counter rx0_hw_gro_bytes) large=$(counter rx0_hw_gro_packets)
  iperf -c 10.99.0.1 -t 1 -R
  wire=$(($(counter rx0_hw_gro_wire_packets) - wire)) bytes=$(($(counter rx0_hw_gro_bytes) - bytes))
  large=$(($(counter rx0_hw_gro_packets) - large)) seen=$(($(segments) - before))
  echo "$large frames, $bytes bytes, $wire segments; the stack saw $seen"
  [ $large -gt 100 ]
  # Each segment has 1448 bytes but for the last of a frame.
  [ $(((wire - large) * 1448)) -lt $bytes ]
  [ $((wire * 1448 + large * 66)) -ge $bytes ]
  [ $seen -ge $wire ]'
guest_check "switched off under traffic, no large frame comes any more" '
  # Until the rest is through, however long that takes.
  iperf3 -c 10.99.0.1 -t $((60 * slowness)) -R >/dev/null &
  client=$!
  large=$(counter rx0_hw_gro_packets)
  within 10 eval "[ \$(counter rx0_hw_gro_packets) -gt $large ]"
  ethtool -K vnet0 rx-gro-hw off
  large=$(counter rx0_hw_gro_packets) packets=$(counter rx0_packets)
  sleep 2
  [ $(counter rx0_hw_gro_packets) = $large ]
  [ $(($(counter rx0_packets) - packets)) -gt 100 ]
  ethtool -K vnet0 rx-gro-hw on
  within 5 eval "[ \$(counter rx0_hw_gro_packets) -gt $large ]"
  kill $client
  wait $client || true'
guest_check "without receive checksums there is none" '
  ethtool -K vnet0 rx off
  ethtool -k vnet0 | grep -x "rx-gro-hw: off .*\|rx-gro-hw: off"
  partial=$(counter rx0_csum_partial) valid=$(counter rx0_csum_unnecessary)
  iperf -c 10.99.0.1 -t 1 -R
  [ $(counter rx0_csum_partial) = $partial ]
  [ $(counter rx0_csum_unnecessary) = $valid ]
  ethtool -K vnet0 rx on rx-gro-hw on
  iperf -c 10.99.0.1 -t 1 -R
  [ $(counter rx0_csum_partial) -gt $partial ]'
guest_check "down and up keeps the choice" '
  ethtool -K vnet0 rx-gro-hw off
  ip link set vnet0 down
  ip link set vnet0 up
  large=$(counter rx0_hw_gro_packets)
  iperf -c 10.99.0.1 -t 1 -R
  [ $(counter rx0_hw_gro_packets) = $large ]
  ethtool -K vnet0 rx-gro-hw on'
head -c 40000000 /dev/urandom >"$GUEST_DIR/sent"
child "$BUSYBOX" nc -l -p 7000 -e cat "$GUEST_DIR/sent"
host_listens 7000
guest_check "data arrives as it was sent" "
  arrived=\$(nc $HOST 7000 </dev/null | sha256sum)
  echo \"\$arrived\"
  [ \"\$arrived\" = '$(sha256sum <"$GUEST_DIR/sent")' ]"
guest_check "no errors" '[ $(stat_of rx_errors) = 0 ]; [ $(stat_of rx_dropped) = 0 ]'
# Half of these frames say that their checksum is where nothing is. Of the others those that are large come without
# F_NEEDS_CSUM: the stack would have to find out itself what they are.
faults "bad-checksum rate=1/10"
guest_check "frames whose checksum is nowhere are dropped, and large ones that say nothing of it" '
  bad=$(counter rx0_bad_frames)
  frames iperf -c 10.99.0.1 -t 2 -R
  [ $(counter rx0_bad_frames) -gt $bad ]
  # Those of many segments that did reach the stack are CHECKSUM_PARTIAL.
  with_data | awk "\$1 > 2000 { n++; if (\$4 != 3) { print; bad++ } } END { print n, bad + 0; exit !n || bad }"'
faults "bad-segments rate=1/10"
guest_check "so are those of impossible segments" '
  bad=$(counter rx0_bad_frames)
  iperf -c 10.99.0.1 -t 2 -R
  [ $(counter rx0_bad_frames) -gt $bad ]'
faults
guest_check "traffic goes on" 'iperf -c 10.99.0.1 -t 1 -R'
finish
