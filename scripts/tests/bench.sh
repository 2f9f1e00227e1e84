#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# scripts/bench itself, as short as it goes: it measures, and its report is whole. What it measures
# is not judged here, for other tests may run beside it.
. "$(dirname "$0")/../lib/check.sh"

user=()
[ "$(id -u)" = 0 ] || user=(--user --map-root-user)
if [ ! -c /dev/net/tun ] || ! unshare "${user[@]}" --net true 2>/dev/null; then
  skip "bench: this machine has no /dev/net/tun or gives no network namespace"
  exit
fi
out=$(mktemp -d "${TMPDIR:-/tmp}/vnet-bench.XXXXXX")
trap 'rm -rf "$out"' EXIT
data=$out/benchmarks/results.json

bench() {
  "$REPO/scripts/bench" --nics vnet,virtio-net --smp 1 --repeat 1 --seconds 0.2 --out "$out" "$@" >"$out/table" || {
    cat "$out/table"
    return 1
  }
}
# json EXPRESSION: of results.json, as "d".
json() {
  in_root python3 -c "import json,sys; d = json.load(sys.stdin); $1" <"$data"
}
# figures METRIC ID: each NIC has a figure above zero in that row.
figures() {
  json "
line = next(l for l in d['lines'] if l['id'] == '$1')
assert sorted(line['nics']) == ['virtio-net', 'vnet'], line
assert all(f['median'] > 0 for f in line['nics'].values()), line
assert line['verdict']['rival'] == 'virtio-net' and line['verdict']['ratio'] > 0, line"
}

check "it measures two NICs in one guest" bench
check "no sample failed" json "assert d['failures'] == [], d['failures']"
check "bytes arrived intact on each" json "
assert sorted(s['nic'] for s in d['samples'] if s['metric'] == 'intact') == ['virtio-net', 'vnet']"
for row in tcp-out tcp-in tcp4-out tcp4-in udp-out udp-in udp-overload pktgen udp-rr-p50 udp-rr-p99 \
  ping cpu-in interrupts-out writes-out memory-used; do
  check "a row with figures: $row" figures $row
done
plots() {
  local plot
  for plot in "$out"/benchmarks/*.svg; do
    [ "$(grep -c '^<rect ' "$plot")" -ge 2 ] || { echo "$plot" && return 1; }
  done
  in_root python3 -c "
import sys, xml.dom.minidom
for text in sys.stdin.read().split('</svg>')[:-1]:
    xml.dom.minidom.parseString(text + '</svg>')" < <(cat "$out"/benchmarks/*.svg)
}
check "every plot is an SVG with bars" plots
links() {
  local file
  sed -n 's/.*](\([^)]*\)).*/\1/p' "$out/benchmarks.md" | while read -r file; do
    [ -e "$out/$file" ] || { echo "$file" && return 1; }
  done
}
check "the document's links lead to files" links
check "the table is in the document, too" grep -qF "$(grep -m1 '^| TCP guest' "$out/table")" "$out/benchmarks.md"
check "a NIC that does not exist is refused" bash -c "! '$REPO/scripts/bench' --nics rtl8139"
check "a metric that does not exist is refused" bash -c "! '$REPO/scripts/bench' --metrics speed"
exit $((CHECKS_FAILED > 0))
