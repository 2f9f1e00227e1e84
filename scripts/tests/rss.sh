#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# Receive side scaling on a TAP with several queues: the kernel puts a flow into a queue of its own
# choice, and the card brings it to the pair that the driver's table names.
. "$(dirname "$0")/../lib/check.sh"

own_network "RSS"

host=10.99.0.1
box=$ROOT/usr/bin/busybox

$box ip link set lo up
boot NET=tap:name=vnettest SMP=2 QUEUES=4 MEM=1G
$box ip addr add $host/24 dev vnettest
$box ip link set vnettest up
host_program /usr/bin/iperf3 -s -B $host >"$GUEST_DIR/iperf3.log" 2>&1
host_listens 5201
IN_GUEST+='
gateway=10.99.0.1
# received: frames so far, by pair.
received() {
  for pair in 0 1 2 3; do counter rx${pair}_packets; done | xargs
}
# came BEFORE: how many since then, by pair.
came() {
  received | xargs -n 1 | { for before in $1; do read -r now; echo $((now - before)); done; } | xargs
}
# only PAIR: the table names this pair and no other.
only() {
  ethtool -X vnet0 weight $(for n in 0 1 2 3; do [ $n = $1 ] && echo 1 || echo 0; done)
}
'
guest_check "four pairs and traffic" '
  ethtool -L vnet0 combined 4
  ip addr add 10.99.0.2/24 dev vnet0
  within 5 pings'
guest_check "every flow comes to the pair in the table" '
  for pair in 3 1 2; do
    only $pair
    before=$(received)
    iperf -c $gateway -t 1 -R -P 8
    pings
    came=$(came "$before")
    echo "pair $pair: $came"
    set -- $came
    for n in 0 1 2 3; do
      if [ $n = $pair ]; then [ $1 -gt 100 ]; else [ $1 = 0 ]; fi
      shift
    done
  done'
guest_check "nothing is lost or late on the way from another pair" '
  only 3
  flood_pings 1000'
guest_check "many flows are spread over the pairs in the table" '
  ethtool -X vnet0 equal 2
  before=$(received)
  iperf -c $gateway -t 1 -R -P 20
  came=$(came "$before")
  echo "$came"
  set -- $came
  [ $1 -gt 50 ]
  [ $2 -gt 50 ]
  [ $3 = 0 ]
  [ $4 = 0 ]'
guest_check "fewer pairs, and all of them receive" '
  ethtool -X vnet0 default
  for n in 1 3 4; do
    ethtool -L vnet0 combined $n
    pings
    iperf -c $gateway -t 1 -R -P 4
  done'
guest_check "the table changes 40 times during a transfer" '
  iperf -c $gateway -t 4 -R -P 4 >/tmp/transfer &
  for i in $(seq 40); do
    only $((i % 4))
    usleep 50000
  done
  wait $!
  grep -E "SUM.*receiver" /tmp/transfer
  flood_pings 200'
guest_check "no errors" '
  [ $(stat_of rx_errors) = 0 ]
  [ $(counter queue_errors) = 0 ]
  [ $(counter resets) = 0 ]'
finish
