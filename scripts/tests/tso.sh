#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# Segmentation by the card, TCP over IPv4 and IPv6 and UDP: on a TAP interface, whose kernel is the
# peer, in a network namespace.
. "$(dirname "$0")/../lib/check.sh"

own_network "TSO"

box=$ROOT/usr/bin/busybox

$box ip link set lo up
check "a TAP interface can be made" "$box" tunctl -t vnettest
$box ip addr add 10.99.0.1/24 dev vnettest
echo 0 >/proc/sys/net/ipv6/conf/vnettest/accept_dad
$box ip link set vnettest up
$box ip addr add fd99::1/64 dev vnettest

FILES=("$ROOT/usr/bin/perl" "$ROOT/usr/lib/x86_64-linux-gnu/libcrypt.so.1")
boot NET=tap:name=vnettest MEM=1G
host_program /usr/bin/iperf3 -s >"$GUEST_DIR/iperf3.log" 2>&1
host_listens 5201

IN_GUEST+='
perl() { LC_ALL=C LD_LIBRARY_PATH=/root /root/perl "$@"; }

# segments COMMAND...: prints the frames that the card was to cut, and the segments of them.
segments() {
  set -- "$(counter tx0_gso)" "$(counter tx0_gso_segments)" "$@"
  was=$1 were=$2
  shift 2
  "$@" >&2
  frames=$(($(counter tx0_gso) - was)) segments=$(($(counter tx0_gso_segments) - were))
  echo "$frames frames, $segments segments"
}
'
guest_check "addresses" '
  echo 0 >/proc/sys/net/ipv6/conf/vnet0/accept_dad
  ip addr add 10.99.0.2/24 dev vnet0
  ip addr add fd99::2/64 dev vnet0
  within 5 ping -c 1 -W 1 10.99.0.1
  within 5 ping -6 -c 1 -W 1 fd99::1'
guest_check "the driver offers TSO, with ECN, and USO" '
  ethtool -k vnet0 >/tmp/features
  cat /tmp/features
  for feature in tcp-segmentation-offload tx-tcp-segmentation tx-tcp6-segmentation \
    tx-tcp-ecn-segmentation tx-udp-segmentation tx-checksum-ip-generic; do
    grep "$feature: on" /tmp/features
  done'
guest_check "TCP over IPv4 leaves in large frames" '
  segments iperf -c 10.99.0.1 -t 2
  [ $frames -gt 100 ]
  [ $segments -gt $((10 * frames)) ]'
guest_check "TCP over IPv6 does" '
  segments iperf -6 -c fd99::1 -t 2
  [ $frames -gt 100 ]
  [ $segments -gt $((10 * frames)) ]'
guest_check "headers lie in the frames" '[ $(counter tx0_header_apart) -lt 20 ]'

mkfifo "$GUEST_DIR/silence"
exec {silence}<>"$GUEST_DIR/silence"
# sent_intact PROTOCOL NAME SCRIPT: what the guest sends to port 6001 must be what arrives. The script
# leaves a digest in /tmp/digest.
sent_intact() {
  if [ "$1" = tcp ]; then
    # It says nothing itself, until the other side has said all.
    setpriv --pdeathsig KILL "$box" nc -l -p 6001 <&"$silence" >"$GUEST_DIR/arrived" &
  else
    # With SO_RCVBUFFORCE or, if it may not, SO_RCVBUF: room for all that comes while the machine is busy.
    # shellcheck disable=SC2016 # Perl expands these
    LC_ALL=C host_program /usr/bin/perl -e 'socket(S, 2, 2, 17); $| = 1;
      setsockopt(S, 1, 33, pack("i", 8 << 20)) or setsockopt(S, 1, 8, pack("i", 8 << 20));
      bind(S, pack("S n x12", 2, 6001)) or die; print $data while defined recv(S, $data, 65536, 0)' \
      >"$GUEST_DIR/arrived"
  fi
  local listener=$!
  if [ "$1" = tcp ]; then host_listens 6001; else sleep 1; fi
  guest_check "$2" "$3"
  check "$2: what was sent" arrived
  kill "$listener" 2>/dev/null
}
arrived() {
  local want
  want=$(guest 'cat /tmp/digest') || return
  # The last of it may still be with the other side.
  for _ in {1..50}; do
    [ "$(sha256sum <"$GUEST_DIR/arrived")" != "$want" ] || return 0
    sleep 0.1
  done
  echo "arrived: $(stat -c %s "$GUEST_DIR/arrived") bytes"
  return 1
}
send='
  head -c 20000000 /dev/urandom | tee /tmp/sent | sha256sum >/tmp/digest
  nc 10.99.0.1 6001 </tmp/sent'
sent_intact tcp "data arrives intact" "$send"
# A packet socket that is not read keeps a clone of each frame, which shares the headroom.
sent_intact tcp "data arrives intact while headers must be sent apart" "
  LC_ALL=C LD_LIBRARY_PATH=/root /root/perl -e 'socket(S, 17, 3, 0x0300) and setsockopt(S, 1, 33, pack(q(i), 1e8)) or die; sleep' &
  sleep 1
  $send
  kill \$!
  [ \$(counter tx0_header_apart) -gt 100 ]"
sent_intact tcp "data arrives intact while offloads go and come" "
  head -c 20000000 /dev/urandom | tee /tmp/sent | sha256sum >/tmp/digest
  nc 10.99.0.1 6001 </tmp/sent &
  n=0
  while kill -0 \$! 2>/dev/null; do
    for change in 'tso off' 'tx off' 'sg off' 'sg on' 'tx on' 'tso on'; do ethtool -K vnet0 \$change; done
    n=\$((n + 1))
  done
  echo \$n times
  [ \$n -gt 2 ]"
# The pages of a file are sent where they are (sendfile is system call 40), each a fragment.
sent_intact tcp "a file arrives intact, its long frames in tables of a ring of 64" '
  ethtool -G vnet0 tx 64
  head -c 20000000 /dev/urandom | tee /tmp/sent | sha256sum >/tmp/digest
  was=$(counter tx0_indirect)
  perl -e "
    socket(S, 2, 1, 6) and connect(S, pack(q(S n C4 x8), 2, 6001, 10, 99, 0, 1)) or die;
    open(F, q(</tmp/sent)) or die;
    while ((\$n = syscall(40, fileno(S), fileno(F), 0, 4000000)) > 0) { \$sent += \$n }
    \$sent == 20000000 or die"
  echo $(($(counter tx0_indirect) - was)) in tables
  [ $(($(counter tx0_indirect) - was)) -gt 50 ]
  ethtool -G vnet0 tx 512'
guest_check "switched off, nothing is left to the card" '
  ethtool -K vnet0 tso off
  segments iperf -c 10.99.0.1 -t 1
  [ $frames = 0 ]
  ethtool -K vnet0 tso on'

# A socket with UDP_SEGMENT (103 at level 17), each write of which is many datagrams.
sent_intact udp "UDP leaves in large frames" '
  head -c 1000000 /dev/urandom | tee /tmp/sent | sha256sum >/tmp/digest
  segments perl -e "
    socket(S, 2, 2, 17) and setsockopt(S, 17, 103, pack(q(i), 1000)) or die;
    connect(S, pack(q(S n C4 x8), 2, 6001, 10, 99, 0, 1)) or die;
    open(F, q(</tmp/sent));
    while (sysread(F, \$data, 40000)) { syswrite(S, \$data) or die; select(undef, undef, undef, 0.02) }"
  [ $frames = 25 ]
  [ $segments = 1000 ]'

guest_check "no errors, no drops, the queue never failed" '
  [ $(stat_of tx_errors) = 0 ]
  [ $(stat_of tx_dropped) = 0 ]
  [ $(counter queue_errors) = 0 ]'
finish
