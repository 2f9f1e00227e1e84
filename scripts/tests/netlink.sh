#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# Queues, NAPI contexts and interrupts as the kernel links them, told by its netlink family netdev.
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
    grep -x "napi $(cat /tmp/napi$pair) irq $irq" /tmp/links
  done'
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
  [ $(grep -cE "^napi [0-9]+ irq [0-9]+\$" /tmp/up) = 2 ]
  pings'
finish
