#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# Frames that are lost because the guest does not take them in time are counted as such, wherever Linux
# has a place for that. The host's own network stack is the peer, and the guest stands still.
. "$(dirname "$0")/../lib/check.sh"
. "$REPO/scripts/lib/cargo.sh"
. "$REPO/scripts/lib/tap.sh"

program() {
  in_cargo cargo build --locked -p vnet-testkit --example netdev_queues
}
check "a program that asks is built" program
target=$CACHE/target
[ "$(cargo_where)" = host ] || target=$CACHE/target-root

# dropped: frames that the host dropped, as the TAP's queue was full.
dropped() {
  sed -n 's/^ *vnettest: *//p' /proc/net/dev | awk '{ print $12 }'
}
# flood COUNT: so many datagrams to the guest, whose address is known.
flood() {
  exec 3<>/dev/udp/10.99.0.2/9
  for ((n = 0; n < $1; n++)); do echo "$n" >&3 || return; done
  exec 3>&-
}

FILES=("$target/debug/examples/netdev_queues")
boot NET=tap:name=vnettest
IN_GUEST+='
# Datagrams that have arrived, for a port that nobody listens on.
arrived() {
  awk "/^Udp: [0-9]/ { print \$3 }" /proc/net/snmp
}
# The same number everywhere: ip, ethtool, qstats of the queue and of the device.
missed() {
  ip -s link show dev vnet0
  [ $(stat_of rx_missed_errors) = $1 ]
  [ $(counter card_rx0_missed) = $1 ]
  /root/netdev_queues vnet0 | tee /tmp/stats
  [ $(grep -c "^qstats rx [0a].* hw-drop-overruns $1 " /tmp/stats) = 2 ]
  [ $(sed -n "s/^qstats rx 0 .* hw-drops \([0-9]*\) .*/\1/p" /tmp/stats) -ge $1 ]
}
'
guest_check "none is missed while the guest takes them" "
  ip addr add 10.99.0.2/24 dev vnet0
  ethtool -G vnet0 rx 64"'
  ping -c 3 -i 0.2 -W 5 10.99.0.1
  missed 0
  arrived >/tmp/arrived'
before=$(dropped)
stop() { qmp '{"execute":"stop"}' && flood 3000 && qmp '{"execute":"cont"}'; }
check "the guest stands still while 3000 datagrams come" stop
lost=$(($(dropped) - before))
check "the host has lost many of them" [ "$lost" -ge 1500 ]
guest_check "so has the card, and the kernel says so" "
  within 5 eval '[ \$(stat_of rx_missed_errors) = $lost ]'
  missed $lost"
guest_check "all others have arrived" "
  within 5 eval '[ \$((\$(arrived) - \$(cat /tmp/arrived))) = $((3000 - lost)) ]'"
guest_check "what is lost with the interface down is missed by nobody, what was counted stays" "
  ip link set vnet0 down"
check "the interface is down while 3000 datagrams come" flood 3000
check "the host has lost more of them" [ "$(dropped)" -ge "$((before + lost + 1500))" ]
guest_check "the count is as before" "
  ip link set vnet0 up
  within 5 ping -c 1 -W 1 10.99.0.1
  sleep 2
  missed $lost"
guest_check "a reset of the card does not take it back" "
  echo 1 >/sys/class/net/vnet0/device/reset
  within 10 ping -c 1 -W 1 10.99.0.1
  sleep 2
  [ \$(stat_of rx_missed_errors) = $lost ]"
finish
