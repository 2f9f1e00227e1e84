#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# Suspend to RAM and resume: with the interface up, under traffic, and down, and with a card that does not
# answer. Each in a guest of its own, since with QEMU 11.1 any guest's second suspend returns at once.
. "$(dirname "$0")/../lib/check.sh"

boot
check "interface up: suspend and resume" guest_suspend
guest_check "ping" 'pings'
guest_check "TCP" 'from_card 1000000 3; to_card 1000000'
finish_guest

boot
guest_check "traffic" 'ping -f $gateway >/dev/null 2>&1 &'
check "under traffic: suspend and resume" guest_suspend
guest_check "ping" 'killall ping; pings'
finish_guest

boot
guest_check "interface down" 'ip link set vnet0 down'
check "interface down: suspend and resume" guest_suspend
guest_check "it is still down, and works when up" '
  ip link show vnet0 | grep "state DOWN"
  readdress
  pings'
finish_guest

boot FAULTS=yes VNETD_LOG=info
faults register-ones
check "a card that does not answer: suspend and resume" guest_suspend
faults
check "... which it did not" faults_came
guest_check "when it answers, it is in use" 'within 15 ping -c 1 -W 1 $gateway; pings'
finish
