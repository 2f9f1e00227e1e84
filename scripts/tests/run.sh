#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# scripts/run as a user meets it.
. "$(dirname "$0")/../lib/check.sh"

run=$REPO/scripts/run
work=$(mktemp -d "${TMPDIR:-/tmp}/vnet-test-run.XXXXXX")
trap 'rm -rf "$work"' EXIT
# Runs of this test make their directories here, where they can be counted.
export TMPDIR=$work
# Of runs that end in order, the card tells whether the driver broke a rule.
strict() {
  "$run" --sanitize strict "$@"
}

exec_output() {
  local out
  out=$(strict --exec 'echo to stdout; echo to stderr >&2; exit 7' 2>"$work/err")
  [ $? = 7 ] && [ "$out" = "to stdout" ] && grep -x "to stderr" "$work/err" &&
    grep -x "sanitizer: no rule was broken" "$work/err"
}
check "--exec: stdout is the command's, status too" exec_output

exec_binary() {
  head -c 5000000 /dev/urandom >"$work/data"
  strict --file "$work/data" --exec 'cat /root/data' 2>/dev/null | cmp - "$work/data"
}
check "--file and --exec carry 5 MB unchanged" exec_binary

exec_timeout() {
  "$run" --timeout 2 --exec 'sleep 600'
  [ $? = 124 ]
}
check "--timeout ends a command that hangs" exec_timeout

# The version, which nobody writes.
breaks_a_rule() {
  strict --no-up --exec '
    for card in /sys/bus/pci/devices/*; do
      [ "$(cat $card/class)" = 0x020000 ] || continue
      echo 1 >$card/enable
      read -r bar _ <$card/resource
      devmem $((bar + 4)) 32 1
    done' 2>"$work/err"
  [ $? = 3 ] && grep "^sanitizer: register-read-only, 1 times, " "$work/err"
}
check "--sanitize strict: a broken rule is told, and is the status" breaks_a_rule

fails() {
  "$@" --exec true >"$work/out" 2>"$work/err"
  [ $? = 125 ] && cat "$work/err"
}
check "--exec: QEMU that does not start is not the command's failure" fails env VNET_QEMU=/bin/false "$run"
check "... nor a device server" fails env VNET_VNETD=/bin/false "$run"

crash() {
  "$run" --exec 'echo c >/proc/sysrq-trigger' 2>"$work/err"
  [ $? = 125 ] && grep "Kernel panic" "$work/err"
}
check "a guest that crashes says how" crash

no_directory() {
  TMPDIR=$work/nowhere "$run" --exec true 2>"$work/err"
  [ $? = 125 ] && grep "no temporary directory" "$work/err"
}
check "without a temporary directory nothing is begun" no_directory

two_at_once() {
  local first second
  strict --exec 'ping -c 3 -W 5 10.77.0.1 && ip -o -4 addr show dev vnet0' &
  first=$!
  strict --exec 'ping -c 3 -W 5 10.77.0.1 && ip -o -4 addr show dev vnet0' &
  second=$!
  wait "$first" && wait "$second"
}
check "two runs at once" two_at_once

show() {
  local since=$SECONDS
  strict </dev/null >"$work/show" 2>&1
  local status=$?
  cat "$work/show"
  [ "$status" = 0 ] || return 1
  echo "$((SECONDS - since)) s"
  grep "state UP" "$work/show" && grep "3 received" "$work/show" &&
    grep "ARP, Request" "$work/show" && grep "driver: vnet" "$work/show"
}
check "the show shows the card at work" show

every_option() {
  strict --smp 2 --mem 768M --queues 2 --accel tcg --kernel cloud-amd64 --net gateway --nic vnet \
    --nics 1 --web 0 --exec '[ $(nproc) = 2 ] && [ -e /sys/class/net/vnet0/queues/tx-1 ]' 2>&1 |
    tee /dev/stderr | grep '^web page at http://127.0.0.1:'
}
check "options for CPUs, memory, queues, accelerator" every_option

for backend in loopback null; do
  check "--net $backend" strict --net $backend --exec 'ip link show dev vnet0 | grep "[<,]UP"'
done
for rival in virtio-net vmxnet3 e1000e igb; do
  check "--nic $rival" "$run" --nic $rival --exec 'ping -c 2 -W 5 10.0.2.2'
done

refused() {
  "$run" "$@" </dev/null >"$work/out" 2>"$work/err"
  [ $? = 1 ] && [ ! -s "$work/out" ] && [ "$(wc -l <"$work/err")" = 1 ]
}
check "unknown option: one line" refused --nonsense 1
check "unknown NIC: one line" refused --nic ne2000
check "unknown flavour: one line" refused --kernel rt
check "unknown guest: one line" refused --guest windows
check "the debug kernel for a Debian guest: one line" refused --guest debian --kernel debug
check "--ssh to the small guest: one line" refused --ssh 2222
check "bad number: one line" refused --smp many
check "no such thing as --sanitize loosely: one line" refused --sanitize loosely
check "--sanitize without the card: one line" refused --sanitize strict --nic virtio-net
check "missing file: one line" refused --file /does/not/exist --exec true

# signalled SIGNAL: a run with a guest in it gets the signal, as from a terminal; nothing is left.
signalled() {
  local group n=0
  # A background command ignores SIGINT unless told otherwise.
  env --default-signal=INT setsid "$run" --exec 'sleep 600' >"$work/out" 2>&1 &
  group=$!
  until pgrep -g "$group" -f "$work/vnet\..*control" >/dev/null; do
    sleep 0.5
    [ $((n += 1)) -lt 120 ] || break
  done
  sleep 2
  kill "-$1" -- "-$group"
  for ((n = 0; n < 50; n++)); do
    pgrep -g "$group" >/dev/null || break
    sleep 0.2
  done
  if pgrep -a -g "$group"; then
    kill -KILL -- "-$group"
    return 1
  fi
  [ -z "$(find "$work" -maxdepth 1 -name 'vnet.*')" ]
}
check "SIGINT leaves no process and no file" signalled INT
check "SIGTERM leaves no process and no file" signalled TERM

# Modules of two directories, of which the second is older, in the same place.
two_trees() {
  local tree
  for tree in one two; do
    mkdir "$work/$tree"
    echo 'obj-m := tree.o' >"$work/$tree/Kbuild"
    printf '#include <linux/module.h>\nMODULE_LICENSE("GPL");\nMODULE_DESCRIPTION("%s");\n' "$tree" >"$work/$tree/tree.c"
  done
  touch -d '1 hour ago' "$work/two"/*
  for tree in one two one; do
    "$REPO/scripts/build-module" --out "$CACHE/module-trees" "$work/$tree" || return
    grep -aq "description=$tree" "$CACHE/module-trees/tree.ko" || return
  done
}
check "what was built of another tree is not taken for this one's" two_trees
rm -rf "$CACHE/module-trees" "$work/one" "$work/two"

check "nothing is left of all these runs" test -z "$(find "$work" -maxdepth 1 -name 'vnet.*')"
exit $((CHECKS_FAILED > 0))
