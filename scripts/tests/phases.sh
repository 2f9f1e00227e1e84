#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# The tour's sample modules (guest-driver/phases/): each is loaded, does what its page in docs/tour/ says,
# and is unloaded. All in one guest, one after the other.
. "$(dirname "$0")/../lib/check.sh"

FILES=("$CACHE/module-$FLAVOUR"/vnet_phase?.ko)
IN_GUEST+='
# load PHASE [PARAMETER...]: without IPv6, which would send frames of its own.
load() {
  phase=$1
  shift
  dmesg -c >/dev/null
  echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6
  insmod /root/vnet_phase$phase.ko "$@"
}
unload() {
  rmmod vnet_phase$1
  [ ! -e /sys/class/net/vnet0 ]
}
'
guest_start

guest_check "1: loads and says so, with the default of its parameter" '
  load 1
  dmesg | grep "vnet_phase1: loaded, to send 3 frames"
  grep -x 3 /sys/module/vnet_phase1/parameters/frames || ls /sys/module/vnet_phase1
  rmmod vnet_phase1
  dmesg | grep "vnet_phase1: unloaded, 3 frames were not sent"'
guest_check "1: takes a parameter, and refuses a bad one" '
  load 1 frames=7
  dmesg | grep "to send 7 frames"
  rmmod vnet_phase1
  refused insmod /root/vnet_phase1.ko frames=1001
  refused insmod /root/vnet_phase1.ko frames=many
  [ ! -e /sys/module/vnet_phase1 ]'
guest_check "1: tells what it is" '
  modinfo /root/vnet_phase1.ko >/tmp/info; cat /tmp/info
  grep -x "parm: *frames:Frames to pretend to have sent (u32)" /tmp/info
  grep -x "license: *GPL" /tmp/info'

guest_check "2: an interface with the same address every time, without carrier until it is up" '
  for i in 1 2; do
    load 2
    grep -x 02:76:6e:65:74:20 /sys/class/net/vnet0/address
    ip link show vnet0 | grep -v UP
    ip link set vnet0 up
    grep -x 1 /sys/class/net/vnet0/carrier
    dmesg | grep "vnet0: open"
    [ $i = 2 ] || unload 2
  done'
guest_check "2: every frame that is sent is counted as dropped, with a reason" '
  cd /sys/kernel/tracing
  echo >trace
  echo 1 >events/skb/kfree_skb/enable
  ip addr add 10.0.0.1/24 dev vnet0
  before=$(stat_of tx_dropped)
  ping -c 1 -W 1 10.0.0.2 || :
  echo 0 >events/skb/kfree_skb/enable
  sent=$(($(stat_of tx_dropped) - before))
  grep kfree_skb trace | tee /tmp/trace
  [ $sent -ge 1 ]
  [ $(grep -c "reason: DEV_READY" /tmp/trace) = $sent ]
  [ $(stat_of tx_packets) = 0 ]'
guest_check "2: stops, opens again, and is unloaded while it is up" '
  ip link set vnet0 down
  dmesg | grep "vnet0: stop, [1-9][0-9]* frames dropped so far"
  ip link set vnet0 up
  unload 2'
finish
