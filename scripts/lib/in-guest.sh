# shellcheck shell=sh
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# For checks that run in the guest, before each of them. The gateway's addresses and services
# are described in device/gateway/src/lib.rs.
gateway=10.77.0.1 gateway6=fd76:6e65:7400::1 guest=10.77.0.2

# As in guest.sh: the debug kernel takes its time.
if [ -e /sys/kernel/debug/kmemleak ]; then slowness=8; else slowness=1; fi

# There (DEBUG_KOBJECT_RELEASE), the sysfs entry of a queue outlives the queue by seconds, and until then the
# core lets nobody add one of that number.
if [ $slowness != 1 ]; then
  ethtool() {
    for _ in $(seq 50); do
      command ethtool "$@" 2>/tmp/ethtool && return
      grep -q "temporarily unavailable" /tmp/ethtool || break
      usleep 200000
    done
    cat /tmp/ethtool >&2
    return 1
  }
  # So does that of a driver.
  insmod() {
    within 5 [ ! -e "/sys/bus/pci/drivers/$(basename "$1" .ko)" ] || true
    command insmod "$@"
  }
fi

# Some pings, of which some are answered. Where none may be lost: flood_pings.
pings() {
  ping -c 3 -i 0.2 -W 5 "$@" "$gateway"
}

# echoes: pings that were sent and answers that came, since boot.
echoes() {
  awk '/^IcmpMsg:/ { for (i = 2; i <= NF; i++) if (named) seen[name[i]] = $i; else name[i] = $i; named = 1 }
    END { print seen["OutType8"] + 0, seen["InType0"] + 0 }' /proc/net/snmp
}

# flood_pings COUNT [OPTION...]: pings that go out as fast as they are answered, every one answered. By the kernel's
# count: ping waits for the last answers no longer than twice what the slowest so far took, and calls lost what
# a busy machine delays.
flood_pings() {
  pings_to_send=$1
  shift
  echoes_before=$(echoes)
  ${PING:-ping} -q -f -c "$pings_to_send" "$@" $gateway || true
  within 5 answered "$echoes_before" "$pings_to_send" || {
    echo "pings and answers before: $echoes_before, after $pings_to_send: $(echoes)"
    ethtool -S vnet0 | grep -v ": 0$"
    return 1
  }
}
answered() {
  # shellcheck disable=SC2046,SC2086 # two numbers each
  set -- $1 $(echoes) "$2"
  [ $(($3 - $1)) -ge "$5" ] && [ $(($4 - $2)) -ge $(($3 - $1)) ]
}

# within SECONDS COMMAND...: it succeeds before that time is up.
within() {
  for _ in $(seq $(($1 * 10 * slowness))); do
    ( shift && "$@" ) && return
    usleep 100000
  done
  return 1
}

# in_time SECONDS COMMAND...: it must succeed. If it takes longer, says twice what there is to see of the
# interface and of connections, so that a difference shows what still moves, and fails.
in_time() {
  until=$(($(cut -d. -f1 /proc/uptime) + $1 * slowness))
  ( set -e; shift; "$@" ) &
  while [ -e /proc/$! ]; do
    if [ "$(cut -d. -f1 /proc/uptime)" -ge $until ]; then
      for look in first second; do
        echo "not over in time, $look look:"
        grep -a vnet /proc/interrupts
        ethtool -S vnet0 | grep -v ": 0$"
        grep -H . /sys/class/net/vnet0/queues/tx-*/byte_queue_limits/inflight
        cat /proc/net/tcp
        sleep 3
      done
      return 1
    fi
    usleep 100000
  done
  wait $!
}

# The command must fail.
refused() {
  if "$@"; then
    echo "should have been refused: $*"
    return 1
  fi
}

# iperf ARGUMENT...: iperf3. A server listens anew after each client, of which the next one might come between: it
# tries again as long as no transfer has begun.
iperf() {
  for _ in $(seq 50); do
    if iperf3 "$@" >/tmp/iperf 2>&1; then cat /tmp/iperf; return; fi
    ! grep -q bits/sec /tmp/iperf || break
    usleep 100000
  done
  cat /tmp/iperf
  return 1
}

# fewer BYTES: of what is much, the debug kernel, which takes a second for each megabyte, gets a quarter.
fewer() {
  if [ $slowness = 1 ] || [ "$1" -lt 8000000 ]; then echo "$1"; else echo $(($1 / 4)); fi
}

# from_card BYTES SEED [ADDRESS]: receives that much over TCP, compares it with the sender's digest.
from_card() {
  amount=$(fewer "$1")
  want=$(echo "$amount $2 sum" | nc "${3:-$gateway}" 5002)
  got="$amount $(echo "$amount $2" | nc "${3:-$gateway}" 5002 | sha256sum | cut -d' ' -f1)"
  echo "sent: $want, arrived: $got"
  [ "$got" = "$want" ]
}

# transfers: from_card in the background, once more until end_transfers: how long one takes is the machine's affair.
# Data arrive when it returns.
transfers() {
  rm -f /tmp/stop /tmp/done
  received=$(stat_of rx_bytes)
  ( until [ -e /tmp/stop ]; do from_card 60000000 4 || exit; done; touch /tmp/done ) &
  within 20 eval "[ \$((\$(stat_of rx_bytes) - $received)) -gt 1000000 ]"
}
# Succeeds if what arrived was what was sent, each time.
end_transfers() {
  touch /tmp/stop
  wait
  [ -e /tmp/done ]
}

# to_card BYTES [ADDRESS]: sends random data over TCP, compares the receiver's digest.
to_card() {
  amount=$(fewer "$1")
  head -c "$amount" /dev/urandom >/tmp/to_card
  want="$amount $(sha256sum </tmp/to_card | cut -d' ' -f1)"
  got=$(nc "${2:-$gateway}" 5001 </tmp/to_card)
  rm /tmp/to_card
  echo "sent: $want, arrived: $got"
  [ "$got" = "$want" ]
}

# What gets through in the background is noted in /tmp/flows: pings that are answered, data that come in and go out.
# arriving: takes what comes, and succeeds if anything does.
arriving() {
  [ "$(head -c 1000 | wc -c)" = 1000 ] && echo in >>/tmp/flows && cat
}
# leaving BYTES: zeros for a connection. A pipe and a socket take less than half of the first part while nothing is
# acknowledged.
leaving() {
  head -c 400000 /dev/zero && echo out >>/tmp/flows && head -c $(($1 - 400000)) /dev/zero
}
# flowing KIND...: each of these (pings, in, out) gets through within some seconds from now.
flowing() {
  : >/tmp/flows
  within 10 noted "$@" || {
    echo "of $* there is:"
    sort /tmp/flows | uniq -c
    return 1
  }
}
noted() {
  for kind; do grep -qx "$kind" /tmp/flows || return; done
}

# traffic: pings and a TCP stream in both directions in the background until end_traffic, through
# all that happens to the interface meanwhile. They flow at the start, and still at the end. By its path, as
# busybox's timeout would start its own ping, which cannot flood.
traffic() {
  rm -f /tmp/stop
  while [ ! -e /tmp/stop ]; do
    if timeout 2 /usr/bin/ping -f -w 1 -s 1000 "$gateway"; then echo pings >>/tmp/flows; else usleep 50000; fi
  done >/dev/null 2>&1 &
  echo $! >/tmp/traffic
  while [ ! -e /tmp/stop ]; do
    echo "20000000 9" | timeout 3 nc "$gateway" 5002 | arriving || usleep 50000
    leaving 5000000 | timeout 3 nc "$gateway" 5001 || usleep 50000
  done >/dev/null 2>&1 &
  echo $! >>/tmp/traffic
  flowing pings in out
}
# Also of an earlier check, whose children they were.
end_traffic() {
  flowing pings in out
  touch /tmp/stop
  wait
  while read -r loop; do within 10 [ ! -e "/proc/$loop" ]; done </tmp/traffic
}

# With addresses again after the interface was gone or down.
readdress() {
  ip link set vnet0 up
  ip addr replace "$guest/24" dev vnet0
}

# stat_of NAME: one of the interface's standard counters.
stat_of() {
  cat "/sys/class/net/vnet0/statistics/$1"
}

# counter PATTERN: a counter of "ethtool -S".
counter() {
  ethtool -S vnet0 | sed -n "s/^ *$1: //p"
}

# The card's interrupts so far, a line for each vector.
vectors() {
  awk -v cpus="$(nproc)" '/vnet/ { n = 0; for (i = 2; i < 2 + cpus; i++) n += $i; print n }' /proc/interrupts
}
interrupts() {
  vectors | awk '{ n += $1 } END { print n }'
}

# Kilobytes that are free once caches are dropped.
available() {
  sync
  echo 3 >/proc/sys/vm/drop_caches
  sed -n 's/^MemAvailable: *\([0-9]*\) kB/\1/p' /proc/meminfo
}
