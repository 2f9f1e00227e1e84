#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# UDP in both directions.
. "$(dirname "$0")/../lib/check.sh"

boot
# bash sends each write as a datagram, and a read gives one.
guest_check "datagrams of 1 to 9000 bytes come back from the echo port" '
  for size in 1 64 1000 1472 1473 4000 9000; do
    head -c $size /dev/urandom >/tmp/out
    bash -c "exec 3<>/dev/udp/$gateway/7; cat /tmp/out >&3; timeout 5 dd bs=65536 count=1 <&3 >/tmp/in"
    cmp /tmp/out /tmp/in
  done'
guest_check "500 datagrams to the character generator, each answered" '
  bash -c "
    exec 3<>/dev/udp/$gateway/19
    for i in {1..500}; do
      echo \$i >&3
      timeout 5 dd bs=65536 count=1 <&3 >>/tmp/lines 2>/dev/null || exit 1
    done"
  [ -s /tmp/lines ]' 120
guest_check "20 MB to the discard port, then all is well" '
  bash -c "exec 3<>/dev/udp/$gateway/9; dd if=/dev/zero bs=1400 count=15000 >&3"
  [ $(stat_of tx_errors) = 0 ]
  pings' 120
finish
