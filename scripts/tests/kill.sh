#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# The device server is killed under traffic: the guest lives on, says so, and gets rid of the card.
. "$(dirname "$0")/../lib/check.sh"

# kill_server: leaves a guest whose card is dead. QEMU 11.1 itself aborts (an assertion on a second error) when
# the server goes away with a message unread, that is when the guest writes a register in the milliseconds
# from the signal to the end of the process. So there are some between two pings; and if one meets them, once more.
kill_server() {
  local attempt
  for attempt in 1 2 3 4 5 6; do
    boot
    guest 'ping -i 0.1 10.77.0.1 >/dev/null 2>&1 & sleep 1'
    kill -KILL "${VNETD_PIDS[0]}"
    wait "${VNETD_PIDS[0]}"
    unset "VNETD_PIDS[0]"
    sleep 2
    kill -0 "$QEMU_PID" && return
    grep "Assertion .*errp == NULL" "$GUEST_DIR/qemu.log" || return
    echo "QEMU aborted in attempt $attempt"
    guest_stop
  done
  return 1
}

kill_server 2>/dev/null
guest_check "the guest is alive" 'ip -s link show dev vnet0'
guest_check "the driver says so, and not again and again" '
  ip link set vnet0 mtu 2000 || true
  ethtool -S vnet0 >/dev/null || true
  dmesg | grep "vnet0:" | tee /dev/stderr | grep -c "card does not answer" | grep -x 1'
guest_check "no command on the interface hangs" '
  ethtool vnet0 >/dev/null || true
  ip link set vnet0 promisc on || true
  ip link set vnet0 address 02:00:00:00:00:01 || true
  ip -s link show vnet0' 20
guest_check "it can be set down" 'killall ping; ip link set vnet0 down' 20
guest_check "rmmod works" 'rmmod vnet; [ ! -e /sys/class/net/vnet0 ]' 20
finish
