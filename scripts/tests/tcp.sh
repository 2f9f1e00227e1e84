#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# 200 MB of TCP in each direction, with the checksums of both ends compared.
. "$(dirname "$0")/../lib/check.sh"

boot MEM=1G
guest_check "200 MB to the card" 'to_card 200000000' 300
guest_check "200 MB from the card" 'from_card 200000000 77' 300
guest_check "20 MB both ways at once, by echo" '
  head -c 20000000 /dev/urandom >/tmp/data
  nc $gateway 7 </tmp/data >/tmp/back
  cmp /tmp/data /tmp/back' 120
guest_check "20 MB each way with MTU 9000" '
  ip link set vnet0 mtu 9000
  from_card 20000000 5
  to_card 20000000' 120
guest_check "four connections at once" '
  for i in 1 2 3 4; do
    ( from_card 5000000 $i && touch /tmp/done$i ) &
  done
  wait
  for i in 1 2 3 4; do [ -e /tmp/done$i ]; done' 120
guest_check "HTTP page" 'wget -q -O - http://$gateway/ | grep -i vnet'
finish
