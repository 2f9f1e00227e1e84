#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# The interface goes down and up, and the module out and in, 50 times each under traffic (500 in a
# long run): nothing is lost, leaked or complained about.
. "$(dirname "$0")/../lib/check.sh"

rounds=${VNET_LONG:+500}
rounds=${rounds:-50}

boot MEM=1G
# A page pool reports how many of its pages are still out whenever it tries to go.
guest_check "page pools are traced" '
  cd /sys/kernel/tracing
  echo 8192 >buffer_size_kb
  echo 1 >events/page_pool/page_pool_release/enable'
guest_check "down and up $rounds times under traffic" "rounds=$rounds"'
  traffic
  for i in $(seq $rounds); do
    ip link set vnet0 down
    ip link set vnet0 up
    usleep 100000
  done
  end_traffic' $((rounds * 5))
guest_check "it works" 'pings'
guest_check "no slot was lost: more frames than slots pass" '
  flood_pings 3000'
guest_check "rmmod and insmod $rounds times under traffic" "rounds=$rounds"'
  available >/tmp/available
  traffic
  for i in $(seq $rounds); do
    rmmod vnet
    insmod /vnet.ko
    readdress
    usleep 100000
  done
  end_traffic' $((rounds * 5))
guest_check "it works after that" 'pings'
guest_check "more frames than slots pass after that" '
  flood_pings 3000'
guest_check "less than 16 MB of memory is missing" '
  before=$(cat /tmp/available) after=$(available)
  echo "before: $before kB, after: $after kB"
  [ $((before - after)) -lt 16384 ]'
guest_check "every page pool was empty when it went" "rounds=$rounds"'
  rmmod vnet
  # One that was not is looked at again each second.
  empty() {
    sed -n "s/.*page_pool_release: page_pool=\([^ ]*\) inflight=\([^ ]*\) .*/\1 \2/p" \
      /sys/kernel/tracing/trace >/tmp/pools
    awk "{ left[\$1] = \$2 } END { for (p in left) if (left[p] != 0) print p, left[p] }" /tmp/pools >/tmp/full
    [ ! -s /tmp/full ]
  }
  within 10 empty || { cat /tmp/full && false; }
  [ $(wc -l </tmp/pools) -ge $((2 * rounds)) ]'
finish
