#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# Suspend to RAM and resume, with the interface up and down.
. "$(dirname "$0")/../lib/check.sh"

boot
asleep() {
  local n=0
  until qmp '{"execute":"query-status"}' | grep -q '"suspended"'; do
    sleep 0.2
    [ $((n += 1)) -lt 100 ] || return 1
  done
}

# sleep_and_wake NAME
sleep_and_wake() {
  guest 'sleep 1; echo mem >/sys/power/state' >"$GUEST_DIR/suspend.out" 2>&1 &
  local sleeper=$!
  check "$1: suspended" asleep
  check "$1: woken" qmp '{"execute":"system_wakeup"}'
  if wait $sleeper; then
    ok "$1: the guest resumes"
  else
    not_ok "$1: the guest resumes"
    sed 's/^/    /' "$GUEST_DIR/suspend.out"
  fi
}

for round in first second third; do
  sleep_and_wake "$round time"
  guest_check "$round time: ping" 'pings'
done
guest_check "TCP after resume" 'from_card 1000000 3; to_card 1000000'
guest_check "interface down" 'ip link set vnet0 down'
sleep_and_wake "interface down"
guest_check "it is still down, and works when up" '
  ip link show vnet0 | grep "state DOWN"
  readdress
  pings'
finish
