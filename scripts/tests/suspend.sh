#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# Suspend to RAM and resume, with the interface up and down.
. "$(dirname "$0")/../lib/check.sh"

boot
for round in first second third; do
  check "$round time: suspend and resume" guest_suspend
  guest_check "$round time: ping" 'pings'
done
guest_check "TCP after resume" 'from_card 1000000 3; to_card 1000000'
guest_check "traffic" 'ping -f $gateway >/dev/null 2>&1 &'
check "under traffic: suspend and resume" guest_suspend
guest_check "under traffic: ping" 'killall ping; pings'
guest_check "interface down" 'ip link set vnet0 down'
check "interface down: suspend and resume" guest_suspend
guest_check "it is still down, and works when up" '
  ip link show vnet0 | grep "state DOWN"
  readdress
  pings'
finish
