#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# Two cards of one device server, from a configuration, steered with vnetctl while the guest uses
# them.
. "$(dirname "$0")/../lib/check.sh"

ctl() {
  "$REPO/scripts/vnetctl" --socket "$GUEST_DIR/control.sock" "$@"
}
# refused_with PART ARGUMENT...: vnetctl says that in one line, and fails.
refused_with() {
  local part=$1 told
  shift
  told=$(ctl "$@" 2>&1)
  [ $? = 1 ] && [ "$(wc -l <<<"$told")" = 1 ] && grep -F "$part" <<<"$told"
}
# sent CARD COLUMN: a counter of its transmit queue: 4 frames, 6 drops.
sent() {
  ctl counters "$1" | awk -v column="$2" '$2 == "tx0" { print $column }'
}

# A place that the server can use beside those of its cards.
elsewhere=$(mktemp -d)
trap 'guest_stop; rm -rf "$elsewhere"' EXIT
VNETD_ARGS=(--allow "$elsewhere")
boot NICS=2 CONFIG=yes
check "one process has both cards" test "${#VNETD_PIDS[@]}" = 1
cards_listed() {
  ctl list | tee /dev/stderr | awk '$2 == "serving" && $3 == "up" && /gateway/ && /pid/' | wc -l | grep -x 2
}
check "vnetctl lists them, up, with the guest" cards_listed
json_listed() {
  ctl list --json | grep -F '"name":"nic0"' | grep -F '"name":"nic1"'
}
check "and as JSON" json_listed
check "what there is not is told in one line" refused_with "there are nic0, nic1" show nic7

guest_check "vnet1 goes to sleep, so that vnet0 has the addresses" 'ip addr flush dev vnet1; pings'
before=$(sent nic0 4)
guest_check "pings" 'pings'
check "counters move" test "$(sent nic0 4)" -ge "$((before + 3))"

check "the cable of vnet0 is pulled" ctl link nic0 down
guest_check "the guest sees that, and of vnet0 only" '
  within 5 grep -qx 0 /sys/class/net/vnet0/carrier
  grep -qx 1 /sys/class/net/vnet1/carrier
  dmesg | grep "vnet0: link down"
  refused ping -c 1 -W 1 $gateway'
check "the cable is plugged in" ctl link nic0 up --speed 2500
guest_check "the guest sees that, and how fast it is, and pings" '
  within 5 grep -qx 1 /sys/class/net/vnet0/carrier
  ethtool vnet0 | grep "Speed: 2500Mb/s"
  pings'

guest 'ping -f 10.77.0.1 >/tmp/flood 2>&1 &'
# carries FRAMES: the guest sends more than that from now on.
carries() {
  local frames
  frames=$(sent nic0 4)
  for _ in {1..100}; do
    sleep 0.2
    [ "$(sent nic0 4)" -le "$((frames + $1))" ] || return 0
  done
  return 1
}
change_backends() {
  local round
  for round in 1 2 3 4; do
    ctl backend nic0 null || return
    # It takes what the guest sends, and says nothing.
    carries 0 || return
    ctl backend nic0 gateway || return
    sleep 0.3
  done
}
check "the backend changes to and fro under traffic" change_backends
accounted() {
  local sent carried
  guest 'killall -INT ping; sleep 1; ip neigh flush dev vnet0'
  # Every frame that the driver has sent was carried or dropped: the two drops that the cable cost
  # count, too.
  # What the guest sends by itself may come between the two.
  for _ in {1..8}; do
    sent=$(guest 'cat /sys/class/net/vnet0/statistics/tx_packets')
    carried=$(($(sent nic0 4) + $(sent nic0 6)))
    echo "sent $sent, carried or dropped $carried"
    [ "$sent" != "$carried" ] || return 0
    sleep 0.5
  done
  return 1
}
check "each frame that the driver sent was carried or counted as a drop" accounted
guest_check "TCP through the backend that is there now" 'from_card 300000 5; to_card 300000'
check "a backend that cannot be changes nothing" refused_with "15 bytes" backend nic0 tap:name=a-name-that-is-too-long
check "faults begin" ctl faults nic0 "frame-lost queue=tx"
guest_check "and no frame gets out" 'refused ping -c 1 -W 1 $gateway'
check "faults end" ctl faults nic0 --off
guest_check "and all is well" 'pings'

guest_check "the driver lets go of vnet1" '
  basename "$(readlink /sys/class/net/vnet1/device)" >/sys/bus/pci/drivers/vnet/unbind
  traffic'
check "its card is removed while vnet0 carries traffic" ctl remove nic1
check "the socket is gone" test ! -e "$GUEST_DIR/nic1.sock"
check "a card is added in its place" ctl add nic1 "socket=$GUEST_DIR/nic1.sock" net=null queues=2
check "and cannot be twice" refused_with "there is a card nic1 already" add nic1 "socket=$GUEST_DIR/x.sock"
check "keys are checked as in a file" refused_with "did you mean mtu-max?" add nic2 socket=/x mtu_max=1500
check "vnet0 carries on" carries 50
guest_check "and nothing was lost with that" 'touch /tmp/stop; from_card 300000 5; to_card 300000'

# threads: its name, capabilities and filters of system calls for each thread of the server.
threads() {
  local thread
  for thread in "/proc/${VNETD_PIDS[0]}/task/"*; do
    awk 'NR == 1 { name = $1 }
      /^CapEff:/ { capabilities = $2 } /^NoNewPrivs:/ { none = $2 } /^Seccomp_filters:/ { filters = $2 }
      END { print name, capabilities, none, filters }' "$thread/comm" "$thread/status"
  done
}
# Capabilities are those of NET_ADMIN, NET_RAW and DAC_OVERRIDE, or fewer; and who serves has none.
limited() {
  threads | tee /dev/stderr | awk '
    BEGIN { own = ARGV[1]; ARGC = 1 }
    $1 ~ /^vnet-(q[0-9]+|session|monitor|irq)$/ { served++; if ($2 !~ /^0+$/ || $4 != own + 2) bad++ }
    $1 !~ /^vnet-(q[0-9]+|session|monitor|irq)$/ { if ($2 !~ /^0+(3002|3000|2000|1000|2|0)$/ || $4 < own + 1) bad++ }
    $3 != 1 { bad++ }
    END { exit bad || served < 3 }' "$(awk '/^Seccomp_filters:/ { print $2 }' /proc/self/status)"
}
# can_limit: succeeds if the kernel says that it has all of it, whatever the server says: Landlock (landlock_create_ruleset(2),
# which tells its version) with what there is since 6.10, and filters (seccomp(2), which finds none at address 0: EFAULT).
can_limit() {
  in_root perl -e 'exit !(syscall(444, 0, 0, 1) >= 5 && syscall(317, 1, 0, 0) < 0 && $! == 14)'
}
if grep "sandbox: " "$GUEST_DIR/vnetd0.log" && ! can_limit; then
  skip "control: the sandbox, as this machine does not have all of it"
else
  check "each thread of the server is limited, and those of cards more than others" limited
  check "a socket elsewhere is refused, and what would help is named" \
    refused_with "Permission denied (os error 13); the sandbox leaves vnetd what it was started for: --allow adds" \
    add nic2 socket=/var/tmp/vnetd-nowhere.sock net=null
  check "so is a file" refused_with "the sandbox leaves vnetd" backend nic1 replay:file=/etc/passwd
  check "so is a TCP port of the host" \
    refused_with "port 22 of the host cannot be connected to; the sandbox leaves vnetd the ports" \
    backend nic1 gateway:forward=8022=127.0.0.1:22
fi
check "a socket where it was allowed is not" ctl add nic2 "socket=$elsewhere/nic2.sock" net=gateway
check "and the card goes again" ctl remove nic2
# without_sandbox: a server that has none says so, and goes where it likes.
without_sandbox() {
  local pid added
  child "$REPO/scripts/vnetd" --socket "$GUEST_DIR/free.sock" --control "$GUEST_DIR/free.control" --sandbox off \
    2>"$GUEST_DIR/free.log"
  pid=$!
  for _ in $(seq 100); do
    [ ! -S "$GUEST_DIR/free.sock" ] || break
    sleep 0.05
  done
  "$REPO/scripts/vnetctl" --socket "$GUEST_DIR/free.control" add nic2 "socket=$elsewhere/free.sock" net=null
  added=$?
  kill "$pid" && wait "$pid"
  cat "$GUEST_DIR/free.log"
  grep -F "sandbox: off" "$GUEST_DIR/free.log" && [ "$added" = 0 ]
}
check "without a sandbox, that is said, and nothing is refused" without_sandbox

check "another address" ctl mac nic0 52:54:00:76:6e:99
guest_check "is there when the driver is loaded again" '
  grep -x 52:54:00:76:6e:00 /sys/class/net/vnet0/address
  rmmod vnet; insmod /vnet.ko
  grep -x 52:54:00:76:6e:99 /sys/class/net/vnet0/address
  readdress
  pings'
no_rules() {
  ctl rules nic0 | grep -x "no rule was broken"
}
check "the driver has broken no rule so far" no_rules
finish
