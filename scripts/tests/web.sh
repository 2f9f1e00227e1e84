#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# The page of vnetd while a guest uses its cards, as a program sees it; web-browser.sh has what a browser makes
# of it.
. "$(dirname "$0")/../lib/check.sh"

VNETD_ARGS=(--web 127.0.0.1:0)
boot CONFIG=yes NICS=2
# web CHECK: one of web/checks.py.
web() {
  local url
  url=$(sed -n 's,.*web page at \(http://.*/\)$,\1,p' "$GUEST_DIR/vnetd0.log")
  in_root python3 -B scripts/tests/web/checks.py "$url" "$1"
}

check "the page is there for whoever has the token, and for nobody else" web token
check "it has both cards" web two
guest_check "traffic in both directions, through vnet0" 'ip addr flush dev vnet1; pings; traffic'
check "rings, doorbells, interrupts and frames move with it" web moves
guest_check "traffic ends" 'touch /tmp/stop; killall -q ping nc || :; within 10 refused killall -q ping nc
  mac=$(ip neigh show "$gateway" dev vnet0 | sed "s/.*lladdr \([0-9a-f:]*\).*/\1/")
  ip neigh replace "$gateway" lladdr "$mac" nud permanent dev vnet0'
check "at rest, descriptors are with whom they should be" web at_rest
check "the page pauses the card" web paused
# A driver that waits five seconds for a transmit queue resets the card, and then a walk begins anew.
resets() {
  guest "ethtool -S vnet0 | sed -n 's/^ *resets: //p'"
}
walk() {
  local before
  for _ in 1 2 3; do
    before=$(resets)
    # Not before somebody is there to step.
    guest 'killall -q ping; (sleep 3; ping -c 1 -W 60 10.77.0.1 >/tmp/ping 2>&1) >/dev/null 2>&1 &'
    web walk && return
    [ "$(resets)" != "$before" ] || return 1
  done
  return 1
}
check "a frame goes step by step, and each does what it says" walk
# shellcheck disable=SC2034 # read by kernel_log_clean
LOG_EXPECTED='NETDEV WATCHDOG: .*: transmit queue 0 timed out'
check "the page lets it run again" web resumed
guest_check "and the guest is none the worse" 'within 20 ping -c 1 -W 1 $gateway; pings'
finish
