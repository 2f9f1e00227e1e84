#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# UDP in both directions.
. "$(dirname "$0")/../lib/check.sh"

FILES=("$ROOT/usr/bin/perl" "$ROOT/usr/lib/x86_64-linux-gnu/libcrypt.so.1")
boot
# bash sends each write as a datagram, and a read gives one.
guest_check "datagrams of 1 to 9000 bytes come back from the echo port" '
  for size in 1 64 1000 1472 1473 4000 9000; do
    head -c $size /dev/urandom >/tmp/out
    bash -c "exec 3<>/dev/udp/$gateway/7; cat /tmp/out >&3; timeout 5 dd bs=65536 count=1 <&3 >/tmp/in"
    cmp /tmp/out /tmp/in
  done'
# Up to 128 bytes, a frame and the header before it are copied.
guest_check "datagrams about as long as what is copied come back, and it is" '
  before=$(counter tx0_copied)
  for size in $(seq 60 80); do
    head -c $size /dev/urandom >/tmp/out
    bash -c "exec 3<>/dev/udp/$gateway/7; cat /tmp/out >&3; timeout 5 dd bs=65536 count=1 <&3 >/tmp/in"
    cmp /tmp/out /tmp/in
  done
  copied=$(($(counter tx0_copied) - before))
  echo "copied: $copied"
  # With a header of 12 or 20 bytes, and 42 of the protocols; ARP may come on top.
  [ $copied -ge 7 ]
  [ $copied -lt 21 ]'
guest_check "500 datagrams to the character generator, each answered" '
  bash -c "
    exec 3<>/dev/udp/$gateway/19
    for i in {1..500}; do
      echo \$i >&3
      timeout 5 dd bs=65536 count=1 <&3 >>/tmp/lines 2>/dev/null || exit 1
    done"
  [ -s /tmp/lines ]' 120
# A socket with UDP_SEGMENT (103 at level 17): each write is nine datagrams of 1000 bytes and one of
# 500. The gateway takes no large frames of UDP, so the card cuts them for it.
guest_check "large frames come back from the echo port as the datagrams that they stand for" '
  before=$(counter tx0_gso)
  LC_ALL=C LD_LIBRARY_PATH=/root /root/perl -e "
    socket(S, 2, 2, 17) and setsockopt(S, 17, 103, pack(q(i), 1000)) or die;
    setsockopt(S, 1, 21, pack(q(qq), 5, 0)) or die;
    connect(S, pack(q(S n C4 x8), 2, 7, 10, 77, 0, 1)) or die;
    for my \$write (1 .. 20) {
      my @sent = map { pack(q(N), \$write * 100 + \$_) . chr(65 + \$_) x (\$_ < 9 ? 996 : 496) } 0 .. 9;
      syswrite(S, join(q(), @sent)) or die;
      for my \$part (@sent) {
        defined recv(S, my \$back, 65536, 0) or die qq(nothing came);
        \$back eq \$part or die length(\$back), q( bytes that are not those sent);
      }
    }"
  echo "large frames: $(($(counter tx0_gso) - before))"
  [ $(($(counter tx0_gso) - before)) = 20 ]'
guest_check "20 MB to the discard port, then all is well" '
  bash -c "exec 3<>/dev/udp/$gateway/9; dd if=/dev/zero bs=1400 count=15000 >&3"
  [ $(stat_of tx_errors) = 0 ]
  pings' 120
finish
