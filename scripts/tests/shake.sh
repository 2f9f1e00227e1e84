#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# Everything that can be changed about the interface changes in random order under full load, for a
# minute (ten in a long run): nothing leaks, stalls or is complained about. VNET_SEED repeats a run, and
# VNET_SECONDS has it take longer.
. "$(dirname "$0")/../lib/check.sh"
. "$REPO/scripts/lib/xdp.sh"

seed=${VNET_SEED:-$((RANDOM * 32768 + RANDOM))}
seconds=${VNET_SECONDS:-${VNET_LONG:+600}}
seconds=${seconds:-60}

check "XDP programs compile" xdp_programs
FILES=("$XDP_PROGRAMS")
boot SMP=2 QUEUES=4 MEM=1G
IN_GUEST+='
# pick N: a number from 0 to N - 1, in $picked. The same seed gives the same numbers.
pick() {
  state=$(((state * 1103515245 + 12345) % 2147483648))
  picked=$((state / 65536 % $1))
}
# one_of WORD...: one of them, in $picked.
one_of() {
  pick $#
  shift $picked
  picked=$1
}

# step: one change, whose commands must succeed.
step() {
  pick 14
  case $picked in
    0)
      pick 7; rx=$((64 << picked)); pick 7
      do_ ethtool -G vnet0 rx $rx tx $((64 << picked)) ;;
    1 | 2)
      pick 4
      do_ ethtool -L vnet0 combined $((picked + 1)) ;;
    3)
      do_ ip link set vnet0 down
      pick 2
      [ $picked = 0 ] || do_ ethtool -L vnet0 combined 2
      do_ readdress ;;
    4 | 5)
      one_of rx tx sg tso gso gro rxhash rx-gro-hw; feature=$picked
      one_of on off
      # Some are fixed, on some cards.
      echo "ethtool -K vnet0 $feature $picked"
      ethtool -K vnet0 $feature $picked || true ;;
    6)
      one_of 68 1280 1500 4000 9000
      do_ ip link set vnet0 mtu $picked
      do_ ip link set vnet0 mtu 1500 ;;
    7)
      one_of "on" "off rx-usecs 0 rx-frames 0" "off rx-usecs 50 rx-frames 0" "off rx-usecs 200 rx-frames 16"
      do_ ethtool -C vnet0 adaptive-rx $picked ;;
    8)
      do_ ethtool -X vnet0 equal 1
      do_ ethtool -X vnet0 default ;;
    9)
      do_ rmmod vnet
      do_ insmod /vnet.ko
      do_ readdress ;;
    10 | 11)
      one_of pass_frags move_frags drop_frags off off
      if [ $picked = off ]; then
        do_ ip link set vnet0 xdpdrv off
      else
        # Not while headers are apart.
        echo "XDP $picked"
        split || do_ ip -force link set vnet0 xdpdrv obj /root/programs.o program $picked
      fi ;;
    12 | 13)
      one_of on on off
      echo "tcp-data-split $picked"
      # Not for a program.
      ip link show vnet0 | grep prog/xdp || do_ ethtool -G vnet0 tcp-data-split $picked ;;
  esac
  pick 4
  usleep $((picked * 50000))
}
split() {
  ethtool -g vnet0 | grep "^TCP data split:.*on"
}
do_() {
  echo "$*"
  "$@" || broken=$*
}
shake() {
  broken= end=$(($(cut -d. -f1 /proc/uptime) + seconds))
  while [ $(cut -d. -f1 /proc/uptime) -lt $end ]; do
    step
    if [ "$broken" ]; then echo "failed: $broken"; return 1; fi
  done
}
flows() {
  for setting in on off; do
    for feature in rx tx sg tso gso gro; do ethtool -K vnet0 $feature $setting || true; done
    pings
    from_card 3000000 4
    to_card 3000000
    flood_pings 2000
  done
}
# UDP out as fast as it goes, beside what "traffic" does.
flood() {
  while [ ! -e /tmp/stop ]; do
    bash -c "exec 3<>/dev/udp/$gateway/9; dd if=/dev/zero bs=1000 count=1000 >&3" || usleep 50000
  done >/dev/null 2>&1 &
}
'
guest_check "page pools are traced" '
  cd /sys/kernel/tracing
  echo 8192 >buffer_size_kb
  echo 1 >events/page_pool/page_pool_release/enable'
guest_check "random changes for $seconds s under load, with VNET_SEED=$seed" "state=$seed; seconds=$seconds"'
  traffic
  flood
  shake >/tmp/steps 2>&1 || { tail -n 20 /tmp/steps; end_traffic; exit 1; }
  ip link set vnet0 xdpdrv off
  end_traffic
  wc -l /tmp/steps
  [ $(wc -l </tmp/steps) -ge $((30 / slowness)) ]' $((seconds + 60))
guest_check "traffic flows, with all offloads and without" 'in_time 100 flows' 120
guest_check "nothing is left in flight" '
  for queue in /sys/class/net/vnet0/queues/tx-*; do
    within 5 grep -qx 0 $queue/byte_queue_limits/inflight
  done
  [ $(counter tx_timeouts) = 0 ]
  [ $(counter resets) = 0 ]
  [ $(counter queue_errors) = 0 ]'
guest_check "every page pool was empty when it went" '
  rmmod vnet
  sleep 2
  sed -n "s/.*page_pool_release: page_pool=\([^ ]*\) inflight=\([^ ]*\) .*/\1 \2/p" \
    /sys/kernel/tracing/trace >/tmp/pools
  [ $(wc -l </tmp/pools) -ge $((10 / slowness)) ]
  awk "{ left[\$1] = \$2 } END { for (p in left) if (left[p] != 0) print p, left[p] }" /tmp/pools >/tmp/full
  cat /tmp/full
  [ ! -s /tmp/full ]'
finish
