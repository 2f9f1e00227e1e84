#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# Captures of a card while the guest uses it, as tshark reads them: that all frames are there, whole,
# with what became of them; and that a file which cannot be written holds nobody up.
. "$(dirname "$0")/../lib/check.sh"

"$REPO/images/packages" test || exit
# A disk of its own, which can be full, for what the card records.
if [ -z "${VNET_TEST_DISK:-}" ]; then
  user=()
  [ "$(id -u)" = 0 ] || user=(--user --map-root-user --map-auto)
  VNET_TEST_DISK=1 exec unshare "${user[@]}" --mount "$0"
fi
dir=$(mktemp -d "${TMPDIR:-/tmp}/vnet-capture.XXXXXX")
chmod 755 "$dir"
mkdir "$dir/disk"
mount -t tmpfs -o size=40m disk "$dir/disk" || exit
trap 'guest_stop; umount "$dir/disk"; rm -rf "$dir"' EXIT

ctl() {
  "$REPO/scripts/vnetctl" --socket "$dir/control" "$@"
}
# carried QUEUE: frames that the card counts.
carried() {
  ctl counters nic0 | awk -v queue="$1" '$2 == queue { print $4 }'
}
# shark FILE ARGUMENT...: what tshark finds in a file. For root it runs no Lua.
shark() {
  local file=$1
  shift
  IN_ROOT_EXTRA=$dir in_root setpriv --reuid 65534 --regid 65534 --clear-groups env HOME=/tmp \
    tshark -X lua_script:/repo/docs/capture/vnet.lua -n -r "/extra/$file" "$@"
}
# capturing [FRAMES]: waits until a capture has that many, or is there.
capturing() {
  local frames
  for _ in $(seq 200); do
    frames=$(ctl capture nic0 --show 2>/dev/null | sed -n 's/^\([0-9]*\) frames, .*: goes on$/\1/p')
    [ "${frames:--1}" -lt "${1:-0}" ] || return 0
    sleep 0.05
  done
  echo "no capture has begun"
  return 1
}
# found FILE COUNT FILTER: so many frames pass the filter.
found() {
  local count
  count=$(count "$1" "$3") && echo "$3: $count frames" && [ "$count" = "$2" ]
}
some() {
  local count
  count=$(count "$1" "$2") && echo "$2: $count frames" && [ "$count" -gt 0 ]
}
count() {
  shark "$1" -Y "$2" -T fields -e frame.number >"$dir/numbers" && wc -l <"$dir/numbers"
}

VNETD_ARGS=(--control "$dir/control" --record "file=$dir/disk/record.pcapng,size=4M,files=3")
boot
# From here on there are no frames but those of the test.
guest_check "the guest is quiet" '
  echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6
  ip neigh replace $gateway lladdr 02:76:6e:65:74:01 dev vnet0 nud permanent
  pings
  sleep 1'

rx=$(carried rx0) tx=$(carried tx0) started=$(date +%s)
check "a capture starts" ctl capture nic0 "$dir/all.pcapng" --background
guest_check "traffic" '
  pings
  from_card 3000000 5
  to_card 3000000
  sleep 1'
check "and stops" ctl capture nic0 --stop
rx=$(($(carried rx0) - rx)) tx=$(($(carried tx0) - tx))
check "all frames that the card received are in the file" found all.pcapng "$rx" 'frame.interface_name == "nic0:rx0"'
check "and all that it sent" found all.pcapng "$tx" 'frame.interface_name == "nic0:tx0"'
check "tshark finds nothing wrong with them" found all.pcapng 0 '_ws.malformed'
check "all are whole" found all.pcapng 0 'frame.cap_len != frame.len'
check "pings are there" found all.pcapng 3 'icmp.type == 8 && frame.interface_name == "nic0:tx0" && frame.packet_flags_direction == 2'
check "and their answers" found all.pcapng 3 'icmp.type == 0 && frame.interface_name == "nic0:rx0" && frame.packet_flags_direction == 1'
check "frames to be segmented are there in one piece" some all.pcapng 'vnet.gso contains "tcpv4:" && tcp.len > 4000 && vnet.queue == "tx0" && vnet.headers > 50'
check "and have partial checksums" found all.pcapng 0 'vnet.gso && vnet.queue == "tx0" && !(vnet.csum == "34+16")'
check "with the descriptors that they came in" found all.pcapng 0 '!vnet.head || vnet.descriptors < 1 || !vnet.chain'
check "some frames had a doorbell, an interrupt, or both" some all.pcapng 'vnet.doorbell && vnet.interrupt'
# lengths: a chain to send holds the per-packet header and the frame, and one to receive no less.
lengths() {
  shark all.pcapng -T fields -E occurrence=a -E aggregator=/ -e frame.len -e vnet.queue -e vnet.chain |
    awk '{
      sum = 0
      n = split($3, chains, "/")
      for (i = 1; i <= n; i++) {
        if (chains[i] ~ /more/) next
        sub(/.*:/, "", chains[i])
        m = split(chains[i], lens, "+")
        for (j = 1; j <= m; j++) sum += lens[j]
      }
      seen++
      header = sum - $1
      if ($2 == "tx0" ? header != 12 && header != 20 : header < 12) { print "odd:", $0; bad++ }
    }
    END { print seen, "frames"; exit bad > 0 || seen == 0 }'
}
check "descriptors are as long as frames need" lengths
stages_ordered() {
  shark all.pcapng -T fields -e vnet.doorbell -e vnet.fetch -e vnet.backend -e vnet.done -e vnet.used -e vnet.interrupt |
    awk -F'\t' '{
      before = "none"
      for (i = 1; i <= 6; i++) if ($i != "") {
        if (before != "none" && $i + 0 < before) { print "odd:", $0; bad++ }
        before = $i + 0
      }
      # Only these two may be missing.
      if ($2 == "" || $3 == "" || $4 == "" || $5 == "") { print "lacks:", $0; bad++ }
    }
    END { print NR, "frames"; exit bad > 0 || NR == 0 }'
}
check "the stages of each frame are in order" stages_ordered
# The clock of the file is that of the wall.
clock() {
  local first
  first=$(shark all.pcapng -c 1 -T fields -e frame.time_epoch)
  echo "$first, from $started on, now $(date +%s)"
  [ "${first%%.*}" -ge "$((started - 1))" ] && [ "${first%%.*}" -le "$(date +%s)" ]
}
check "and the time is right" clock

timeline() {
  ctl timeline "$dir/all.pcapng" "$dir/all.json" | tee "$dir/told" || return
  grep "^$((rx + tx)) frames" "$dir/told" || return
  IN_ROOT_EXTRA=$dir in_root python3 -c '
import json
events = json.load(open("/extra/all.json"))["traceEvents"]
ends = {phase: {e["id"] for e in events if e["ph"] == phase} for phase in "stf"}
names = {e["args"]["name"] for e in events if e["ph"] == "M" and "name" in e["args"]}
print(len(events), "events", sorted(names))
assert ends["s"] and ends["s"] == ends["t"] == ends["f"]
assert {"nic0", "rx0", "tx0", "thread vnet-q0"} <= names'
}
check "it becomes a timeline" timeline

# What went wrong stands between the frames.
check "a capture of a card with faults" ctl capture nic0 "$dir/faults.pcapng" --background
check "which are duplicate interrupts" ctl faults nic0 'duplicate-interrupt queue=rx count=2'
guest_check "nobody minds" pings
check "no more of them" ctl faults nic0 --off
check "it stops" ctl capture nic0 --stop
check "they are in the file" found faults.pcapng 2 \
  'vnet_event.kind == "fault" && vnet_event.queue == "rx0" && vnet_event.text contains "duplicate-interrupt"'
check "on an interface of their own, in words" found faults.pcapng 2 \
  'frame.interface_name == "nic0:events" && _ws.col.info contains "fault: queue=rx0" && !_ws.malformed && !vnet.queue'
check "and frames are frames" found faults.pcapng 3 'icmp.type == 0 && vnet.queue == "rx0" && !vnet_event'

guest 'ping -f 10.77.0.1 >/dev/null 2>&1 &'
check "a capture of a queue ends by itself" timeout 30 "$REPO/scripts/vnetctl" --socket "$dir/control" \
  capture nic0:tx0 "$dir/some.pcapng" --snaplen 60 --count 20
check "with as many frames as were wanted" found some.pcapng 20 'frame.interface_name == "nic0:tx0"'
check "and none of another" found some.pcapng 20 frame
check "of which the start was kept" found some.pcapng 20 'frame.cap_len == 60 && frame.len == 98'
pipe() {
  ctl capture nic0:rx -n 5 - 2>"$dir/summary" >"$dir/pipe.pcapng" && cat "$dir/summary" && grep '^5 frames' "$dir/summary"
}
check "a capture goes to standard output" pipe
check "too" found pipe.pcapng 5 'icmp.type == 0'
ctrl_c() {
  local pid status
  "$REPO/scripts/vnetctl" --socket "$dir/control" capture nic0 "$dir/ctrl-c.pcapng" >"$dir/told" &
  pid=$!
  capturing 1
  kill -TERM $pid
  wait $pid
  status=$?
  cat "$dir/told"
  [ $status = 0 ] && grep -E '^[1-9][0-9]* frames, .*: stopped' "$dir/told"
}
check "a capture that is interrupted says what it has" ctrl_c
guest 'killall -INT ping'

# A pipe that nobody reads.
mkfifo "$dir/fifo"
exec 9<>"$dir/fifo"
check "a capture for somebody who does not read" ctl capture nic0 "$dir/fifo" --background
second() {
  ! ctl capture nic0 "$dir/second.pcapng" 2>"$dir/told" && cat "$dir/told" && grep 'there is one of nic0 already' "$dir/told"
}
check "there is one at a time" second
guest_check "traffic at full speed goes on" 'from_card 80000000 7; to_card 20000000'
drops_counted() {
  ctl capture nic0 --show | tee /dev/stderr | awk '/^[rt]x0/ { seen += $2; dropped += $3 } END { exit !(dropped > 0 && dropped < seen) }'
}
check "what is not in the file is counted" drops_counted
check "it can be stopped" ctl capture nic0 --stop
exec 9<&-

full_disk() {
  # shellcheck disable=SC2016 # expanded by the inner shell
  in_namespace sh -c '
    mkdir -p "$2/full" && mount -t tmpfs -o size=1m full "$2/full" || exit 99
    timeout 60 "$1/scripts/vnetctl" --socket "$3" capture nic0 "$2/full/x.pcapng" >"$2/told" 2>&1
    status=$?
    cp "$2/full/x.pcapng" "$2/full.pcapng"
    exit $status' sh "$REPO" "$dir" "$dir/control" &
  local pid=$! status
  capturing && guest "set -e
$IN_GUEST
from_card 10000000 8"
  wait $pid
  status=$?
  cat "$dir/told"
  [ $status = 1 ] && grep 'vnetctl: capture: No space left on device' "$dir/told"
}
check "a full disk ends a capture, which is told" full_disk
check "what there was room for can be read" some full.pcapng 'vnet.queue == "rx0"'
guest_check "and the card does not care" 'pings; from_card 300000 9; to_card 300000'

# Puts the files of the record where tshark sees them, which has no more rights there than anybody.
copied() {
  cp "$dir"/disk/record-*.pcapng "$dir" && chmod a+r "$dir"/record-*.pcapng
}
# What is in the pipe gets to the disk while nothing else comes.
at_rest() {
  local before now=''
  for _ in {1..10}; do
    before=$now
    sleep 1
    now=$(stat -c '%n %s' "$dir"/disk/record-*.pcapng)
    [ "$now" != "$before" ] || return 0
  done
  return 1
}
# From the start the card had all that passed written down, far more than fits.
recorded() {
  local files file last
  at_rest && copied || return
  mapfile -t files < <(cd "$dir" && ls record-*.pcapng)
  (cd "$dir" && ls -l "${files[@]}")
  [ ${#files[@]} = 3 ] || return
  last=${files[2]#record-}
  [ "$((10#${last%.pcapng}))" -gt 5 ] || return
  for file in "${files[@]}"; do
    [ "$(stat -c %s "$dir/$file")" -lt 4300000 ] && found "$file" 0 _ws.malformed && some "$file" tcp || return
  done
}
check "what passes is in the last files of a record" recorded

# drops: frames that the card counts as lost.
drops() {
  ctl counters nic0 | awk '/^nic0 +[rt]x0 / { drops += $6 } END { print drops + 0 }'
}
logged() {
  grep -a "record: .*$1" "$GUEST_DIR/vnetd0.log"
}
# Now and then a file ends just there, and the oldest one makes room for the next.
record_full() {
  local try
  for try in 1 2 3 4 5; do
    ! cat /dev/zero >"$dir/disk/ballast-$try" || return
    guest "set -e
$IN_GUEST
from_card 2000000 5" && sleep 1 || return
    ! logged 'No space left on device (os error 28); until there is room, frames are not written' || return 0
  done
  return 1
}
before=$(drops)
check "a disk that is full is told, and traffic goes on" record_full
check "the frames are lost to the record, and not to the card" [ "$(drops)" = "$before" ]
record_again() {
  local i
  rm "$dir"/disk/ballast-*
  for i in $(seq 20); do
    guest "ping -c 1 -W 5 -p 7265636f7665726564 10.77.0.1" || return
    sleep 0.5
    logged 'frames are written again; [1-9][0-9]* were not' && break
  done
  guest "ping -c 1 -W 5 -p 7265636f7665726564 10.77.0.1" && logged 'written again' && sleep 1
}
check "it goes on when there is room" record_again
rerecorded() {
  local file last=''
  rm "$dir"/record-*.pcapng
  copied || return
  for file in "$dir"/record-*.pcapng; do
    last=${file##*/}
    found "$last" 0 _ws.malformed || return
  done
  some "$last" 'icmp.type == 8 && frame contains "recovered"'
}
check "and what passes then is in a file that is whole" rerecorded
finish
