#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# What a learner can watch: trace events, which agree with the counters, and debug messages.
. "$(dirname "$0")/../lib/check.sh"

boot
guest_check "four trace events, silent until enabled" '
  cd /sys/kernel/tracing
  for event in doorbell irq poll complete; do cat events/vnet/vnet_$event/format; done
  pings
  refused grep vnet_ trace'
# Nothing but this test sends while events and counters are compared.
guest_check "all fire during a ping" '
  counts() {
    echo $(counter tx0_doorbells) $(counter rx0_doorbells) $(counter channel0_interrupts) \
      $(counter tx0_packets) $(counter tx0_bytes)
  }
  echo 1 >/proc/sys/net/ipv6/conf/vnet0/disable_ipv6
  pings
  cd /sys/kernel/tracing
  counts >/tmp/before
  echo 1 >events/vnet/enable
  ping -c 20 -i 0.05 -W 5 $gateway
  usleep 300000
  echo 0 >events/vnet/enable
  counts >/tmp/after
  grep -o "vnet_.*" trace | tee /tmp/trace
  for event in doorbell irq poll complete; do grep -q "^vnet_$event: vnet0 " /tmp/trace; done
  paste -d " " /tmp/before /tmp/after |
    awk "{ print \$6 - \$1, \$7 - \$2, \$8 - \$3, \$9 - \$4, \$10 - \$5 }" >/tmp/grown'
guest_check "doorbells: one event for each that was rung, with an index that goes up" '
  cat /tmp/grown /tmp/trace
  read tx rx rest </tmp/grown
  # Two pings may have shared one, on a busy machine.
  [ $tx -ge 10 ]
  [ $(grep -cxE "vnet_doorbell: vnet0 queue=1 avail=[0-9]+" /tmp/trace) = $tx ]
  [ $(grep -cxE "vnet_doorbell: vnet0 queue=0 avail=[0-9]+" /tmp/trace) = $rx ]
  sed -n "s/.*queue=1 avail=//p" /tmp/trace | awk "
    NR > 1 { step = (\$1 - last + 65536) % 65536; if (step < 1 || step > 20) bad = 1 }
    { last = \$1 }
    END { exit bad }"'
guest_check "interrupts: one event for each that was counted" '
  cat /tmp/grown /tmp/trace
  read tx rx irq rest </tmp/grown
  [ $irq -ge 10 ]
  [ $(grep -cx "vnet_irq: vnet0 channel=0" /tmp/trace) = $irq ]'
guest_check "polls: within the budget, the replies among them, idle at the end" '
  cat /tmp/trace
  sed -n "s/^vnet_poll: vnet0 channel=0 done=\([0-9]*\) budget=64 idle=\([01]\)\$/\1 \2/p" /tmp/trace >/tmp/polls
  [ $(wc -l </tmp/polls) = $(grep -c "^vnet_poll:" /tmp/trace) ]
  awk "\$1 > 64 { bad = 1 } { sum += \$1; idle = \$2 } END { exit bad || sum < 20 || !idle }" /tmp/polls'
guest_check "completions: as many frames and bytes as were counted" '
  cat /tmp/grown /tmp/trace
  read tx rx irq frames bytes </tmp/grown
  [ $frames -ge 20 ]
  sed -n "s/^vnet_complete: vnet0 channel=0 frames=\([0-9]*\) bytes=\([0-9]*\)\$/\1 \2/p" /tmp/trace |
    awk "{ f += \$1; b += \$2 } END { print f, b }" | tee /dev/stderr | grep -x "$frames $bytes"'
guest_check "silent again once disabled" '
  echo >/sys/kernel/tracing/trace
  pings
  refused grep vnet_ /sys/kernel/tracing/trace'

guest_check "no debug messages at message level 0" '
  ethtool -s vnet0 msglvl 0
  dmesg -c >/dev/null
  pings
  dmesg >/tmp/log
  refused grep "vnet0: " /tmp/log'
guest_check "tx_queued: a message for each frame sent" '
  ethtool -s vnet0 msglvl tx_queued on
  ping -c 5 -i 0.1 -W 5 $gateway
  dmesg -c | tee /tmp/log
  [ $(grep -c "vnet0: queued 98 bytes" /tmp/log) -ge 5 ]
  refused grep "vnet0: polled" /tmp/log'
guest_check "rx_status: a message for each poll" '
  ethtool -s vnet0 msglvl tx_queued off
  ethtool -s vnet0 msglvl rx_status on
  dmesg -c >/dev/null
  ping -c 5 -i 0.1 -W 5 $gateway
  dmesg -c | tee /tmp/log
  [ $(grep -cE "vnet0: polled channel 0: [0-9]+ of 64" /tmp/log) -ge 3 ]
  refused grep "vnet0: queued" /tmp/log'
finish
