#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# Queues, NAPI contexts, interrupts and statistics as the kernel has them, told by its netlink family
# netdev.
. "$(dirname "$0")/../lib/check.sh"
. "$REPO/scripts/lib/cargo.sh"

program() {
  in_cargo cargo build --locked -p vnet-testkit --example netdev_queues
}
check "a program that asks is built" program
target=$CACHE/target
[ "$(cargo_where)" = host ] || target=$CACHE/target-root

FILES=("$target/debug/examples/netdev_queues")
boot SMP=2 QUEUES=2
guest_check "each pair has two queues, and the kernel tells of all" '
  /root/netdev_queues vnet0 | tee /tmp/links
  [ $(grep -cE "^queue rx [01] napi [0-9]+\$" /tmp/links) = 2 ]
  [ $(grep -cE "^queue tx [01] napi [0-9]+\$" /tmp/links) = 2 ]'
guest_check "the queues of a pair share a NAPI context, and the pairs share none" '
  cat /tmp/links
  for pair in 0 1; do
    sed -n "s/^queue [rt]x $pair napi //p" /tmp/links | sort -u >/tmp/napi$pair
    [ $(wc -l </tmp/napi$pair) = 1 ]
  done
  refused cmp -s /tmp/napi0 /tmp/napi1'
guest_check "a NAPI context has the interrupt that its pair has in /proc/interrupts" '
  cat /tmp/links /proc/interrupts
  for pair in 0 1; do
    irq=$(sed -n "s/^ *\([0-9]*\):.* vnet0-$pair\$/\1/p" /proc/interrupts)
    [ "$irq" ]
    grep -x "napi $(cat /tmp/napi$pair) irq $irq defer 0" /tmp/links
  done'
# From linux/netdev.h: BASIC, REDIRECT, NDO_XMIT, RX_SG, NDO_XMIT_SG.
guest_check "XDP features are told" 'grep -x "xdp features 0x67" /tmp/links'
guest_check "there are no more NAPI contexts than pairs" '[ $(grep -c "^napi " /tmp/links) = 2 ]'
# The id of a NAPI context is what SO_INCOMING_NAPI_ID gives a busy-polling program.
guest_check "with the interface down nothing is linked" '
  ip link set vnet0 down
  /root/netdev_queues vnet0 >/tmp/down
  cat /tmp/down
  refused grep -E "napi [0-9]+ irq [0-9]|^queue .* napi [0-9]" /tmp/down'
guest_check "up again, the links are back" '
  readdress
  /root/netdev_queues vnet0 | tee /tmp/up
  [ $(grep -cE "^queue .* napi [0-9]+\$" /tmp/up) = 4 ]
  [ $(grep -cE "^napi [0-9]+ irq [0-9]+ " /tmp/up) = 2 ]
  pings'
guest_check "what is set for a NAPI context stays set when that goes and comes" '
  napi=$(sed -n "s/^napi \([0-9]*\) .*/\1/p" /tmp/up | head -n 1)
  /root/netdev_queues defer $napi 7
  ip link set vnet0 down
  readdress
  ethtool -L vnet0 combined 1
  ethtool -L vnet0 combined 2
  ethtool -G vnet0 rx 128
  /root/netdev_queues vnet0 >/tmp/set
  cat /tmp/set
  grep -E "^napi $napi irq [0-9]+ defer 7\$" /tmp/set
  /root/netdev_queues defer $napi 0'
IN_GUEST+='
# statistic DIRECTION QUEUE NAME: of the last answer in /tmp/stats; "all" is a queue too.
statistic() {
  grep "^qstats $1 $2 " /tmp/stats | sed -n "s/.* $3 \([0-9]*\).*/\1/p"
}
ask() {
  /root/netdev_queues vnet0 >/tmp/stats
}
'
guest_check "each queue has statistics, and the device their sum" '
  pings
  ask
  cat /tmp/stats
  [ $(grep -cE "^qstats [rt]x [01] packets [0-9]+ bytes [0-9]+" /tmp/stats) = 4 ]
  # They are asked for one after the other: a frame may come between.
  sums() {
    ask
    for name in packets bytes; do
      for direction in rx tx; do
        [ $(($(statistic $direction 0 $name) + $(statistic $direction 1 $name))) = $(statistic $direction all $name) ] ||
          return
      done
    done
  }
  within 5 sums || { cat /tmp/stats && false; }'
guest_check "they count what passes, checksums left to the card, and those that it vouched for" '
  ask
  sent=$(statistic tx all packets) csum=$(statistic tx all needs-csum) good=$(statistic rx all csum-unnecessary)
  to_card 300000
  ask
  cat /tmp/stats
  [ $(statistic tx all packets) -gt $sent ]
  [ $(statistic tx all needs-csum) -gt $csum ]
  [ $(statistic rx all csum-unnecessary) -gt $good ]
  [ $(statistic rx all packets) -ge $(($(statistic rx all csum-unnecessary) + $(statistic rx all csum-none))) ]
  [ $(statistic tx all stop) = $(statistic tx all wake) ]
  [ $(statistic rx all alloc-fail) = 0 ]'
guest_check "the sum holds when queues go and come" '
  taskset -c 1 /usr/bin/ping -f -c 100 $gateway >/dev/null
  ask
  sent=$(statistic tx all packets) second=$(statistic tx 1 packets)
  [ $second -ge 100 ]
  ethtool -L vnet0 combined 1
  ask
  cat /tmp/stats
  [ -z "$(statistic tx 1 packets)" ]
  [ $(statistic tx all packets) -ge $sent ]
  [ $(statistic tx all packets) -ge $(($(statistic tx 0 packets) + second)) ]
  ethtool -L vnet0 combined 2
  ip link set vnet0 down
  readdress
  ask
  [ $(statistic tx 1 packets) -ge $second ]
  [ $(statistic tx all packets) -ge $sent ]'
finish
