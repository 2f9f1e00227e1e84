#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# The guest powers off with the driver loaded and traffic on the card, which the driver stops first.
. "$(dirname "$0")/../lib/check.sh"

boot
guest_check "traffic" 'ping -f $gateway >/dev/null 2>&1 & sleep 1'
powers_off() {
  local n=0
  guest_send off ''
  while kill -0 "$QEMU_PID" 2>/dev/null; do
    [ $((n += 1)) -le 300 ] || return 1
    sleep 0.1
  done
  grep -a "reboot: Power down" "$GUEST_DIR/console.log"
}
check "power off within 30 seconds" powers_off
check "device server is alive, no panic" devices_fine
check "kernel log has no WARN, BUG or Oops" kernel_log_clean "reboot: Power down"
end_servers
check "the driver broke no rule of the card" no_rule_broken
exit $((CHECKS_FAILED > 0))
