#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# Interrupt moderation as ethtool shows and sets it, and what it does.
. "$(dirname "$0")/../lib/check.sh"

boot SMP=2 QUEUES=2 MEM=1G
IN_GUEST+='
# setting NAME: of ethtool -c.
setting() {
  ethtool -c vnet0 | sed -n "s/^$1:[[:space:]]*//p"
}
'
guest_check "adaptive moderation is on until told otherwise" '
  ethtool -c vnet0 | grep "Adaptive RX: on"'
guest_check "settings are shown as they were set" '
  ethtool -c vnet0
  ethtool -C vnet0 adaptive-rx off rx-usecs 50 rx-frames 20 tx-usecs 100 tx-frames 40
  [ $(setting rx-usecs) = 50 ]
  [ $(setting rx-frames) = 20 ]
  [ $(setting tx-usecs) = 100 ]
  [ $(setting tx-frames) = 40 ]
  pings'
guest_check "what the card cannot do is refused and changes nothing" '
  for bad in "rx-usecs 65536" "tx-usecs 4294967295" "rx-frames 65536" "rx-usecs-irq 3" "rx-usecs 0" "adaptive-tx on"; do
    refused ethtool -C vnet0 $bad
  done
  [ $(setting rx-usecs) = 50 ]
  [ $(setting rx-frames) = 20 ]'
guest_check "settings hold through down, up, and a change of rings and channels" '
  ip link set vnet0 down
  ethtool -C vnet0 rx-usecs 60
  readdress
  ethtool -G vnet0 rx 512
  ethtool -L vnet0 combined 1
  ethtool -L vnet0 combined 2
  [ $(setting rx-usecs) = 60 ]
  [ $(setting rx-frames) = 20 ]'
guest_check "a received frame waits as long as it was set to" '
  ethtool -C vnet0 rx-usecs 20000 rx-frames 0 tx-usecs 20000 tx-frames 0
  ping -c 20 -i 0.1 -W 2 $gateway >/tmp/slow
  ethtool -C vnet0 rx-usecs 0 tx-usecs 0 tx-frames 0
  ping -c 20 -i 0.1 -W 2 $gateway >/tmp/fast
  tail -n 1 /tmp/slow /tmp/fast
  # On average: a frame may share the interrupt that another one waits for.
  slow=$(sed -n "s,.* = [0-9.]*/\([0-9]*\)\..*,\1,p" /tmp/slow)
  fast=$(sed -n "s,.* = \([0-9]*\)\..*,\1,p" /tmp/fast)
  [ $slow -ge 15 ]
  [ $fast -lt 15 ]'
guest_check "a number of frames ends the wait" '
  # The completion of the request would raise the interrupt that they share.
  ethtool -C vnet0 rx-usecs 20000 rx-frames 1 tx-usecs 20000
  ping -c 20 -i 0.1 -W 2 $gateway >/tmp/fast
  ethtool -C vnet0 tx-usecs 0
  tail -n 1 /tmp/fast
  [ $(sed -n "s,.* = \([0-9]*\)\..*,\1,p" /tmp/fast) -lt 15 ]'
guest_check "adaptive moderation can be switched on and off under traffic" '
  traffic
  for i in $(seq 10); do
    ethtool -C vnet0 adaptive-rx on
    usleep 300000
    ethtool -C vnet0 adaptive-rx off rx-usecs $((i * 10)) rx-frames 0
    [ $(setting rx-usecs) = $((i * 10)) ]
    usleep 100000
  done
  ethtool -C vnet0 adaptive-rx on
  ethtool -c vnet0 | grep "Adaptive RX: on"
  ethtool -G vnet0 rx 256
  end_traffic
  pings' 120
guest_check "adaptive moderation goes by the traffic: a ping does not wait" '
  sleep 1
  ping -c 20 -i 0.1 -W 2 $gateway >/tmp/fast
  tail -n 1 /tmp/fast
  [ $(sed -n "s,.* = \([0-9]*\)\..*,\1,p" /tmp/fast) -lt 15 ]'
finish
