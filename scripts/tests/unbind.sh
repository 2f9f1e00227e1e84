#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# The driver lets go of the card and takes it again, idle and under traffic; the card is reset.
. "$(dirname "$0")/../lib/check.sh"

boot
guest_check "the card has a PCI address" '
  basename "$(readlink /sys/class/net/vnet0/device)" >/tmp/card
  grep "^0000:" /tmp/card'
guest_check "unbind and bind 10 times, idle" '
  cd /sys/bus/pci/drivers/vnet
  for i in $(seq 10); do
    cat /tmp/card >unbind
    [ ! -e /sys/class/net/vnet0 ]
    cat /tmp/card >bind
    [ -e /sys/class/net/vnet0 ]
  done
  readdress
  pings'
guest_check "unbind and bind 10 times under traffic" '
  cd /sys/bus/pci/drivers/vnet
  traffic
  for i in $(seq 10); do
    usleep 300000
    cat /tmp/card >unbind
    cat /tmp/card >bind
    readdress
  done
  end_traffic
  pings' 120
guest_check "function-level reset with the interface up" '
  echo 1 >/sys/bus/pci/devices/$(cat /tmp/card)/reset
  pings'
guest_check "PCI remove and rescan" '
  echo 1 >/sys/bus/pci/devices/$(cat /tmp/card)/remove
  [ ! -e /sys/class/net/vnet0 ]
  echo 1 >/sys/bus/pci/rescan
  [ -e /sys/class/net/vnet0 ]
  readdress
  pings'
finish
