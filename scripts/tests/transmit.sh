#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# Transmission in batches: one doorbell for many frames, no frame kept for long after it was sent,
# software time stamps, and frames that are too long.
. "$(dirname "$0")/../lib/check.sh"

FILES=("$ROOT/usr/bin/perl" "$ROOT/usr/lib/x86_64-linux-gnu/libcrypt.so.1")
boot SMP=2
IN_GUEST+='
perl() { LC_ALL=C LD_LIBRARY_PATH=/root /root/perl "$@"; }

# generate COUNT BURST: frames to the discard port from the packet generator, which took $taken microseconds.
generate() {
  modprobe pktgen
  echo "add_device vnet0" >/proc/net/pktgen/kpktgend_0
  for setting in "count $1" "burst $2" "pkt_size 60" "delay 0" "dst $gateway" "udp_dst_min 9" \
    "udp_dst_max 9" "dst_mac $(ip neigh show "$gateway" dev vnet0 | cut -d" " -f3)"; do
    echo "$setting" >/proc/net/pktgen/vnet0
  done
  echo start >/proc/net/pktgen/pgctrl
  cat /proc/net/pktgen/vnet0
  taken=$(sed -n "s/^Result: OK: \([0-9]*\)(.*/\1/p" /proc/net/pktgen/vnet0)
  rmmod pktgen
}

# generated COUNT BURST: doorbells that it took.
generated() {
  pings
  before=$(counter tx0_packets) rung=$(counter tx0_doorbells) shown=$(counter card_tx0_packets)
  generate "$@"
  rung=$(($(counter tx0_doorbells) - rung))
  echo "$rung doorbells"
  # Frames of others are few.
  [ $(($(counter tx0_packets) - before)) -ge "$1" ]
  [ $(($(counter card_tx0_packets) - shown)) -ge "$1" ]
}
'
guest_check "a burst of frames takes one doorbell at most" '
  generated 32000 32
  [ $rung -le $((32000 / 32 + 100)) ]'
guest_check "the generator is not kept waiting for its frames" '
  generated 10 1
  # It ends when the last frame was freed.
  echo "$taken us"
  [ $taken -lt $((1000000 * slowness)) ]'

# What a socket has sent counts against its send buffer until the driver has freed it. A busy machine may take longer
# now and then; a driver that keeps frames does so each time.
guest_check "nothing that was sent stays with the driver" '
  bash -ec "exec 3<>/dev/udp/$gateway/9
  for burst in 1 2 15 16 17 40; do
    for try in 1 2 3; do
      for i in \$(seq \$burst); do echo \$i >&3; done
      usleep 50000
      if ss -Huan dst $gateway | tee /dev/stderr | grep \"^ESTAB *0 *0 \"; then continue 2; fi
    done
    exit 1
  done"'
guest_check "nor behind a burst of TCP" '
  to_card 3000000
  within 2 sh -c "[ \$(cat /sys/class/net/vnet0/queues/tx-0/byte_queue_limits/inflight) = 0 ]"
  [ $(counter tx0_packets) = $(counter card_tx0_packets) ]'

guest_check "ethtool tells of software time stamps" '
  ethtool -T vnet0 >/tmp/stamps
  cat /tmp/stamps
  grep software-transmit /tmp/stamps
  grep software-receive /tmp/stamps'
# SO_TIMESTAMPING (37) with SOF_TIMESTAMPING_TX_SOFTWARE and SOFTWARE: the frame and its stamp come
# back on the error queue (MSG_ERRQUEUE, MSG_DONTWAIT).
guest_check "a sent frame is stamped" '
  perl -e "
    socket(S, 2, 2, 17) and setsockopt(S, 1, 37, pack(q(i), 2 | 16)) or die;
    connect(S, pack(q(S n C4 x8), 2, 9, 10, 77, 0, 1)) or die;
    syswrite(S, q(x)) or die;
    select(undef, undef, undef, 0.3);
    recv(S, \$data, 2048, 0x2040) // die;
    length(\$data) > 1 or die"'
# PACKET_VNET_HDR (15 at level 263): a header that tells of segments of 65534 bytes takes a frame past the MTU,
# and one that is no longer than that goes as it is.
guest_check "a frame that is longer than the card takes is dropped, and no queue stops" '
  dropped=$(stat_of tx_dropped) shown=$(counter card_tx0_bytes)
  for len in 65553 65554 66500; do
    perl -e "
      socket(S, 17, 3, 0) and setsockopt(S, 263, 15, pack(q(i), 1)) or die;
      \$frame = pack(q(C2 v4), 1, 1, 2120, 65534, 2100, 16) . (chr(0) x $len);
      defined send(S, \$frame, 0, pack(q(S n i S C2 x8), 17, 0, $(cat /sys/class/net/vnet0/ifindex))) or die"
  done
  within 2 eval "[ \$(stat_of tx_dropped) = $((dropped + 2)) ]"
  within 2 eval "[ \$(counter card_tx0_bytes) -ge $((shown + 65553)) ]"
  [ $(counter queue_errors) = 0 ]
  pings'
finish
