#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# The page of vnetd in a headless Chromium, while a guest uses the cards. Part of the long run.
. "$(dirname "$0")/../lib/check.sh"

chromium_is_there() {
  command -v chromium || command -v chromium-headless-shell || command -v google-chrome || return
  command -v python3
}
if [ -z "${VNET_LONG:-}" ]; then
  skip "the page in a browser: part of the long run"
  exit
fi
if ! chromium_is_there >/dev/null && [ "$(id -u)" = 0 ]; then
  apt-get install -qy --no-install-recommends chromium python3 >&2
fi
if ! chromium_is_there >/dev/null; then
  skip "the page in a browser: there is no chromium"
  exit
fi

VNETD_ARGS=(--web 127.0.0.1:0)
boot CONFIG=yes NICS=2
guest_check "traffic in both directions, through vnet0" 'ip addr flush dev vnet1; pings; traffic'
if ! python3 -B "$REPO/scripts/tests/web/browse.py" \
  "$(sed -n 's,.*web page at \(http://.*/\)$,\1,p' "$GUEST_DIR/vnetd0.log")"; then
  CHECKS_FAILED=$((CHECKS_FAILED + 1))
fi
guest_check "traffic ends, and all is well" 'touch /tmp/stop; killall -q ping nc || :
  within 10 refused killall -q ping nc
  within 20 ping -c 1 -W 1 $gateway; pings'
# shellcheck disable=SC2034 # read by kernel_log_clean
LOG_EXPECTED='NETDEV WATCHDOG: .*: transmit queue 0 timed out'
check "a page that is open comes through a restart of vnetd" \
  python3 -B "$REPO/scripts/tests/web/restart.py" "$GUEST_DIR" "$REPO/scripts/vnetd"
finish
