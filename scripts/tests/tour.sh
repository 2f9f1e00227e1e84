#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# scripts/tour: what is changed in the source arrives in the running guest, and what does not build does not.
# scripts/new-driver: what it makes builds, loads and passes its own test.
. "$(dirname "$0")/../lib/check.sh"

# A copy of what the module is made from, to be edited.
COPY=$CACHE/tour-copy
DRIVERS=$CACHE/new-drivers
LOG=$(mktemp)
TOUR=''
cleanup() {
  [ -z "$TOUR" ] || { kill "$TOUR" && wait "$TOUR"; } 2>/dev/null
  rm -rf "$COPY" "$LOG" "$DRIVERS"
}
trap cleanup EXIT
rm -rf "$COPY" "$DRIVERS"
mkdir -p "$COPY/device"
# With its times, so that what was compiled of such a copy before is not compiled again; but what is to be
# edited was so then, too.
cp -a "$REPO/guest-driver" "$COPY/guest-driver"
cp -a "$REPO/device/contract" "$COPY/device/contract"
SOURCE=$COPY/guest-driver/phases/phase2_net_device.rs
touch "$SOURCE"

# In the guest: says what is new, and goes on when it sees what is changed.
# shellcheck disable=SC2016 # for the guest's shell
"$REPO/scripts/tour" 2 --kernel "$FLAVOUR" --source "$COPY" --timeout 400 --exec '
  lsmod | grep phase2 || echo booted
  until modinfo -F description vnet_phase2.ko | grep "of mine"; do sleep 1; done
  lsmod | grep phase2 || reload
  ip addr add 10.0.0.1/24 dev vnet0
  ip link set vnet0 up
  echo up
  until dmesg | grep "opened for the second time"; do sleep 1; done
  ip -4 -o addr show dev vnet0
  cat /sys/class/net/vnet0/operstate
  until [ -e /root/end ]; do sleep 1; done' >"$LOG" 2>&1 &
TOUR=$!

# True while the tour runs. A process that has ended stays to be asked for its status.
is_running() {
  [ -e "/proc/$TOUR" ] && ! grep -q '^State:.Z' "/proc/$TOUR/status"
}

# says PATTERN [SECONDS]: waits until the tour has said so.
says() {
  for _ in $(seq $((${2:-120} * 5))); do
    ! grep -E "$1" "$LOG" || return 0
    is_running || break
    sleep 0.2
  done
  cat "$LOG"
  return 1
}

check "boots with the phase's module, for the page to load" says '^booted$' 240
sed -i 's/description: "vnet tour/description: "vnet tour of mine/' "$SOURCE"
check "a change is built, and not loaded, as nothing was" says '^\[tour\] built in [0-9]+ s; it was not loaded'
check "it is what reload loads" says '^up$'
sed -i 's/"open\\n"/"opened for the second time\\n"/' "$SOURCE"
check "a change is built and loaded" says '^\[tour\] built in [0-9]+ s, and loaded'
check "the guest runs what was changed" says 'vnet0: opened for the second time'
check "the interface is up again, with its address" says 'inet 10.0.0.1/24'
sed -i 's/skb.drop_with(DropReason::DeviceNotReady);//' "$SOURCE"
check "a frame that nobody disposes of does not link" says 'ERROR: modpost: .*rust_build_error'
sed -i 's/fn stop(/fn stop stop(/' "$SOURCE"
check "what does not compile is shown" says '^error: expected'
check "the guest is still the same" is_running
kill "$TOUR" && wait "$TOUR"
TOUR=''
check "the pages about the finished driver have one, too, which breaks no rule" "$REPO/scripts/tour" 10 --kernel "$FLAVOUR" --sanitize strict --source "$COPY" --exec '
  ethtool -i vnet0 | grep -x "driver: vnet" && reload && ping -c 1 -W 5 10.77.0.1'

# A driver of one's own.
refuses() {
  local status
  "$REPO/scripts/new-driver" "$@"
  status=$?
  [ "$status" = 1 ] && [ ! -e "$DRIVERS/refused" ]
}
for name in '' 9p Skeleton skele-ton a skeleton_long fn netdev vnet0 veth '../x'; do
  check "new-driver refuses the name '$name'" refuses "$name" "$DRIVERS/refused"
done
check "new-driver makes a driver" "$REPO/scripts/new-driver" skeleton "$DRIVERS/skeleton"
check "new-driver refuses a folder that there is" refuses skeleton "$DRIVERS/skeleton"
check "its code is formatted" in_root rustfmt --check --edition 2021 "/cache/${DRIVERS##*/}/skeleton/skeleton_main.rs"
VNET=$REPO VNET_TEST_LOGS='' "$DRIVERS/skeleton/test" || CHECKS_FAILED=$((CHECKS_FAILED + 1))
exit $((CHECKS_FAILED > 0))
