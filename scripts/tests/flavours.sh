#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# The other kernel flavour: load, DHCP, ping, TCP, unload.
. "$(dirname "$0")/../lib/check.sh"

prepared amd64
boot FLAVOUR=amd64
guest_check "the kernel is Debian's full one" 'uname -r | grep -v cloud | grep -- "-amd64\$"'
guest_check "ping" 'pings'
guest_check "10 MB of TCP each way" 'from_card 10000000 2; to_card 10000000' 120
finish
