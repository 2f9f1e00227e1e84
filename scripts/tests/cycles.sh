#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# The interface goes down and up, and the module out and in, 50 times each under traffic: nothing
# is lost, leaked or complained about.
. "$(dirname "$0")/../lib/check.sh"

boot MEM=1G
# A page pool reports how many of its pages are still out whenever it tries to go.
guest_check "page pools are traced" '
  cd /sys/kernel/tracing
  echo 8192 >buffer_size_kb
  echo 1 >events/page_pool/page_pool_release/enable'
guest_check "down and up 50 times under traffic" '
  traffic
  for i in $(seq 50); do
    ip link set vnet0 down
    ip link set vnet0 up
    usleep 100000
  done
  end_traffic' 240
guest_check "it works" 'pings'
guest_check "no slot was lost: more frames than slots pass" '
  ping -f -c 3000 $gateway | grep -F " 0% packet loss"'
guest_check "rmmod and insmod 50 times under traffic" '
  available >/tmp/available
  traffic
  for i in $(seq 50); do
    rmmod vnet
    insmod /vnet.ko
    readdress
    usleep 100000
  done
  end_traffic' 240
guest_check "it works after that" 'pings'
guest_check "more frames than slots pass after that" '
  ping -f -c 3000 $gateway | grep -F " 0% packet loss"'
guest_check "less than 16 MB of memory is missing" '
  before=$(cat /tmp/available) after=$(available)
  echo "before: $before kB, after: $after kB"
  [ $((before - after)) -lt 16384 ]'
guest_check "every page pool was empty when it went" '
  rmmod vnet
  sleep 2
  sed -n "s/.*page_pool_release: page_pool=\([^ ]*\) inflight=\([^ ]*\) .*/\1 \2/p" \
    /sys/kernel/tracing/trace >/tmp/pools
  [ $(wc -l </tmp/pools) -ge 100 ]
  awk "{ left[\$1] = \$2 } END { for (p in left) if (left[p] != 0) print p, left[p] }" /tmp/pools >/tmp/full
  cat /tmp/full
  [ ! -s /tmp/full ]'
finish
