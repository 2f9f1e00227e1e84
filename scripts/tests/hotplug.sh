#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# The card is plugged into a running guest whose driver waits for one. (It is not unplugged: that
# ends QEMU 11.1.)
. "$(dirname "$0")/../lib/check.sh"

# A port to plug it into: the root complex itself takes nothing while the machine runs.
# shellcheck disable=SC2034 # read by guest_start
QEMU_EXTRA=(-device "pcie-root-port,id=empty,chassis=1,slot=1")
boot NICS=0
guest_check "the driver is loaded, without a card" '
  [ -d /sys/bus/pci/drivers/vnet ]
  [ ! -e /sys/class/net/vnet0 ]'
vnetd_start 0
check "QEMU takes the card" qmp '{"execute": "device_add", "arguments": {
  "driver": "vfio-user-pci", "id": "nic0", "bus": "empty",
  "socket": {"type": "unix", "path": "'"$GUEST_DIR/nic0.sock"'"}}}'
guest_check "the guest finds it and binds the driver" '
  within 10 [ -e /sys/class/net/vnet0 ]
  readlink /sys/class/net/vnet0/device/driver | grep "/vnet\$"'
guest_check "its MAC address is the card's" "grep -x $(guest_mac 0) /sys/class/net/vnet0/address"
guest_check "DHCP and ping" '
  ip link set vnet0 up
  udhcpc -f -n -q -t 10 -T 1 -i vnet0 -s /usr/bin/vnet-dhcp
  pings'
guest_check "5 MB of TCP each way" 'from_card 5000000 6; to_card 5000000'
guest_check "it has interrupts" '[ $(interrupts) -ge 3 ]'
finish
