#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# A queue fails: its pair is started anew, and the others do not notice. If that does not help, the card
# is reset.
. "$(dirname "$0")/../lib/check.sh"

# The card lies about its rings, which the sanitizer would lay to the driver.
boot SMP=2 QUEUES=4 MEM=1G FAULTS=yes SANITIZE=off VNETD_LOG=info
IN_GUEST+='
# from_cpu CPU COUNT: echo requests by the queue of that CPU.
from_cpu() {
  PING="taskset -c $1 /usr/bin/ping" flood_pings $2
}
'
guest_check "frames go out by both pairs, and come in by the first" '
  ethtool -X vnet0 equal 1
  for cpu in 0 1; do
    before=$(counter tx${cpu}_packets)
    from_cpu $cpu 100
    [ $(($(counter tx${cpu}_packets) - before)) -ge 100 ]
  done
  taskset -c 0 /usr/bin/ping -i 0.01 $gateway >/tmp/ping &'
faults "used-id-range queue=tx1 count=1"
guest_check "an id that is none: the pair is started anew, and sends again" '
  ping -c 1 -W 1 $gateway
  taskset -c 1 /usr/bin/ping -c 5 -i 0.01 -W 1 $gateway || true
  within 10 eval "[ \$(counter queue_restarts) = 1 ]"
  [ $(counter tx1_bad_id) = 1 ]
  from_cpu 1 100'
faults
guest_check "the other pair went on without a loss" '
  came=$(counter rx0_packets)
  within 5 eval "[ \$(counter rx0_packets) -ge $((came + 20)) ]"
  killall -INT ping
  within 5 grep received /tmp/ping
  # No number is left out. The last ones may have been on their way.
  sed -n "s/^.* bytes from .* icmp_seq=\([0-9]*\) .*/\1/p" /tmp/ping >/tmp/numbers
  awk "{ last = \$1 } END { print NR, \"answers, the last one is that to\", last; exit !(NR == last && NR > 20) }" /tmp/numbers
  [ $(counter resets) = 0 ]'
faults "dma-error queue=rx0 count=1"
guest_check "the card stops a queue: so with its pair, and what was lost of it is sent again" '
  from_card 3000000 3
  [ $(counter queue_errors) = 1 ]
  [ $(counter queue_restarts) = 2 ]
  [ $(counter resets) = 0 ]
  [ $(counter card_rx0_errors) = 1 ]'
faults
guest_check "no frame of before counts as in flight" '
  for n in 0 1; do
    within 5 grep -x 0 /sys/class/net/vnet0/queues/tx-$n/byte_queue_limits/inflight
  done
  [ $(counter tx_timeouts) = 0 ]'
faults "used-id-range queue=tx1 every=10"
guest_check "if it fails again soon after, the card is reset" '
  for i in $(seq 100); do
    [ $(counter resets) = 0 ] || break
    taskset -c 1 /usr/bin/ping -q -c 10 -i 0.01 -W 0.1 $gateway >/dev/null || true
  done
  [ $(counter resets) -gt 0 ]
  [ $(counter tx1_bad_id) -ge 2 ]'
faults
guest_check "and all is well again" '
  within 15 ping -c 1 -W 1 $gateway
  ethtool -X vnet0 default
  for cpu in 0 1; do from_cpu $cpu 100; done
  from_card 3000000 4
  to_card 3000000'
# A pair that was started a moment ago would have the card reset.
guest_check "it stays like that" '
  counter queue_restarts >/tmp/restarts
  counter resets >/tmp/resets
  sleep 11
  [ $(counter queue_restarts) = $(cat /tmp/restarts) ]
  [ $(counter resets) = $(cat /tmp/resets) ]'
faults "register-ones register=QUEUE_ERRORS" "dma-error queue=rx0 count=1"
guest_check "if the card says that all pairs failed, only the one is started anew that did" '
  taskset -c 0 /usr/bin/ping -c 3 -i 0.2 -W 1 $gateway || true
  within 5 eval "[ \$(counter queue_restarts) = $(($(cat /tmp/restarts) + 1)) ]"
  sleep 2
  [ $(counter queue_restarts) = $(($(cat /tmp/restarts) + 1)) ]
  [ $(counter resets) = $(cat /tmp/resets) ]
  flood_pings 50'
faults
check "... which it did say" faults_came
# With this seed it is the bit of rx1 that is read wrong.
faults "register-flip register=QUEUE_ERRORS at=1" "dma-error queue=rx1 count=1" seed=75
guest_check "a failure that does not show when the card is asked for it does a little later" '
  taskset -c 1 /usr/bin/ping -c 3 -i 0.2 -W 1 $gateway || true
  within 5 eval "[ \$(counter queue_restarts) = $(($(cat /tmp/restarts) + 2)) ]"
  [ $(counter resets) = $(cat /tmp/resets) ]
  flood_pings 50'
faults
check "... as one bit was wrong" faults_came
# Of what is read wrong nothing stays. The card is asked every second.
guest_check "frames that were missed so far" 'stat_of rx_missed_errors >/tmp/missed'
faults "register-flip register=S_MISSED rate=1/3" "register-ones register=EVENT_CAUSE" seed=1
sleep 4
faults
check "the card tells wrong numbers of them, and that it failed" faults_came
guest_check "neither is believed" '
  [ $(stat_of rx_missed_errors) = $(cat /tmp/missed) ]
  sleep 2
  [ $(stat_of rx_missed_errors) = $(cat /tmp/missed) ]
  [ $(counter resets) = $(cat /tmp/resets) ]
  pings'
faults link-down "register-ones register=LINK"
sleep 2
guest_check "that there is no link cannot be seen" 'grep -x 1 /sys/class/net/vnet0/carrier'
faults link-down
check "... as there was none" faults_came
guest_check "it is seen as soon as that can be" 'within 5 grep -x 0 /sys/class/net/vnet0/carrier'
faults
guest_check "... and so is the link when it is back" 'within 5 grep -x 1 /sys/class/net/vnet0/carrier; pings'
finish
