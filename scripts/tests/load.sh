#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# The driver loads, has an interface that looks right, gets an address, and unloads.
. "$(dirname "$0")/../lib/check.sh"

boot
guest_check "interface is vnet0 and up" 'ip link show dev vnet0 | grep "state UP"'
# NET_NAME_PREDICTABLE, _USER and _RENAMED: udev keeps such names.
guest_check "its name is one that udev keeps" 'grep -x "[234]" /sys/class/net/vnet0/name_assign_type'
guest_check "MAC address is the card's" "grep -x $(guest_mac 0) /sys/class/net/vnet0/address"
guest_check "DHCP gave an address" 'ip -4 addr show dev vnet0 | grep "inet $guest/24"'
guest_check "ping" 'pings'
guest_check "ethtool -i" '
  ethtool -i vnet0 >/tmp/i; cat /tmp/i
  grep -x "driver: vnet" /tmp/i; grep "^bus-info: 0000:" /tmp/i'
guest_check "ethtool -g" 'ethtool -g vnet0 | grep -E "^TX:[[:space:]]+[1-9]"'
guest_check "ethtool: link detected" 'ethtool vnet0 | grep "Link detected: yes"'
guest_check "message level can be set" '
  ethtool -s vnet0 msglvl 7
  ethtool vnet0 | grep "Current message level: 0x00000007"'
guest_check "ethtool -S counts frames by protocol" '
  arp=$(counter tx_arp) ip4=$(counter tx_ipv4)
  ip neigh flush dev vnet0
  ping -c 5 -i 0.2 -W 2 $gateway
  [ $(($(counter tx_arp) - arp)) -ge 1 ]
  [ $(($(counter tx_ipv4) - ip4)) -ge 5 ]'
guest_check "ethtool -S ends with the last counter of the last queue" '
  ethtool -S vnet0 | tail -n 3 | tee /tmp/last
  tail -n 1 /tmp/last | grep "^ *card_tx0_missed: "'
guest_check "statistics grow with traffic, without errors" '
  tx=$(stat_of tx_packets) rx=$(stat_of rx_packets)
  ping -c 10 -i 0.05 -W 2 $gateway
  # ping does not wait for the last answer for long.
  within 5 eval "[ \$((\$(stat_of rx_packets) - $rx)) -ge 10 ]"
  [ $(($(stat_of tx_packets) - tx)) -ge 10 ]
  [ $(stat_of tx_errors) = 0 ]
  [ $(stat_of rx_errors) = 0 ]'
guest_check "rmmod and insmod again" '
  rmmod vnet
  [ ! -e /sys/class/net/vnet0 ]
  vnet-up vnet 1 dhcp
  pings'
finish
