#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# scripts/bench --native: the device server without a guest, beside DPDK and a plain copy.
set -uo pipefail
. "$(dirname "$(readlink -f "$0")")/common.sh"
. "$REPO/scripts/lib/root.sh"
. "$REPO/scripts/lib/cargo.sh"

usage() {
  cat <<'END'
usage: scripts/bench --native [OPTION]...

  --seconds S   length of a sample (2)
  --repeat N    samples of each row; the median counts (3)
  --only TEXT   rows whose name contains TEXT: direction, backend, bytes, queues, like
                "tx null 64 1"
  --no-dpdk     without DPDK, which is fetched into the build root the first time
  --out DIR     where native.json and native.md go (bench in the cache directory)
END
}

libraries=$ROOT/usr/lib/x86_64-linux-gnu
in_root_program=("$ROOT/usr/lib64/ld-linux-x86-64.so.2" --library-path "$libraries")

# A TAP for two queues in a network of its own, and the card's address on it, since nothing
# answers there.
if [ -n "${VNET_BENCH_TAP:-}" ]; then
  ip=("${in_root_program[@]}" "$ROOT/usr/bin/ip")
  make_tap() {
    "${ip[@]}" link set lo up
    "${ip[@]}" tuntap add dev vnetbench mode tap multi_queue || return
    "${ip[@]}" addr add 10.98.0.1/24 dev vnetbench || return
    "${ip[@]}" link set vnetbench mtu 65510 up || return
    "${ip[@]}" neigh add 10.98.0.2 lladdr 52:54:00:76:6e:00 dev vnetbench nud permanent
  }
  make_tap || die "cannot make a TAP interface"
  exec "$@"
fi

args=() dpdk=yes out=$CACHE/bench
while [ $# -gt 0 ]; do
  case $1 in
    --help | -h) usage && exit ;;
    --no-dpdk) dpdk=no && shift && continue ;;
    --*=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" && continue ;;
  esac
  [ $# -ge 2 ] || die "$1 needs a value (see --native --help)"
  case $1 in
    --seconds | --repeat | --only) args+=("$1" "$2") ;;
    --out) out=$2 ;;
    *) die "unknown argument: $1 (see --native --help)" ;;
  esac
  shift 2
done

"$REPO/images/build-root" || exit
[ $dpdk = no ] || "$REPO/images/packages" bench || exit
step "building the server and the driver"
{ "$REPO/scripts/build-device" &&
  in_cargo cargo build --release --locked -p vnet-testkit --example native_bench; } \
  >"$CACHE/build-bench.log" 2>&1 || die "building failed: see $CACHE/build-bench.log"
mkdir -p "$out"

if [ "$(cargo_where)" = host ]; then
  program=("$CACHE/target/release/examples/native_bench")
else
  program=("${in_root_program[@]}" "$CACHE/target-root/release/examples/native_bench")
fi
[ $dpdk = no ] || args+=(--dpdk "${in_root_program[*]} $ROOT/usr/bin/dpdk-testpmd -d $libraries/dpdk/pmds-25.0")
export VNET_VNETD=$REPO/scripts/vnetd

user=()
[ "$(id -u)" = 0 ] || user=(--user --map-root-user)
if [ -c /dev/net/tun ] && unshare "${user[@]}" --net true 2>/dev/null; then
  args+=(--tap vnetbench --feed 10.98.0.2:9)
  program=(env VNET_BENCH_TAP=1 unshare "${user[@]}" --net "$0" "${program[@]}")
else
  step "no TAP on this machine: its rows are left out"
fi
"${program[@]}" "${args[@]}" --json "$out/native.json" >"$out/native.md" || exit
cat "$out/native.md"
