#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# A card that is slower than its senders: the stack is held back, by byte queue limits and, without
# them, by the ring; no frame comes back to the stack, and none is left behind.
. "$(dirname "$0")/../lib/check.sh"

boot SMP=2 MEM=1G
IN_GUEST+='
limits=/sys/class/net/vnet0/queues/tx-0/byte_queue_limits

# UDP to the discard port, until end_flood, from more senders than it takes to fill the ring: the
# send buffer of a socket holds about ninety such frames.
flood() {
  rm -f /tmp/stop /tmp/flood
  for i in 1 2 3 4 5 6 7 8; do
    while [ ! -e /tmp/stop ]; do
      bash -c "exec 3<>/dev/udp/$gateway/9; dd if=/dev/zero bs=1400 count=500 >&3" || usleep 50000
    done >/dev/null 2>&1 &
    echo $! >>/tmp/flood
  done
}
# Also of an earlier check, whose children they were.
end_flood() {
  touch /tmp/stop
  wait
  while read -r loop; do within 20 [ ! -e "/proc/$loop" ]; done </tmp/flood
}

# Everything that was handed to the card is done, and no more waits: at one moment, as what the guest sends by itself
# may come between two looks.
drained() {
  within 5 at_rest || {
    tc -s qdisc show dev vnet0
    grep . $limits/*
    ethtool -S vnet0
    return 1
  }
}
at_rest() {
  [ $(cat $limits/inflight) = 0 ] &&
    tc -s qdisc show dev vnet0 | grep -q "backlog 0b 0p" &&
    [ $(counter tx0_packets) = $(counter card_tx0_packets) ]
}
'

# stalls: the card stands still three times, too short for QEMU or the driver to take offence.
stalls() {
  local n
  for n in 1 2 3; do
    kill -STOP "${VNETD_PIDS[0]}" && sleep 1
    kill -CONT "${VNETD_PIDS[0]}" && sleep 0.5 || return
  done
}

# For each frame: what the driver answered to the stack, of which NETDEV_TX_OK is 0. (The count of
# requeues that tc shows is no measure: the stack puts frames back by itself, before it asks the
# driver, when it finds the queue stopped.)
guest_check "the answers of the driver are traced" '
  cd /sys/kernel/tracing
  echo "rc == 0" >events/net/net_dev_xmit/filter
  echo 1 >events/net/net_dev_xmit/enable
  pings
  grep "net_dev_xmit: dev=vnet0 .* rc=0" trace
  echo "rc != 0" >events/net/net_dev_xmit/filter
  echo >trace'

# The ring has room for more frames than this bound, so the driver has no reason to stop the queue.
# What is in flight is the difference of two counts that sysfs reads one after the other: it may come
# out below zero, which is no bound to anything.
guest_check "under a flood the byte queue limit moves, and what is in flight" '
  echo 100000 >$limits/limit_max
  before=$(cat $limits/limit)
  flood
  # On a busy machine the senders leave little to who looks: then fewer looks do.
  read -r begun _ </proc/uptime
  for i in $(seq 200); do
    cat $limits/inflight
    usleep 5000
    read -r now _ </proc/uptime
    [ $((${now%.*} - ${begun%.*})) -lt 10 ] || break
  done |
    grep -vxE "4[0-9]{9}" | sort -nu >/tmp/inflight
  after=$(cat $limits/limit)
  end_flood
  echo "limit before: $before, after: $after, in flight:" $(cat /tmp/inflight)
  [ $(tail -n 1 /tmp/inflight) -gt 1442 ]
  [ $(tail -n 1 /tmp/inflight) -lt 110000 ]
  [ $after != $before ]'
guest_check "after the flood nothing is left" 'drained; pings'
guest_check "it was the limit that held the stack back, not the ring" '[ $(counter tx0_stops) = 0 ]'

check "flood" guest "$IN_GUEST flood"
check "the card stands still and goes on, three times" stalls
guest_check "nothing is left" 'end_flood; drained; pings'

# With a lower bound this high byte queue limits never stop the queue: the driver has to. The ring is
# one that slow senders, too, fill while the card stands still.
guest_check "flood without byte queue limits" '
  ethtool -G vnet0 tx 64
  echo $(counter tx0_stops) >/tmp/stops
  echo 100000000 >$limits/limit_max
  echo 100000000 >$limits/limit_min
  flood'
check "the card stands still and goes on, three times again" stalls
guest_check "the full ring stopped the queue, and room in it woke the queue each time" '
  end_flood
  drained
  echo "stops: $(cat /tmp/stops), then $(counter tx0_stops); wakes: $(counter tx0_wakes)"
  [ $(counter tx0_stops) -ge $(($(cat /tmp/stops) + 3)) ]
  [ $(counter tx0_wakes) = $(counter tx0_stops) ]
  pings'
guest_check "the driver dropped nothing and never answered NETDEV_TX_BUSY" '
  [ $(stat_of tx_dropped) = 0 ]
  [ $(stat_of tx_errors) = 0 ]
  refused grep net_dev_xmit: /sys/kernel/tracing/trace'
finish
