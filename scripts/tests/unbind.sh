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
# To the gateway it is as if frames were lost.
guest_check "transfers go on over a reset, and over a driver that lets go" '
  amount=$(fewer 20000000)
  cd /sys/bus/pci/drivers/vnet
  reset() {
    echo 1 >/sys/bus/pci/devices/$(cat /tmp/card)/reset
  }
  rebind() {
    cat /tmp/card >unbind
    cat /tmp/card >bind
    readdress
  }
  head -c $amount /dev/urandom >/tmp/up
  for disturb in reset rebind; do
    want=$(echo "$amount 7 sum" | nc $gateway 5002)
    got="$amount $(echo "$amount 7" | nc $gateway 5002 | {
      dd bs=1000 count=1 2>/dev/null
      $disturb &
      cat
      wait
    } | sha256sum | cut -d" " -f1)"
    echo "$disturb: sent $want, arrived $got"
    [ "$got" = "$want" ]
    want="$amount $(sha256sum </tmp/up | cut -d" " -f1)"
    got=$({
      head -c 1000000 /tmp/up
      $disturb &
      tail -c +1000001 /tmp/up
      wait
    } | nc $gateway 5001)
    echo "$disturb: sent $want, arrived $got"
    [ "$got" = "$want" ]
  done
  rm /tmp/up' 120
guest_check "PCI remove and rescan" '
  echo 1 >/sys/bus/pci/devices/$(cat /tmp/card)/remove
  [ ! -e /sys/class/net/vnet0 ]
  echo 1 >/sys/bus/pci/rescan
  [ -e /sys/class/net/vnet0 ]
  readdress
  pings'
finish
