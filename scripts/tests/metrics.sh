#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# Metrics and vnetctl top while the guest has traffic, and that they come to what the driver counts. The
# form of a scrape is for device/testkit/tests/metrics.rs.
. "$(dirname "$0")/../lib/check.sh"

ctl() {
  "$REPO/scripts/vnetctl" --socket "$GUEST_DIR/control.sock" "$@"
}
# scrape: the metrics, as Prometheus gets them.
scrape() {
  local port
  port=$(sed -n 's,.*metrics at http://127.0.0.1:\([0-9]*\)/metrics$,\1,p' "$GUEST_DIR/vnetd0.log")
  exec {http}<>"/dev/tcp/127.0.0.1/$port" || return
  printf 'GET /metrics HTTP/1.1\r\nHost: vnetd\r\n\r\n' >&"$http"
  cat <&"$http"
  exec {http}>&-
}
# metric NAME LABEL...: the sum of the samples of that name that have these labels.
metric() {
  scrape | awk -v name="$1" -v labels="${*:2}" '
    index($0, name "{") == 1 {
      n = split(labels, label, " ")
      for (i = 1; i <= n; i++) if (!index($0, label[i])) next
      sum += $NF
    }
    END { printf "%d\n", sum }'
}

VNETD_ARGS=(--metrics 127.0.0.1:0)
boot CONFIG=yes QUEUES=2 SMP=2 VNETD_LOG=info

guest_check "traffic in both directions" 'traffic'
under_load() {
  local before after
  before=$(metric vnet_queue_frames_total 'direction="receive"')
  for _ in $(seq 20); do
    sleep 0.5
    after=$(metric vnet_queue_frames_total 'direction="receive"')
    echo "$before, then $after"
    [ "$after" -le "$((before + 100))" ] || return 0
  done
  return 1
}
check "under traffic, frames are counted" under_load
scrape_is_whole() {
  scrape | tr -d '\r' >"$GUEST_DIR/scrape.log"
  head -n 1 "$GUEST_DIR/scrape.log"
  grep -x 'HTTP/1.1 200 OK' "$GUEST_DIR/scrape.log" && tail -n 1 "$GUEST_DIR/scrape.log" | grep -x '# EOF'
}
check "the scrape is whole" scrape_is_whole
batches_are_timed() {
  local count all
  count=$(metric vnet_queue_service_seconds_count 'direction="transmit"')
  all=$(metric vnet_queue_service_seconds_bucket 'direction="transmit"' 'le="+Inf"')
  echo "$count batches"
  [ "$count" -gt 10 ] && [ "$all" -ge "$count" ]
}
check "batches are timed" batches_are_timed
top_shows_them() {
  ctl top --once | tee /dev/stderr "$GUEST_DIR/top.log" | awk '
    NR == 1 { for (i = 1; i <= NF; i++) column[$i] = i }
    NR > 1 { frames += $column["FRAMES/S"]; rings += $column["RING"] ~ /^[0-9]+\/[0-9]+$/ }
    NR > 1 && $column["P99"] ~ /^[0-9.]+(ns|us|ms)$/ { timed++ }
    /\033/ { escapes++ }
    END { exit !(NR == 5 && frames > 0 && rings == 4 && timed >= 1 && !escapes) }'
}
check "vnetctl top shows rates, rings and times" top_shows_them
top_in_json() {
  ctl --json top --once | tee /dev/stderr | grep '^\[{"card":"nic0","queue":"rx0",.*"ring":{"waiting":[0-9]*,"size":[0-9]*}'
}
check "and as JSON" top_in_json

# same NAME DIRECTION COUNTER: a metric is what the card tells its driver, once no frame comes between.
same() {
  local told want
  for _ in 1 2 3 4 5 6 7 8; do
    told=$(metric "$1" "direction=\"$2\"")
    want=$(guest "ethtool -S vnet0 | awk '/^ *card_$3: / { n += \$2 } END { print n + 0 }'")
    echo "$1 $told, $3 $want"
    [ "$told" != "$want" ] || return 0
    sleep 0.5
  done
  return 1
}
guest_check "traffic ends" 'touch /tmp/stop; killall -q ping nc || :; within 10 refused killall -q ping nc'
all_the_same() {
  same vnet_queue_frames_total receive 'rx[0-9]*_packets' &&
    same vnet_queue_bytes_total receive 'rx[0-9]*_bytes' &&
    same vnet_queue_dropped_frames_total receive 'rx[0-9]*_drops' &&
    same vnet_queue_frames_total transmit 'tx[0-9]*_packets' &&
    same vnet_queue_interrupts_total receive 'rx[0-9]*_interrupts'
}
check "at rest, metrics are what the driver is told" all_the_same
check "the cable is pulled" ctl link nic0 down
dropped_by_the_cable() {
  guest 'ping -c 2 -i 0.2 -W 1 10.77.0.1'
  [ "$(metric vnet_card_link_up)" = 0 ] &&
    [ "$(metric vnet_queue_dropped_frames_total 'direction="transmit"' 'reason="unplugged"')" = \
      "$(metric vnet_queue_dropped_frames_total 'direction="transmit"')" ]
}
check "the link is down, and no drop has another reason" dropped_by_the_cable
finish
