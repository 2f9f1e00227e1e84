# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# For scripts/tests/*.sh: one guest, and checks that print one line each. scripts/test counts the
# lines that start with "ok ", "not ok " and "skip ".

set -uo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
. "$REPO/scripts/lib/root.sh"
. "$REPO/scripts/lib/qemu-args.sh"
. "$REPO/scripts/lib/guest.sh"

FLAVOUR=${VNET_TEST_FLAVOUR:-cloud-amd64}
KEEP_LOGS=${VNET_TEST_LOGS:-}
SANITIZE=${VNET_TEST_SANITIZE:-strict} # a test that makes the driver break rules says report
CHECKS_FAILED=0
IN_GUEST=$(cat "$REPO/scripts/lib/in-guest.sh")
LOG_EXPECTED='' # complaint of the kernel that a test is about, as a pattern

# prepared FLAVOUR: a test of the tree that is started by hand is of the tree's driver and server, unless VNET_VNETD names
# another server. scripts/test, which sets VNET_TEST_LOGS, has built them; own_network runs a test twice.
prepared() {
  [ -z "${VNET_TEST_LOGS+set}${VNET_VNETD:-}${VNET_TEST_TAP:-}" ] || return 0
  [ "$(dirname "$0")" -ef "$REPO/scripts/tests" ] || return 0
  "$REPO/scripts/prepare" vnet "$1" >&2 || exit
}
prepared "$FLAVOUR"

trap guest_stop EXIT
# interrupted STATUS: ends the test. Once: timeout sends what it gets to the test, and to all of its process group.
interrupted() {
  trap '' INT TERM HUP
  exit "$1"
}
trap 'interrupted 130' INT
trap 'interrupted 143' TERM HUP

ok() { printf 'ok %s\n' "$*"; }
not_ok() {
  printf 'not ok %s\n' "$*"
  CHECKS_FAILED=$((CHECKS_FAILED + 1))
}
skip() { printf 'skip %s\n' "$*"; }

# check NAME CMD...: CMD must succeed. Its output is shown when it does not.
check() {
  local name=$1 output
  shift
  if output=$("$@" 2>&1); then
    ok "$name"
  else
    not_ok "$name"
    printf '%s\n' "$output" | sed 's/^/    /'
  fi
}

# guest_check NAME SCRIPT [SECONDS]: the same for a script in the guest. The first command that
# fails ends it. lib/in-guest.sh has functions for it.
guest_check() {
  check "$1" guest "set -e
$IN_GUEST
$2" "${3:-60}"
}

# boot [NAME=VALUE...]: a guest with the driver loaded and, from the gateway, addresses; ends the
# test if that fails. NAME is one of the settings at the head of guest.sh.
boot() {
  local setting
  for setting in "$@"; do
    printf -v "${setting%%=*}" %s "${setting#*=}"
  done
  guest_start
  local dhcp='' output
  [ "$(guest_backend 0)" != gateway ] || dhcp=dhcp
  if ! output=$(guest "vnet-up ${NIC/-/_} $NICS $dhcp" 2>&1); then
    not_ok "driver loads and interfaces come up"
    { printf '%s\n' "$output"; tail -n 30 "$GUEST_DIR/console.log"; } | sed 's/^/    /'
    exit 1
  fi
}

# faults [LINE...]: has the cards misbehave like this from now on, in a guest that was booted with
# FAULTS=yes VNETD_LOG=info; without lines they behave again. docs/faults.md has the lines. One that is not
# taken fails the test: what comes would be about cards that behave.
faults() {
  local n told
  printf '%s\n' "$@" >"$GUEST_DIR/faults"
  FAULTS_BEFORE=$(wc -l <"$GUEST_DIR/vnetd0.log")
  for n in "${!VNETD_PIDS[@]}"; do
    told=$(faults_read "$n")
    kill -HUP "${VNETD_PIDS[n]}"
    for _ in $(seq 200); do
      [ "$(faults_read "$n")" = "$told" ] || continue 2
      sleep 0.05
    done
    not_ok "card $n takes these faults: ${*:-none}"
    tail -n 5 "$GUEST_DIR/vnetd$n.log" | sed 's/^/    /'
    return 1
  done
}
faults_read() {
  grep -c 'faults: read again' "$GUEST_DIR/vnetd$1.log"
}

# faults_done: of the plan that the last call of faults ended, how often its first fault came to pass, and of how
# many events. Nothing if there was none.
faults_done() {
  tail -n "+$((FAULTS_BEFORE + 1))" "$GUEST_DIR/vnetd0.log" |
    sed -n 's/.*fault in line 1, .*: \([0-9]*\) of \([0-9]*\) events.*/\1 \2/p' | tail -n 1
}
# Succeeds if it did at all.
faults_came() {
  local times=0
  read -r times _ < <(faults_done)
  echo "came to pass ${times:-0} times"
  [ "${times:-0}" -gt 0 ]
}

# kernel_complaints: the complaints in a kernel log on stdin.
kernel_complaints() {
  grep -avE -- "${LOG_EXPECTED:-^$}" |
    grep -aE -A 20 'WARNING:|BUG:|Oops|Call Trace|general protection|Kernel panic|UBSAN|rust_kernel: panicked|stalled pool shutdown|refcount_t:|NETDEV WATCHDOG|blocked.* for more than|INFO: trying to register|rcu.*stall|unregister_netdevice: waiting'
}

# kernel_log_clean [LAST]: succeeds if the kernel had nothing to complain about, up to the message LAST. The guest
# gives one if there is none to expect, as loud as a warning: the console is slow, and what came before is there then.
kernel_log_clean() {
  local last=${1:-} whole=no
  if [ -z "$last" ]; then
    last="vnet: all was said, $EPOCHREALTIME"
    guest "echo '<4>$last' >/dev/kmsg"
  fi
  for _ in $(seq $((200 * $(slowness)))); do
    ! grep -aqsF "$last" "$GUEST_DIR/console.log" || { whole=yes && break; }
    sleep 0.05
  done
  [ $whole = yes ] || echo "the console does not come to '$last'"
  ! kernel_complaints <"$GUEST_DIR/console.log" && [ $whole = yes ]
}

# The device servers must be alive (those that the test left running) and quiet about panics.
devices_fine() {
  local n
  for n in "${!VNETD_PIDS[@]}"; do
    kill -0 "${VNETD_PIDS[n]}" || return 1
  done
  ! grep -H panicked "$GUEST_DIR"/vnetd*.log
}

# Succeeds if the servers that end_servers has ended found nothing.
no_rule_broken() {
  local n
  for n in "${!SERVERS_UNHAPPY[@]}"; do
    tail -n 20 "$GUEST_DIR/vnetd$n.log"
  done
  [ ${#SERVERS_UNHAPPY[@]} = 0 ]
}

# own_network SUBJECT: runs the script that calls this once more, in a network namespace of its own
# in which it may make TAP interfaces, or skips it where the machine gives none.
own_network() {
  local user=()
  [ -z "${VNET_TEST_TAP:-}" ] || return 0
  [ "$(id -u)" = 0 ] || user=(--user --map-root-user)
  if [ ! -c /dev/net/tun ] || ! unshare "${user[@]}" --net true 2>/dev/null; then
    skip "$1: this machine has no /dev/net/tun or gives no network namespace"
    exit
  fi
  VNET_TEST_TAP=1 exec unshare "${user[@]}" --net "$0"
}

# in_its_network PROCESS: waits until it is in another network namespace than this shell.
in_its_network() {
  for _ in $(seq 200); do
    [ "$(readlink "/proc/$1/ns/net")" = "$(readlink /proc/self/ns/net)" ] || return 0
    sleep 0.05
  done
  return 1
}

# host_listens PORT [PROCESS]: waits until a program on this side accepts connections there. In an own network, or that
# of the process. Without a pipe: grep ends when it has found, and pipefail would take what then befalls the writer for
# "not found".
host_listens() {
  local port
  port=$(printf %04X "$1")
  for _ in $(seq 300); do
    ! grep -qsE ":$port [0-9A-F]+:0000 0A " "/proc/${2:-self}/net/"tcp{,6} || return 0
    sleep 0.1
  done
  not_ok "nothing listens on port $1"
  { jobs -l && cat "/proc/${2:-self}/net/tcp"; } | sed 's/^/    /'
  exit 1
}

# The debug kernel must know of nothing that was allocated by the driver, which is gone, and that no
# pointer leads to. It says so when an object has been like that for five seconds and two scans. LEAKS_EXPECTED are
# functions of the kernel that forget what they allocated.
nothing_leaked() {
  local leaks
  leaks=$(guest '
    set -e
    sleep 6
    for i in 1 2; do echo scan >/sys/kernel/debug/kmemleak; done
    cat /sys/kernel/debug/kmemleak') || return
  leaks=$(LEAKS_EXPECTED=${LEAKS_EXPECTED:-^$} awk '
    /^unreferenced object/ { if (leak !~ ENVIRON["LEAKS_EXPECTED"]) printf "%s", leak; leak = "" }
    { leak = leak $0 "\n" }
    END { if (leak !~ ENVIRON["LEAKS_EXPECTED"]) printf "%s", leak }' <<<"$leaks")
  printf '%s\n' "$leaks"
  [ -z "$leaks" ]
}

# Some checkers of the debug kernel end themselves when they are out of memory or have reported: what they
# did not see then proves nothing.
checkers_awake() {
  guest '
    grep debug_locks: /proc/lockdep_stats
    grep "debug_locks: *1$" /proc/lockdep_stats || exit
    echo "DMA debugging is disabled: $(cat /sys/kernel/debug/dma-api/disabled)"
    [ "$(cat /sys/kernel/debug/dma-api/disabled)" = N ]'
}

# finish_guest: unloads the driver, checks what holds at the end of every guest, and ends it.
finish_guest() {
  if [ "$NIC" = vnet ]; then
    check "rmmod at the end" guest 'if [ -e /sys/module/vnet ]; then rmmod vnet; fi'
    check "device server is alive, no panic" devices_fine
  fi
  if [ "$FLAVOUR" = debug ]; then
    check "kmemleak finds nothing" nothing_leaked
    check "lockdep and DMA debugging looked on to the end" checkers_awake
  fi
  check "kernel log has no WARN, BUG or Oops" kernel_log_clean
  guest_off
  if [ "$NIC" = vnet ]; then
    end_servers
    check "the driver broke no rule of the card" no_rule_broken
  fi
  guest_stop
}

# finish: the same, and ends the test.
finish() {
  finish_guest
  exit $((CHECKS_FAILED > 0))
}
