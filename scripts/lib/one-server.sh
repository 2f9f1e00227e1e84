# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# For tests whose guest has several cards of one device server: CARDS says for each what stands in its
# table of the configuration, beside the socket. After check.sh.

CARDS=()

# In place of that in guest.sh, for NIC 0 in the name of all.
vnetd_start() {
  [ "$1" = 0 ] || return 0
  local n tries=0
  for n in "${!CARDS[@]}"; do
    printf '[[card]]\nsocket = "%s/nic%s.sock"\nmac = "%s"\nqueues = %s\nmtu-max = %s\nsanitize = "%s"\n%s\n' \
      "$GUEST_DIR" "$n" "$(guest_mac "$n")" "$QUEUES" "$MTU_MAX" "$SANITIZE" "${CARDS[n]}"
  done >"$GUEST_DIR/vnetd.toml"
  child "$REPO/scripts/vnetd" --config "$GUEST_DIR/vnetd.toml" --log "$VNETD_LOG" \
    </dev/null >>"$GUEST_DIR/vnetd0.log" 2>&1
  VNETD_PIDS[0]=$!
  for n in "${!CARDS[@]}"; do
    until [ -S "$GUEST_DIR/nic$n.sock" ]; do
      if ! kill -0 "${VNETD_PIDS[0]}" 2>/dev/null || [ $((tries += 1)) -gt 200 ]; then
        cat "$GUEST_DIR/vnetd0.log" >&2
        die "the device server did not start"
      fi
      sleep 0.05
    done
  done
}
