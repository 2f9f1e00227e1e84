#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# The number of queue pairs changes while frames flow; interrupts and transmit queues are spread
# over the CPUs.
. "$(dirname "$0")/../lib/check.sh"

boot SMP=2 QUEUES=4 MEM=1G FAULTS=yes VNETD_LOG=info
IN_GUEST+='
# channels LINE: combined channels, of the maximum (1) or in use (2).
channels() {
  ethtool -l vnet0 | sed -n "s/^Combined:[[:space:]]*//p" | sed -n ${1}p
}
queues() {
  ls -d /sys/class/net/vnet0/queues/$1-* | wc -l
}
irq_of() {
  sed -n "s/^ *\([0-9]*\):.* vnet0-$1\$/\1/p" /proc/interrupts
}
'
guest_check "one pair for each CPU, of those that the card has" '
  ethtool -l vnet0
  [ $(channels 1) = 4 ]
  [ $(channels 2) = 2 ]
  [ $(queues tx) = 2 ]
  [ $(queues rx) = 2 ]
  [ $(vectors | wc -l) = 3 ]'
guest_check "each pair has an interrupt on a CPU of its own, and says so to irqbalance" '
  for pair in 0 1; do
    irq=$(irq_of $pair)
    cat /proc/irq/$irq/smp_affinity_list /proc/irq/$irq/affinity_hint
    [ $(cat /proc/irq/$irq/smp_affinity_list) = $pair ]
    [ $((0x$(cat /proc/irq/$irq/affinity_hint))) = $((1 << pair)) ]
  done'
guest_check "each CPU sends by the queue whose interrupt it gets" '
  for pair in 0 1; do
    [ $((0x$(cat /sys/class/net/vnet0/queues/tx-$pair/xps_cpus))) = $((1 << pair)) ]
  done
  # Not bound to one of them by what else the guest sends: the counters of both rise.
  for cpu in 0 1; do
    before=$(counter tx${cpu}_packets)
    taskset -c $cpu /usr/bin/ping -f -c 200 $gateway >/dev/null
    [ $(($(counter tx${cpu}_packets) - before)) -ge 200 ]
  done'
guest_check "all pairs, one pair, three pairs" '
  for n in 4 1 3; do
    ethtool -L vnet0 combined $n
    [ $(channels 2) = $n ]
    # The debug kernel lets go of their entries late.
    within 1 eval "[ \$(queues tx) = $n ]"
    within 1 eval "[ \$(queues rx) = $n ]"
    [ $(vectors | wc -l) = $((n + 1)) ]
    pings
  done'
guest_check "threads poll and then none, with pairs that are not in use and with the interface down, too" '
  for threads in 1 0; do
    echo $threads >/sys/class/net/vnet0/threaded
    pings
  done
  echo 1 >/sys/class/net/vnet0/threaded
  ip link set vnet0 down
  # Nobody would poll, and who asked for that would wait for ever.
  refused eval "echo 0 >/sys/class/net/vnet0/threaded"
  ip link set vnet0 up
  pings
  [ $(cat /proc/[0-9]*/comm | grep -c "^napi/vnet0-") = 3 ]
  echo 0 >/sys/class/net/vnet0/threaded
  pings'
guest_check "with more pairs than CPUs each CPU still has its queue" '
  [ $((0x$(cat /sys/class/net/vnet0/queues/tx-1/xps_cpus))) = 2 ]
  [ $((0x$(cat /sys/class/net/vnet0/queues/tx-2/xps_cpus))) = 0 ]'
guest_check "with one pair all CPUs share it" '
  ethtool -L vnet0 combined 1
  for cpu in 0 1; do PING="taskset -c $cpu /usr/bin/ping" flood_pings 50; done'
guest_check "no pairs, more than the card has, or separate queues are refused" '
  ethtool -L vnet0 combined 2
  refused ethtool -L vnet0 combined 0
  refused ethtool -L vnet0 combined 5
  refused ethtool -L vnet0 rx 1
  refused ethtool -L vnet0 tx 1
  [ $(channels 2) = 2 ]
  pings'
guest_check "counters of pairs that no longer run are kept" '
  ethtool -L vnet0 combined 2
  taskset -c 1 /usr/bin/ping -f -c 100 $gateway >/dev/null
  sum=$(stat_of tx_packets) second=$(counter tx1_packets)
  ethtool -L vnet0 combined 1
  [ $(counter tx1_packets) -ge $second ]
  [ $(stat_of tx_packets) -ge $sum ]'
guest_check "a change while the interface is down holds when it is up" '
  ip link set vnet0 down
  ethtool -L vnet0 combined 3
  [ $(channels 2) = 3 ]
  readdress
  [ $(vectors | wc -l) = 4 ]
  pings'
guest_check "pairs that are given up while the interface is down are none whose queues get stuck" '
  ethtool -L vnet0 combined 4
  ip link set vnet0 down
  ethtool -L vnet0 combined 2
  readdress
  # The stack looks at all transmit queues after five seconds.
  sleep 7
  [ $(counter tx_timeouts) = 0 ]
  [ $(counter resets) = 0 ]
  ethtool -L vnet0 combined 3'
IN_GUEST+='
limits=/sys/class/net/vnet0/queues/tx-1/byte_queue_limits
'
guest_check "a byte queue limit that every frame is over" '
  ethtool -L vnet0 combined 2
  cat $limits/limit_max >/tmp/limit
  echo 1 >$limits/limit_max
  # It is looked at when a frame comes back.
  PING="taskset -c 1 /usr/bin/ping" flood_pings 5
  [ $(cat $limits/limit) = 1 ]'
faults "stop-fetching queue=tx1"
guest_check "nor is one stuck that is given up with a frame under way which is over its limit" '
  taskset -c 1 /usr/bin/ping -c 1 -W 1 $gateway || true
  [ $(cat $limits/inflight) -gt 1 ]
  ethtool -L vnet0 combined 1
  sleep 12
  [ $(counter tx_timeouts) = 0 ]
  [ $(counter resets) = 0 ]'
faults
guest_check "and it is of use again" '
  ethtool -L vnet0 combined 3
  cat /tmp/limit >$limits/limit_max
  PING="taskset -c 1 /usr/bin/ping" flood_pings 50'
guest_check "the CPU that the user chose for an interrupt stays chosen" '
  echo 1 >/proc/irq/$(irq_of 0)/smp_affinity_list
  ip link set vnet0 down
  readdress
  [ $(cat /proc/irq/$(irq_of 0)/smp_affinity_list) = 1 ]
  ethtool -L vnet0 combined 2
  [ $(cat /proc/irq/$(irq_of 0)/smp_affinity_list) = 1 ]'
guest_check "the number changes during a transfer, which loses nothing" '
  transfers
  for n in 4 1 2 3 1 4 2; do
    ethtool -L vnet0 combined $n
    usleep 200000
  done
  end_transfers' 120
guest_check "the number changes 30 times under traffic" '
  traffic
  for i in $(seq 30); do
    ethtool -L vnet0 combined $((i % 4 + 1))
    usleep 100000
  done
  end_traffic
  pings
  flood_pings 1000' 120
guest_check "nothing is left in flight" '
  for queue in /sys/class/net/vnet0/queues/tx-*; do
    within 5 grep -qx 0 $queue/byte_queue_limits/inflight
  done
  [ $(counter resets) = 0 ]
  [ $(counter queue_errors) = 0 ]'
finish_guest

if [ "$FLAVOUR" = debug ]; then
  skip "CPUs that have nodes: the debug kernel knows none"
  exit $((CHECKS_FAILED > 0))
fi

# Two nodes with every other CPU: those that are near to a node come in another order than by number.
QEMU_EXTRA+=(-smp sockets=4)
for node in 0 1; do
  QEMU_EXTRA+=(
    -object "memory-backend-memfd,id=ram$node,size=256M,share=on"
    -numa "node,nodeid=$node,memdev=ram$node,cpus=$node,cpus=$((node + 2))"
  )
done
# They bring their memory themselves.
boot SMP=4 MEM=512M MEMORY=private
guest_check "where CPUs have nodes, too, each pair has its interrupt on the CPU that sends by it" '
  cat /sys/devices/system/node/node*/cpulist
  for pair in 0 1 2 3; do
    cpu=$(cat /proc/irq/$(irq_of $pair)/smp_affinity_list)
    sends=$(cat /sys/class/net/vnet0/queues/tx-$pair/xps_cpus)
    echo "pair $pair: interrupt on $cpu, frames of $sends"
    [ $((0x$sends)) = $((1 << cpu)) ]
  done'
finish
