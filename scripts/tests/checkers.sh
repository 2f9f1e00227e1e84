#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# The checkers of the debug kernel are awake: a module (checkers/) makes one mistake after the other, in
# Rust where the driver could make it, and every one is found, by the kernel and by what looks through its
# log at the end of all guest tests. Runs on the debug kernel only.
. "$(dirname "$0")/../lib/check.sh"

if [ "$FLAVOUR" != debug ]; then
  skip "the checkers are those of the debug kernel: VNET_TEST_FLAVOUR=debug"
  exit
fi
built=$CACHE/module-checkers
compile() {
  "$REPO/scripts/build-module" --kernel debug --out "$built" "$REPO/scripts/tests/checkers"
}

# complained PATTERN SCRIPT: the script makes the kernel's log say so, as a complaint.
complained() {
  local log=$GUEST_DIR/console.log before said
  before=$(stat -c %s "$log")
  guest "$2"
  # The console is slow: what the guest does next comes behind it.
  for _ in $(seq 100); do
    said=$(tail -c +"$((before + 1))" "$log")
    [[ ! $said =~ $1 ]] || ! kernel_complaints <<<"$said" >/dev/null || return 0
    sleep 0.2
  done
  echo "no complaint like this: $1"
  printf '%s\n' "$said"
  return 1
}
mistake() {
  check "$2" complained "$3" "insmod /root/checkers.ko mistake=$1 && rmmod checkers"
}

check "the module with mistakes compiles" compile
# KASAN reports once by itself.
FILES=("$built/checkers.ko") APPEND=kasan_multi_shot
boot SMP=2
check "lockdep and DMA debugging are on, with two CPUs" checkers_awake
# Lockdep ends with its first report, and with a report of KASAN's.
mistake 11 "RCU: a pointer is read without its lock" 'suspicious RCU usage'
mistake 1 "lockdep: two mutexes in either order, in Rust" 'possible circular locking dependency'
mistake 2 "atomic sleep: a mutex under a spinlock, in Rust" 'sleeping function called from invalid context'
mistake 12 "DMA API: a mapping is undone in the other direction" 'DMA-API: .*different direction'
mistake 13 "UBSAN: a shift that is too far" 'UBSAN: shift-out-of-bounds'
mistake 14 "debug objects: a timer is freed that runs" 'ODEBUG: free active'
mistake 15 "lists: an entry is added twice" 'list_add double add'
mistake 16 "refcount: from zero to one" 'refcount_t: addition on 0'
mistake 4 "KASAN: memory is read that was freed, in Rust" 'KASAN: slab-use-after-free in .*checkers'
mistake 5 "KASAN: a byte is written behind an array, in Rust" 'KASAN: slab-out-of-bounds in .*checkers'
leak_found() {
  guest 'insmod /root/checkers.ko mistake=3 && rmmod checkers' || return
  grep "^unreferenced object" < <(nothing_leaked)
}
check "kmemleak: boxes are forgotten, in Rust" leak_found
lockdep_missed() {
  grep "debug_locks: *0$" < <(checkers_awake)
}
check "checks that the checkers are on notice that lockdep is not" lockdep_missed
# The last: who panics does not come back.
mistake 6 "overflow of an addition, in Rust" 'attempt to add with overflow'
as_a_whole() {
  kernel_complaints <"$GUEST_DIR/console.log"
}
check "the log as a whole is full of complaints" as_a_whole
guest_off
end_servers
exit $((CHECKS_FAILED > 0))
