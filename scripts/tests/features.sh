#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# The driver works with a card that goes without any one feature, and without all: one guest has such
# a card each, all on TAP interfaces in one network namespace, whose kernel is the peer.
. "$(dirname "$0")/../lib/check.sh"

own_network "features"

box=$ROOT/usr/bin/busybox
features=(
  TX_CSUM RX_CSUM TX_TSO4 TX_TSO6 TX_ECN TX_USO RX_TSO4 RX_TSO6 RX_ECN RX_USO MRG_RXBUF INDIRECT_DESC
  RSS HASH_REPORT MODERATION MAC_FILTER HDR_SPLIT QUEUE_STATS ALL
)
for n in "${!features[@]}"; do
  NET[n]=tap:name=vnettest$n WITHOUT[n]=${features[n]}
done
boot NICS=${#features[@]} SMP=2 QUEUES=2 MEM=1536M

# Each card has a network of its own.
$box ip link set lo up
for n in "${!features[@]}"; do
  echo 0 >/proc/sys/net/ipv6/conf/vnettest"$n"/accept_dad
  $box ip link set "vnettest$n" mtu 9000 up
  $box ip addr add "10.99.$n.1/24" dev "vnettest$n"
  $box ip addr add "fd99:$n::1/64" dev "vnettest$n"
done
head -c 3000000 /dev/urandom >"$GUEST_DIR/sent"
digest=$(sha256sum <"$GUEST_DIR/sent")
child "$box" nc -ll -p 7000 -e cat "$GUEST_DIR/sent"
child "$box" nc -ll -p 7001 -e sha256sum
host_listens 7000
host_listens 7001

IN_GUEST+='
# works N: the card has link and address, and carries frames of all kinds and sizes both ways.
works() {
  within 10 grep -qx 1 /sys/class/net/$nic/carrier
  echo 0 >/proc/sys/net/ipv6/conf/$nic/accept_dad
  ip addr add 10.99.$1.2/24 dev $nic
  ip addr add fd99:$1::2/64 dev $nic
  for peer in 10.99.$1.1 fd99:$1::1; do
    ping -c 2 -i 0.2 -W 5 -s 1000 $peer
    [ "$(nc $peer 7000 </dev/null | sha256sum)" = "$digest" ]
    [ "$(nc $peer 7001 </tmp/sent)" = "$sent" ]
  done
  for statistic in rx_errors tx_errors rx_dropped tx_dropped; do
    [ $(cat /sys/class/net/$nic/statistics/$statistic) = 0 ]
  done
  ethtool -S $nic >/tmp/stats
  grep -qE "^ *(queue_errors|resets): [1-9]" /tmp/stats && exit 1
  ethtool -k $nic >/tmp/features
}
# lacks FEATURE...: ethtool says that the interface cannot have these.
lacks() {
  for feature; do grep -x "[[:space:]]*$feature: off \[fixed\]" /tmp/features; done
}
has() {
  for feature; do grep -x "[[:space:]]*$feature: on" /tmp/features; done
}
# count NAME: a counter of all queues.
count() {
  awk -v name="$1" "\$1 ~ name { n += \$2 } END { print n + 0 }" /tmp/stats
}
# receives PEER: large frames from there, in $large.
receives() {
  large=$(count "^rx._hw_gro_packets:")
  nc $1 7000 </dev/null >/dev/null
  ethtool -S $nic >/tmp/stats
  large=$(($(count "^rx._hw_gro_packets:") - large))
}
'
guest 'head -c 3000000 /dev/urandom >/tmp/sent; sha256sum </tmp/sent >/tmp/digest'

# without FEATURE: what is to be seen of it in the guest.
without() {
  case $1 in
    TX_CSUM)
      echo 'lacks tx-checksum-ip-generic tx-tcp-segmentation tx-tcp6-segmentation tx-udp-segmentation
        [ $(count "^tx._(csum|gso):") = 0 ]'
      ;;
    RX_CSUM) echo 'lacks rx-checksumming rx-gro-hw; [ $(count "^rx._(csum_|hw_gro_packets).*:") = 0 ]' ;;
    TX_TSO4) echo 'lacks tx-tcp-segmentation; has tx-tcp6-segmentation' ;;
    TX_TSO6) echo 'lacks tx-tcp6-segmentation; has tx-tcp-segmentation' ;;
    TX_ECN) echo 'lacks tx-tcp-ecn-segmentation; has tx-tcp-segmentation' ;;
    TX_USO) echo 'lacks tx-udp-segmentation; has tx-tcp-segmentation' ;;
    RX_TSO4) echo 'receives 10.99.$n.1; [ $large = 0 ]; receives fd99:$n::1; [ $large -gt 10 ]' ;;
    RX_TSO6) echo 'receives fd99:$n::1; [ $large = 0 ]; receives 10.99.$n.1; [ $large -gt 10 ]' ;;
    RX_ECN | RX_USO) echo 'has rx-gro-hw; [ $(count "^rx._hw_gro_packets:") -gt 10 ]' ;;
    MRG_RXBUF)
      # Large frames would not fit in a buffer.
      echo 'lacks rx-gro-hw; [ $(count "^rx._hw_gro_packets:") = 0 ]
        refused ip link set $nic mtu 9000
        ip link set $nic mtu 4000
        ping -c 2 -i 0.2 -W 5 -s 3900 10.99.$n.1
        refused ethtool -G $nic tcp-data-split on'
      ;;
    INDIRECT_DESC) echo '[ $(count "^tx._indirect:") = 0 ]; [ $(count "^tx._gso:") -gt 10 ]' ;;
    RSS) echo 'refused ethtool -x $nic; lacks receive-hashing' ;;
    HASH_REPORT) echo 'ethtool -x $nic | grep "RX flow hash indirection table"; lacks receive-hashing' ;;
    MODERATION) echo 'refused ethtool -c $nic; [ $(count "^channel._interrupts:") -gt 10 ]' ;;
    # Whoever seeks the neighbour asks a multicast address.
    MAC_FILTER) echo 'has rx-gro-hw' ;;
    HDR_SPLIT) echo 'refused ethtool -G $nic tcp-data-split on; ip link set $nic mtu 9000' ;;
    QUEUE_STATS) echo 'refused grep card_rx /tmp/stats' ;;
    ALL)
      echo 'lacks tx-checksum-ip-generic rx-checksumming tx-tcp-segmentation tx-udp-segmentation rx-gro-hw \
          receive-hashing
        refused ethtool -x $nic
        refused ethtool -c $nic
        refused ethtool -G $nic tcp-data-split on'
      ;;
  esac
}
for n in "${!features[@]}"; do
  guest_check "a card without ${features[n]}" "n=$n nic=vnet$n digest='$digest'"'
    sent=$(cat /tmp/digest)
    works $n
    '"$(without "${features[n]}")"
  # The host begins, and asks for the address by multicast.
  check "a card without ${features[n]} is found by its neighbour" \
    "$box" ping -6 -c 1 -W 5 "fd99:$n::2"
done
guest_check "all of them take other rings, channels and addresses" '
  for nic in $(ls /sys/class/net | grep vnet); do
    n=${nic#vnet}
    ip link set $nic down
    ethtool -G $nic rx 64 tx 64
    ethtool -L $nic combined 1
    ip link set $nic address 02:00:00:00:00:$n up
    ip addr add fd99:$n::2/64 dev $nic || true
    within 5 ping -c 1 -W 2 10.99.$n.1
    ethtool -L $nic combined 2
    within 5 ping -c 1 -W 2 10.99.$n.1
  done'
finish
