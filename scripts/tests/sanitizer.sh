#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# Drivers with a mistake, made of ours: the device server names the rule that each breaks, and no
# other.
. "$(dirname "$0")/../lib/check.sh"

# The driver and what it shares with the card, as they are built together.
TREE=$CACHE/mistaken
BUILT=$CACHE/module-mistaken
MISTAKE=''
trap 'guest_stop; rm -rf "$TREE"' EXIT

# mistaken FILE FROM TO: builds the driver with one line of it changed.
mistaken() {
  local text
  # All of it is new, and so built again.
  rm -rf "$TREE"
  mkdir -p "$TREE/device"
  cp -R "$REPO/guest-driver" "$TREE/guest-driver"
  cp -R "$REPO/device/contract" "$TREE/device/contract"
  MISTAKE=$1
  text=$(cat "$TREE/guest-driver/$1")
  if [[ $text != *"$2"* ]]; then
    echo "guest-driver/$MISTAKE has no $2" >"$BUILT.log"
    MISTAKE=''
    return
  fi
  printf '%s\n' "${text/"$2"/"$3"}" >"$TREE/guest-driver/$1"
  "$REPO/scripts/build-module" --out "$BUILT" "$TREE/guest-driver" >"$BUILT.log" 2>&1 || MISTAKE=''
}
is_built() {
  [ -n "$MISTAKE" ] || { tail -n 20 "$BUILT.log" && return 1; }
}

# named RULE: ends the guest; the server must have named this rule, and no other.
named() {
  guest_off
  end_servers
  check "the device server names $1, and no other rule" only_rule "$1"
  guest_stop
}
only_rule() {
  cat "$GUEST_DIR/vnetd0.log"
  [ ${#SERVERS_UNHAPPY[@]} = 1 ] || return
  sed -nE 's/^sanitizer: ([a-z-]+), [0-9]+ times, .*/\1/p' "$GUEST_DIR/vnetd0.log" | grep -v "^$1\$" && return 1
  grep "docs/rules.md#$1\$" "$GUEST_DIR/vnetd0.log"
}

mistaken ring/src/split.rs \
  'self.memory.publish_avail_index(new);' 'self.memory.publish_avail_index(old);'
check "a driver that does not show the card what it rings for" is_built
MODULE=$BUILT/vnet.ko
guest_start
guest_check "it loads" 'insmod /vnet.ko && ip link set vnet0 up && sleep 1'
named doorbell-early

mistaken vnet/poll.rs \
  '.is_none_or(|mut tx| tx.enable_interrupts())' '.is_none_or(|_| true)'
check "a driver that asks for no interrupt when frames were sent" is_built
VNETD_ARGS=(--sanitize-patience 3)
guest_start
# What the stack sends by itself when an interface comes up is enough.
guest_check "it loads" 'insmod /vnet.ko && ip link set vnet0 up && sleep 10'
named tx-unreclaimed

mistaken ring/src/split.rs \
  'self.free_head = self.slot(draft.last).next;' ''
check "a driver that posts each receive buffer with the descriptor of the one before" is_built
VNETD_ARGS=()
guest_start
# Nothing is sent, so that the same mistake in transmitting does not come to light as well.
guest_check "it loads" '
  sysctl -w net.ipv6.conf.default.disable_ipv6=1
  insmod /vnet.ko && ip link set vnet0 up && sleep 1'
named chain-reused
exit $((CHECKS_FAILED > 0))
