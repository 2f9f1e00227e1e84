#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# A card that is slower than its senders: the stack is held back, by byte queue limits and, without
# them, by the ring; no frame comes back to the stack, and none is left behind.
. "$(dirname "$0")/../lib/check.sh"

boot SMP=2 MEM=1G
IN_GUEST+='
limits=/sys/class/net/vnet0/queues/tx-0/byte_queue_limits

# UDP to the discard port from four senders, until end_flood.
flood() {
  rm -f /tmp/stop
  for i in 1 2 3 4; do
    while [ ! -e /tmp/stop ]; do
      bash -c "exec 3<>/dev/udp/$gateway/9; dd if=/dev/zero bs=1400 count=500 >&3" || usleep 50000
    done >/dev/null 2>&1 &
  done
}
end_flood() {
  touch /tmp/stop
  wait
}

# Everything that was handed to the card is done, and no more waits.
drained() {
  for i in $(seq 50); do
    [ $(cat $limits/inflight) != 0 ] || break
    usleep 100000
  done
  tc -s qdisc show dev vnet0
  grep . $limits/*
  [ $(cat $limits/inflight) = 0 ]
  tc -s qdisc show dev vnet0 | grep "backlog 0b 0p"
  [ $(counter tx0_packets) = $(counter card_tx0_packets) ]
}
'

# stall: the card stops, for less time than QEMU or the driver would notice.
stall() {
  kill -STOP "${VNETD_PIDS[0]}"
  sleep 1
  kill -CONT "${VNETD_PIDS[0]}"
}

guest_check "what the driver answers to the stack is traced" '
  cd /sys/kernel/tracing/events/net/net_dev_xmit
  echo "rc == 0 && name == \"vnet0\"" >filter
  echo 1 >enable
  pings
  echo 0 >enable
  grep -q "net_dev_xmit: dev=vnet0 .* rc=0" ../../../trace
  echo >../../../trace
  echo "rc != 0 && name == \"vnet0\"" >filter
  echo 1 >enable'

guest_check "byte queue limits: the limit and what is in flight move under a flood" '
  before=$(cat $limits/limit)
  flood
  for i in $(seq 400); do cat $limits/inflight; usleep 5000; done | sort -nu >/tmp/inflight
  end_flood
  echo "limit before: $before, after: $(cat $limits/limit), in flight:" $(cat /tmp/inflight)
  [ $(tail -n 1 /tmp/inflight) -gt 1400 ]
  [ $(cat $limits/limit) != $before ]'
guest_check "after the flood nothing is left" 'drained; pings'
guest_check "no frame was put back" '
  tc -s qdisc show dev vnet0
  refused grep -v "requeues 0)" <<END
$(tc -s qdisc show dev vnet0 | grep requeues)
END'

check "the flood goes on" guest "$IN_GUEST flood"
for _ in 1 2 3; do
  stall
  sleep 0.5
done
guest_check "a card that stalls stops the stack by its limit, not by the ring" '
  end_flood
  drained
  pings'
finish
