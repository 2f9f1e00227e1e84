#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# The card says of itself what cannot be: the driver says so and leaves it alone, and takes it when it
# speaks the truth.
. "$(dirname "$0")/../lib/check.sh"

# Features that the driver was told of are not those that the card has, which the sanitizer would lay to it.
boot FAULTS=yes SANITIZE=off VNETD_LOG=info

# refused REGISTERS MESSAGE: with all ones in these registers there is no interface, and the log says why.
refused() {
  local registers=$1
  # shellcheck disable=SC2086 # one line for each
  faults "$(printf 'register-ones register=%s\n' $registers)"
  guest_check "$registers: $2" "
    rmmod vnet
    dmesg -c >/dev/null
    insmod /vnet.ko
    [ ! -e /sys/class/net/vnet0 ]
    dmesg | grep '$2'"
  faults
}
refused VERSION 'card version 65535.65535 is not known'
refused QUEUE_SIZE_LIMITS 'impossible ring sizes 65535 to 65535'
refused QUEUE_PAIRS 'impossible numbers: 4294967295 queue pairs'
refused "PERM_MAC_LO PERM_MAC_HI" 'card has no valid MAC address'
refused RSS_TABLE_SIZE 'impossible size of the RSS table'
guest_check "the truth: it is a card as any other" '
  rmmod vnet
  insmod /vnet.ko
  readdress
  pings'

# One bit in each read is another: sooner or later one that the driver has use for.
faults "register-flip register=DEVICE_FEATURES_LO"
guest_check "after a reset it has less than before, and is not used" '
  less() {
    echo 1 >/sys/class/net/vnet0/device/reset
    dmesg -c | grep "card offers less than before" && grep -qx 0 /sys/class/net/vnet0/carrier
  }
  within 20 less'
faults
guest_check "... until it has it again" 'within 15 ping -c 1 -W 1 $gateway; from_card 300000 5'
finish
