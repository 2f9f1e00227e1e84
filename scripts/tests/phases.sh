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
  # What a check that failed has left behind is not to spoil the next one.
  for module in /sys/module/vnet_phase*; do
    [ ! -e "$module" ] || rmmod "${module##*/}"
  done
  dmesg -c >/dev/null
  echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6
  insmod /root/vnet_phase$phase.ko "$@"
}
# up PHASE [PARAMETER...]: the same, and the interface is up with an address.
up() {
  load "$@"
  ip addr add 10.76.0.2/24 dev vnet0
  ip link set vnet0 up
}
# large_pings COUNT: so many times 41 frames at once, as fragments. What is between two of them is enough
# for as many to be sent, and a socket may have no more waiting than a few times that.
large_pings() {
  # The default drops what waits for long.
  tc qdisc replace dev vnet0 root pfifo
  ip neigh replace 10.76.0.9 lladdr 02:00:00:00:00:09 dev vnet0
  ping -q -M dont -c $1 -i 0.3 -W 1 -s 60000 10.76.0.9 || :
}
unload() {
  rmmod vnet_phase$1
  [ ! -e /sys/class/net/vnet0 ]
}
'
FAULTS=yes VNETD_LOG=info
guest_start

guest_check "1: loads and says so, with the default of its parameter" '
  load 1
  dmesg | grep "vnet_phase1: loaded, to send 3 frames"
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
    ip link show vnet0 >/tmp/link
    refused grep -E "[<,]UP[,>]" /tmp/link
    ip link set vnet0 up
    grep -x 1 /sys/class/net/vnet0/carrier
    dmesg | grep "vnet0: open"
    [ $i = 2 ] || unload 2
  done'
guest_check "2: every frame that is sent is counted as dropped, with a reason" '
  cd /sys/kernel/tracing
  echo >trace
  ip addr add 10.0.0.1/24 dev vnet0
  # Or ARP would ask again and again, and be refused by the core once the interface goes down.
  ip neigh add 10.0.0.2 lladdr 02:00:00:00:00:02 dev vnet0
  before=$(stat_of tx_dropped)
  echo 1 >events/skb/kfree_skb/enable
  ping -c 3 -i 0.2 -W 1 10.0.0.2 || :
  echo 0 >events/skb/kfree_skb/enable
  sent=$(($(stat_of tx_dropped) - before))
  grep kfree_skb trace | tee /tmp/trace
  [ $sent = 3 ]
  [ $(grep -c "reason: DEV_READY" /tmp/trace) = $sent ]
  [ $(stat_of tx_packets) = 0 ]'
guest_check "2: stops, opens again, and is unloaded while it is up" '
  ip link set vnet0 down
  dmesg | grep "vnet0: stop, [1-9][0-9]* frames dropped so far"
  ip link set vnet0 up
  unload 2'

guest_check "3: frames are sent later than the stack gave them, all of them, and none is dropped" '
  up 3
  large_pings 5
  within 10 eval "[ \$(stat_of tx_packets) -ge 205 ]"
  [ $(stat_of tx_dropped) = 0 ]'
guest_check "3: the queue was stopped and woken as often" '
  ip link set vnet0 down
  dmesg | grep "vnet0: stop" >/tmp/line; cat /tmp/line
  set -- $(sed "s/.*stop: \([0-9]*\) frames sent, queue stopped \([0-9]*\) times, woken \([0-9]*\) times/\1 \2 \3/" /tmp/line)
  [ $2 -ge 5 ] && [ $2 = $3 ]
  unload 3'
guest_check "3: a queue that nobody wakes stands still, full, and is unloaded nevertheless" '
  up 3 wake=0
  large_pings 2
  sleep 1
  # A tick in the middle of the burst leaves room for more than the 16 of the ring.
  sent=$(stat_of tx_packets)
  [ $sent -ge 16 ] && [ $sent -lt 82 ]
  sleep 1
  [ $(stat_of tx_packets) = $sent ]
  tc -s qdisc show dev vnet0 | tee /dev/stderr | grep "backlog [1-9]"
  unload 3'

guest_check "4: frames come at the set rate, numbered, as the stack sees them" '
  up 4 rate=200
  # The last of many: frames pass by while tcpdump sets its filter.
  tcpdump -c 120 -e -n -x -i vnet0 ether proto 0x88b5 >/tmp/frames 2>/dev/null
  head -n 4 /tmp/frames
  grep -c "02:76:6e:65:74:fe > ff:ff:ff:ff:ff:ff, ethertype Unknown (0x88b5), length 60" /tmp/frames | grep -x 120
  sed -n "s/^.*0x0000:  \(....\) \(....\).*/\1\2/p" /tmp/frames | tail -n 20 >/tmp/numbers
  first=$((0x$(head -n 1 /tmp/numbers)))
  for i in $(seq 0 19); do printf "%08x\n" $((first + i)); done | diff - /tmp/numbers'
guest_check "4: so many a second, and none is missed" '
  # The debug kernel cannot take as many.
  rate=$((200 / slowness))
  [ $slowness = 1 ] || { ip link set vnet0 down; unload 4; up 4 rate=$rate; }
  before=$(stat_of rx_packets)
  start=$(cut -d" " -f1 /proc/uptime)
  sleep 2
  after=$(stat_of rx_packets) end=$(cut -d" " -f1 /proc/uptime)
  echo "$((after - before)) frames from $start to $end"
  awk "BEGIN { n = ($after - $before) / ($end - $start); exit !(n > $rate / 2 && n < $rate * 1.5) }"
  [ $(stat_of rx_missed_errors) = 0 ]
  refused insmod /root/vnet_phase4.ko rate=0'
guest_check "4: no frame comes while the interface is down" '
  ip link set vnet0 down
  before=$(stat_of rx_packets)
  usleep 200000
  [ $(stat_of rx_packets) = $before ]
  ip link set vnet0 up
  within 5 eval "[ \$(stat_of rx_packets) -gt $before ]"
  unload 4'

guest_check "5: a burst of 200 takes four polls, of which three use all of the budget of 64" '
  up 5 burst=200
  cd /sys/kernel/tracing
  echo >trace
  echo 1 >events/vnet/vnet_poll/enable
  echo 1 >events/vnet/vnet_irq/enable
  sleep 1
  echo 0 >events/vnet/enable
  grep -o "vnet_[a-z]*: .*" trace >/tmp/trace; head -n 12 /tmp/trace
  [ $(grep -c "done=64 budget=64 idle=0" /tmp/trace) -ge $((30 / slowness)) ]
  # An interrupt, three full polls, and one with what is left that ends it; unless the kernel is so slow
  # that the next burst is there by then.
  [ $slowness != 1 ] || grep -A 4 vnet_irq /tmp/trace | grep -B 3 -A 1 "done=64" | tr -d "\n" | grep -q \
    "vnet_irq: vnet0 channel=0vnet_poll: vnet0 channel=0 done=64 budget=64 idle=0vnet_poll: vnet0 channel=0 done=64 budget=64 idle=0vnet_poll: vnet0 channel=0 done=64 budget=64 idle=0vnet_poll: vnet0 channel=0 done=8 budget=64 idle=1"
  awk "/done=/ { split(\$4, d, \"=\"); if (d[2] > 64) exit 1 }" /tmp/trace'
guest_check "5: with 10 frames a burst every poll is the last one, and one interrupt is one poll" '
  unload 5
  burst=$((10 / slowness))
  up 5 burst=$burst
  sleep 1
  ip link set vnet0 down
  dmesg | grep "vnet0: stop" | tee /tmp/line
  set -- $(sed "s/.*stop: \([0-9]*\) interrupts, \([0-9]*\) polls, \([0-9]*\) of them used all of their budget, \([0-9]*\) frames/\1 \2 \3 \4/" /tmp/line)
  [ $1 -ge $((20 / slowness)) ] && [ $3 = 0 ] && [ $2 -ge $1 ] && [ $4 -ge $(($1 * burst)) ]'
guest_check "5: what does not fit into the ring is missed, and the machine lives on" '
  unload 5
  up 5 burst=1000
  within 10 eval "[ \$(stat_of rx_missed_errors) -gt 1000 ]"
  within 10 eval "[ \$(stat_of rx_packets) -gt 1000 ]"
  ping -c 1 -W 1 -b 10.76.0.255 || :
  [ $(stat_of tx_packets) -ge 1 ]
  unload 5'

guest_check "6: ethtool -i" '
  up 6
  ethtool -i vnet0 | tee /tmp/i
  grep -x "driver: vnet_phase6" /tmp/i
  grep -x "firmware-version: tour" /tmp/i'
guest_check "6: ethtool -S counts frames by protocol, and agrees with ip -s link" '
  ping -c 3 -W 1 10.76.0.1 || :
  within 5 eval "[ \$(counter tx_arp) -ge 1 ]"
  ip link set vnet0 down
  ethtool -S vnet0 | tee /tmp/s
  [ $(counter rx_other) -ge 10 ]
  [ $(counter rx_other) = $(counter rx_packets) ]
  [ $(counter tx_arp) = $(counter tx_packets) ]
  for name in rx_packets rx_bytes tx_packets tx_bytes; do [ $(stat_of $name) = $(counter $name) ]; done
  [ $(counter rx_bytes) = $(($(counter rx_packets) * 60)) ]
  [ $(counter polls) -ge 10 ]'
guest_check "6: the message level decides what is said" '
  ip link set vnet0 up
  dmesg -c >/dev/null
  usleep 200000
  [ -z "$(dmesg | grep polled)" ]
  ethtool -s vnet0 msglvl rx_status on
  ethtool vnet0 | grep "Current message level: 0x00000800"
  usleep 200000
  dmesg | grep "vnet0: polled: 1 of 64"
  unload 6'

guest_check "7: valid ARP requests, which the stack answers" '
  up 7 rate=20
  tcpdump -c 6 -e -n -i vnet0 arp >/tmp/arp 2>/dev/null
  cat /tmp/arp
  grep "02:76:6e:65:74:fe > ff:ff:ff:ff:ff:ff, ethertype ARP (0x0806), length 60: Request who-has 10.76.0.2 tell 10.76.0.1, length 46" /tmp/arp
  grep "02:76:6e:65:74:70 > 02:76:6e:65:74:fe, ethertype ARP (0x0806), length 42: Reply 10.76.0.2 is-at 02:76:6e:65:74:70, length 28" /tmp/arp
  within 5 eval "[ \$(counter arp_answered) -ge 3 ]"'
guest_check "7: the stack asks, and is answered" '
  ip neigh flush dev vnet0
  ip link set vnet0 down
  unload 7
  up 7 rate=1
  ping -c 1 -W 1 10.76.0.1 || :
  ip neigh show 10.76.0.1 | tee /dev/stderr | grep "dev vnet0 lladdr 02:76:6e:65:74:fe"
  # What the driver asks of its own may have told the stack before the answer came.
  within 3 eval "[ \$(counter arp_answers) -ge 1 ]"
  refused ping -c 1 -W 1 10.76.0.3
  ip neigh show 10.76.0.3 | grep -E "FAILED|INCOMPLETE"
  unload 7'

guest_check "8: the card is found, and carries pings" '
  load 8
  grep -x '"$(guest_mac 0)"' /sys/class/net/vnet0/address
  [ "$(basename $(readlink /sys/class/net/vnet0/device/driver))" = vnet_phase8 ]
  ip link set vnet0 up
  udhcpc -f -n -q -t 10 -T 1 -i vnet0 -s /usr/bin/vnet-dhcp
  pings
  flood_pings 200 -i 0.002 -s 1400
  grep vnet0-0 /proc/interrupts
  [ $(interrupts) -ge 10 ]'
guest_check "8: TCP in both directions" '
  from_card 1000000 7
  to_card 1000000' 120
# The gateway sends the same again and again, as no answer gets through: so there are polls, and nothing to reclaim.
guest_check "8: a transfer begins" '
  ip addr add 10.76.0.2/24 dev vnet0
  echo "100000000000 9" | nc $gateway 5002 >/dev/null 2>&1 &
  echo $! >/tmp/transfer
  sleep 1'
faults "stop-fetching queue=tx"
guest_check "8: frames that come do not wake a queue that is full: what waits goes on waiting" '
  large_pings 4
  tc -s qdisc show dev vnet0 | tee /dev/stderr | grep "backlog [1-9]"
  before=$(stat_of rx_packets)
  within 20 eval "[ \$(stat_of rx_packets) -gt $before ]"
  kill $(cat /tmp/transfer)
  [ $(stat_of tx_dropped) = 0 ]'
faults
guest_check "8: and is sent when the card goes on" '
  within 5 eval "tc -s qdisc show dev vnet0 | grep \"backlog 0b 0p\""
  pings
  [ $(stat_of tx_dropped) = 0 ]'
faults "register-ones register=Q_STATUS"
guest_check "8: a queue that does not stop: the card is kept from memory" '
  dmesg -c >/dev/null
  ip link set vnet0 down
  dmesg | grep "a queue does not stop"
  command=$(od -An -tu1 -j4 -N1 /sys/class/net/vnet0/device/config)
  [ $((command & 4)) = 0 ]'
faults
guest_check "8: ... until the interface is up again" '
  readdress
  within 5 pings'
guest_check "8: down and up under traffic, and unbound and bound" '
  traffic
  for i in 1 2 3; do
    usleep 300000
    ip link set vnet0 down
    readdress
  done
  end_traffic
  pings
  cd /sys/bus/pci/drivers/vnet_phase8
  slot=$(basename $(readlink /sys/class/net/vnet0/device))
  echo $slot >unbind
  [ ! -e /sys/class/net/vnet0 ]
  echo $slot >bind
  readdress
  within 5 pings
  [ $(stat_of rx_dropped) = 0 ]
  unload 8'
finish
