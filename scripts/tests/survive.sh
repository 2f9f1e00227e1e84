#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# The process that serves the card is killed 20 times (1000 in a long run, VNET_KILLS if that is set)
# under traffic in both directions, and replaced a few times in order: the guest notices nothing but a
# pause. VNET_SEED chooses the moments, and which deaths are crashes. With VNET_OLDER, the vnetd of another
# version, the card begins with that, and is handed to ours, back, and to ours again.
. "$(dirname "$0")/../lib/check.sh"

own_network "TAP"

host=10.99.0.1
box=$ROOT/usr/bin/busybox
kills=${VNET_LONG:+1000}
kills=${VNET_KILLS:-${kills:-20}}
seed=${VNET_SEED:-$RANDOM}

FILES=("$ROOT/usr/bin/perl" "$ROOT/usr/lib/x86_64-linux-gnu/libcrypt.so.1" "$REPO/scripts/tests/survive/numbered.pl")
# The program is replaced by the next of these for each new version.
versions=()
if [ -n "${VNET_OLDER:-}" ]; then
  place=$(mktemp -d "${TMPDIR:-/tmp}/vnet-versions.XXXXXX")
  trap 'guest_stop; rm -rf "$place"' EXIT
  versions=("${VNET_VNETD:-$CACHE/target/release/vnetd}" "$VNET_OLDER")
  export VNET_VNETD=$place/vnetd
  cp "$VNET_OLDER" "$VNET_VNETD"
  # The driver asks for registers that the older one may not have.
  SANITIZE=off
fi
# The driver has a CPU for two of the queues; the third is detached.
boot NET=tap:name=vnettest MEM=1G SMP=2 QUEUES=3 VNETD_ARGS="--survive" VNETD_LOG=info
holder=${VNETD_PIDS[0]}
# The interface is the server's own: it would go with the last descriptor.
$box ip link set lo up
$box ip addr add $host/24 dev vnettest
$box ip link set vnettest up

# The process that serves, beside which another one stands by.
worker() {
  local pid pids name=''
  read -r -a pids <"/proc/$holder/task/$holder/children"
  for pid in "${pids[@]}"; do
    read -r name 2>/dev/null <"/proc/$pid/comm"
    [ "$name" != vnetd-worker ] || { echo "$pid" && return; }
  done
}

# replaced PID: waits until another worker serves than that one.
replaced() {
  local n=0
  while [ -z "$(worker)" ] || [ "$(worker)" = "$1" ]; do
    [ $((n += 1)) -le 1000 ] || return 1
    sleep 0.01
  done
}

# kill_workers COUNT OFFSET: at random moments, a third of them as if they crashed. The seed is set here, with another
# offset for each call: in a subshell, as that of check, bash begins with one of its own.
kill_workers() {
  local n victim signal
  RANDOM=$((seed + $2))
  for ((n = 0; n < $1; n++)); do
    victim=$(worker) signal=KILL
    [ $((RANDOM % 3)) != 0 ] || signal=ABRT
    kill -$signal "$victim" && replaced "$victim" || return 1
    sleep "0.$((RANDOM % 25 + 5))"
  done
}

# hand_over COUNT: to a new version each time, of which one is killed, too.
hand_over() {
  local n before
  for ((n = 0; n < $1; n++)); do
    before=$(worker)
    [ ${#versions[@]} = 0 ] || put "${versions[n % 2]}" || return 1
    kill -USR2 "$holder" && replaced "$before" || return 1
    sleep 0.5
    kill_workers 1 $((2 + n)) || return 1
    [ ${#versions[@]} = 0 ] || [ "/proc/$(worker)/exe" -ef "$VNET_VNETD" ] || return 1
  done
}
# put PROGRAM: where vnetd is.
put() {
  cp "$1" "$place/next" && mv "$place/next" "$VNET_VNETD"
}

# What the holder holds when another process stands by: descriptors and resident kilobytes.
holdings() {
  local n=0
  # shellcheck disable=SC2046 # paths without blanks
  until grep -qsx vnetd-standby /dev/null \
    $(sed 's,[0-9]\+,/proc/&/comm,g' "/proc/$holder/task/$holder/children"); do
    [ $((n += 1)) -le 500 ] || return 1
    sleep 0.01
  done
  echo "$(find "/proc/$holder/fd" -mindepth 1 | wc -l) $(sed -n 's/^VmRSS:[[:space:]]*\([0-9]*\) kB/\1/p' "/proc/$holder/status")"
}

head -c 40000000 /dev/urandom >"$GUEST_DIR/sent"
child "$box" nc -ll -p 7000 -e cat "$GUEST_DIR/sent" 2>/dev/null
child "$box" nc -ll -p 7001 -e sha256sum 2>/dev/null

# numbered send|receive ADDRESS PORT: datagrams with numbers, in the background; see there. A pause may take a hundred
# times what is usual here.
numbered() {
  LC_ALL=C host_program /usr/bin/perl "$REPO/scripts/tests/survive/numbered.pl" "$@" "$GUEST_DIR/stop" \
    $((5 * $(slowness))) >"$GUEST_DIR/numbers.$1" 2>&1
}
IN_GUEST+='
numbered() {
  LC_ALL=C LD_LIBRARY_PATH=/root /root/perl /root/numbered.pl "$@" /tmp/stop $((5 * slowness)) >/tmp/numbers.$1 2>&1
}
'

# Frames that the TAP gave or dropped, and that it took, what the guest and the card have counted, when no frame is on
# its way, and what the TAP dropped: "given taken received sent card_received card_sent rx_drops tx_drops no_room".
frames() {
  local before now n counts
  now=$(tap_packets)
  for ((n = 0; n < 20; n++)); do
    before=$now
    counts=$(guest "$IN_GUEST"'
      echo $(stat_of rx_packets) $(stat_of tx_packets)
      for counter in rx._packets tx._packets rx._drops tx._drops; do
        ethtool -S vnet0 | awk "/card_$counter:/ { n += \$2 } END { print n + 0 }"
      done')
    now=$(tap_packets)
    # shellcheck disable=SC2086 # numbers
    [ "$before" != "$now" ] || { echo $now $counts "$(tap_field 12)" && return; }
  done
  return 1
}
# Frames that were read from the TAP or dropped as it was full, and those that were written to it.
tap_packets() {
  echo $(($(tap_field 10) + $(tap_field 12))) "$(tap_field 2)"
}
tap_field() {
  sed -n 's/^ *vnettest: *//p' /proc/net/dev | awk "{ print \$$1 }"
}
# adds_up BEFORE AFTER: all that went to the TAP was received or counted as dropped; what was sent was taken
# by the TAP or counted, or both: of that which a worker had in hand nobody knows. For an older version it may be that
# nobody has counted what the TAP had no room for.
adds_up() {
  # shellcheck disable=SC2086 # nine numbers each
  set -- $1 $2
  local given=$((${10} - $1)) taken=$((${11} - $2)) received=$((${12} - $3)) sent=$((${13} - $4))
  local card=$((${14} - $5)) rx_drops=$((${16} - $7)) tx_drops=$((${17} - $8)) no_room=$((${18} - $9)) lost
  lost=$((given - received - rx_drops))
  echo "to the guest: $given given, $received received ($card by the card's count), $rx_drops dropped, no room for $no_room"
  echo "from the guest: $sent sent, $taken taken, $tx_drops dropped"
  [ $given -gt 1000 ] && [ $sent -gt 1000 ] &&
    [ $lost -ge 0 ] && [ $lost -le $((${#versions[@]} > 0 ? no_room : 0)) ] && [ $card = $received ] &&
    [ $((taken + tx_drops)) -ge $sent ] && [ $((taken + tx_drops)) -le $((sent + 2 * kills)) ]
}

guest_check "an address" "
  ip addr add 10.99.0.2/24 dev vnet0
  within 10 grep -qx 1 /sys/class/net/vnet0/carrier
  gateway=$host pings"
# Ten times a hundred datagrams to many ports, so that some are in each queue of the TAP when the worker dies, and as many
# while the next one begins.
leave_unread() {
  local n port victim before
  for ((n = 0; n < 10; n++)); do
    before=$(frames) && victim=$(worker) && kill -STOP "$victim" && stopped "$victim" || return 1
    for ((port = 9000; port < 9200; port++)); do
      [ $port != 9100 ] || kill -KILL "$victim" || return 1
      echo unread >"/dev/udp/10.99.0.2/$port" || return 1
    done
    replaced "$victim" && each_came "$before" || return 1
  done
}
# stopped PID: waits until all threads have stopped. The first to run tells the others, which go on until then.
stopped() {
  local n=0
  while grep -h '^State:' "/proc/$1"/task/*/status | grep -qv stopped; do
    [ $((n += 1)) -le 1000 ] || return 1
    sleep 0.01
  done
}
# each_came BEFORE: the next worker brings them to the guest. What else came, and was not for that, is dropped.
each_came() {
  local given received drops
  # shellcheck disable=SC2046,SC2086 # nine numbers each
  set -- $1 $(frames)
  given=$((${10} - $1)) received=$((${12} - $3)) drops=$((${16} - $7))
  echo "$given given, $received received, $drops dropped"
  [ $received -ge 200 ] && [ $given = $((received + drops)) ]
}
# An older version may throw them away.
if [ ${#versions[@]} = 0 ]; then
  check "workers are killed while frames wait in the TAP: the next ones receive them" leave_unread
fi
counted=$(frames)
numbered receive $host 7002
numbers=$!
guest_check "traffic in both directions" "
  cat /sys/class/net/vnet0/carrier_changes >/tmp/carrier
  touch /tmp/down.done /tmp/up.done
  head -c 20000000 /dev/urandom >/tmp/up
  up=\$(sha256sum </tmp/up)
  while [ ! -e /tmp/stop ]; do
    [ \"\$(nc $host 7000 </dev/null | sha256sum)\" = '$(sha256sum <"$GUEST_DIR/sent")' ]
    echo \$? >>/tmp/down.done
  done >/dev/null 2>&1 &
  while [ ! -e /tmp/stop ]; do
    [ \"\$(nc $host 7001 </tmp/up)\" = \"\$up\" ]
    echo \$? >>/tmp/up.done
  done >/dev/null 2>&1 &
  while [ ! -e /tmp/stop ]; do
    ping -i 0.02 -c 100 -W 10 $host
  done >/tmp/pings 2>&1 &
  { numbered receive 10.99.0.2 7003 && echo 0 || echo 1; } >/tmp/numbers.done &
  numbered send $host 7002 &
  sleep 1"
numbered send 10.99.0.2 7003
check "a worker that is killed is replaced" kill_workers 2 0
before=$(holdings)
check "so are $((kills - 2)) more, at moments of seed $seed" kill_workers $((kills - 2)) 1
check "a new version takes over in order" hand_over 3
guest_check "transfers in both directions come to their end afterwards" '
  down=$(wc -l </tmp/down.done) up=$(wc -l </tmp/up.done)
  more() { [ $(wc -l </tmp/down.done) -gt $down ] && [ $(wc -l </tmp/up.done) -gt $up ]; }
  echo "down $down, up $up"
  within 120 more || { wc -l /tmp/down.done /tmp/up.done; ethtool -S vnet0 | grep -v ": 0$"; exit 1; }' 240
# The program before is kept until the new one has served for ten seconds.
sleep 11
after=$(holdings)
# One after the other at once: from now on a receiver takes silence for the end.
touch "$GUEST_DIR/stop"
guest_check "all that was transferred arrived as it was sent" '
  touch /tmp/stop
  within 60 sh -c "! pidof nc"
  for way in down up; do
    sort /tmp/$way.done | uniq -c
    refused grep -v "^0$" /tmp/$way.done
  done' 120
wait "$numbers"
status=$?
check "none of the guest's frames was sent twice, none came late: $(cat "$GUEST_DIR/numbers.receive")" test $status = 0
numbers=$(guest "$IN_GUEST"'within 20 test -s /tmp/numbers.done; cat /tmp/numbers.receive')
guest_check "none was received twice, none late: $numbers" '[ "$(cat /tmp/numbers.done)" = 0 ]'
guest_check "no ping came back twice, and few were lost" "
  within 20 sh -c '! pidof ping >/dev/null'
  grep transmitted /tmp/pings | tail -n 3
  refused grep -qi dup /tmp/pings
  awk '/transmitted/ { lost += \$1 - \$4 } END { print lost, \"lost\"; exit lost > $kills }' /tmp/pings"
check "every frame was delivered or counted" adds_up "$counted" "$(frames)"
guest_check "the guest saw no link go, no queue stuck and no error" '
  [ "$(cat /sys/class/net/vnet0/carrier_changes)" = "$(cat /tmp/carrier)" ]
  [ $(counter tx_timeouts) = 0 ]
  [ $(counter resets) = 0 ]
  [ $(stat_of tx_errors) = 0 ]
  [ $(stat_of rx_errors) = 0 ]'
# shellcheck disable=SC2086 # two words each
set -- $before $after
check "the holder keeps as many descriptors as before ($1, $3), and no more memory ($2, $4 kB)" \
  test "$1" = "$3" -a "$4" -le $(($2 + 256))
times=$(sed -n 's/.*worker goes on after \([0-9.]*\) ms.*/\1/p' "$GUEST_DIR/vnetd0.log" | sort -n)
summary=$(awk '
  { t[NR] = $1; over += $1 > 100 }
  END {
    print NR " times, median " t[int((NR + 1) / 2)] " ms, 95 % within " t[int((NR * 19 + 19) / 20)] \
      " ms, longest " t[NR] " ms, " over + 0 " over 100 ms"
    exit t[int((NR + 1) / 2)] >= 100
  }' <<<"$times")
status=$?
summary+=", load $(cut -d' ' -f1-2 /proc/loadavg)"
check "another worker was ready within 100 ms, the median of $summary" test $status = 0
# One that is killed before it is ready leaves the time to the next.
check "nearly every death has a time" test "$(wc -l <<<"$times")" -ge $((kills * 9 / 10))
finish
