# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# For tests with more than one guest at a time: what guest.sh knows of a guest is put away by a name, and
# `on NAME COMMAND...` takes it out again. After check.sh.

# What there is of each, by NAME:VARIABLE.
declare -A GUEST_STATE=()
GUEST_NAMES=()
# The guest in question; what its addresses begin with differs.
GUEST_NAME=''

guest_put_away() {
  local variable
  for variable in GUEST_DIR QEMU_PID CONTROL_IN CONTROL_OUT QMP_IN QMP_OUT; do
    GUEST_STATE[$GUEST_NAME:$variable]=${!variable:-}
  done
  GUEST_STATE[$GUEST_NAME:VNETD_PIDS]=${VNETD_PIDS[*]}
}
guest_take_out() {
  local variable
  GUEST_NAME=$1
  for variable in GUEST_DIR QEMU_PID CONTROL_IN CONTROL_OUT QMP_IN QMP_OUT; do
    printf -v "$variable" %s "${GUEST_STATE[$1:$variable]}"
  done
  read -ra VNETD_PIDS <<<"${GUEST_STATE[$1:VNETD_PIDS]}"
}

# boot_as NAME [SETTING=VALUE...]: boots one more.
boot_as() {
  GUEST_NAME=$1
  GUEST_NAMES+=("$1")
  shift
  boot "$@"
  guest_put_away
}

# on NAME COMMAND...: does something with that guest.
on() {
  local status
  guest_take_out "$1"
  shift
  "$@"
  status=$?
  guest_put_away
  return $status
}

# In place of that in guest.sh, as two cards of a network have two addresses.
guest_mac() {
  printf '52:54:00:76:%02x:%02x' "${#GUEST_NAMES[@]}" "$1"
}

# guests_stop: ends all that still runs, also the guest that is just being booted.
guests_stop() {
  local name
  guest_put_away
  for name in "${GUEST_NAMES[@]}"; do
    guest_take_out "$name"
    guest_stop
  done
}

# finish_guests: what finish does, for each.
finish_guests() {
  local name
  for name in "${GUEST_NAMES[@]}"; do
    on "$name" finish_guest
  done
  exit $((CHECKS_FAILED > 0))
}
