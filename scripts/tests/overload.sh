#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# Frames come without end and faster than the guest can take them: programs still get the CPU to read
# what was received for them, and the interface can be used and changed.
. "$(dirname "$0")/../lib/check.sh"

FILES=("$ROOT/usr/bin/perl" "$ROOT/usr/lib/x86_64-linux-gnu/libcrypt.so.1")
boot NET=null:rx=64
# reader SECONDS: how many frames a program read from a socket for their EtherType, and how many the
# driver received meanwhile. What the socket had no room for was received in vain.
IN_GUEST+='
reader() {
  LC_ALL=C LD_LIBRARY_PATH=/root /root/perl -e "
    socket(S, 17, 3, 0xb588) and setsockopt(S, 1, 33, pack(q(i), 16 << 20)) or die;
    setsockopt(S, 1, 20, pack(q(qq), 1, 0)) or die;
    sub given { open(F, q(/sys/class/net/vnet0/statistics/rx_packets)); return int(<F>) }
    my (\$got, \$end, \$before) = (0, time + $1, given());
    while (time < \$end) { \$got++ if defined recv(S, my \$frame, 64, 0) }
    print \$got, q( ), given() - \$before, qq(\n)"
}
'
guest_check "a program gets a good part of what the driver takes" '
  set -- $(reader $((3 * slowness))) $(counter channel0_turns)
  echo "read: $1, received: $2, turns: $3"
  [ $1 -ge 1000 ]
  [ $(($1 * 2)) -ge $2 ]
  [ $3 -ge 10 ]'
guest_check "the interface goes down and up, and its rings change" '
  for size in 64 128 256; do
    ip link set vnet0 down
    ip link set vnet0 up
    ethtool -G vnet0 rx $size
    before=$(stat_of rx_packets)
    within 5 eval "[ \$(stat_of rx_packets) -gt $before ]"
  done'
guest_check "NAPI in a thread of its own takes frames, too" '
  echo 1 >/sys/class/net/vnet0/threaded
  set -- $(reader $((2 * slowness)))
  echo "read: $1, received: $2"
  [ $1 -ge 1000 ]
  echo 0 >/sys/class/net/vnet0/threaded'
finish
