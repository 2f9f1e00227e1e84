# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# passt, which gives a guest the host's network without privileges. Source after guest.sh; the build
# root has it once images/packages was there (test, debian).

PASST='' # the running passt

# passt_start SOCKET ARGUMENT...: at the other end of a card with --net stream:path=SOCKET, until
# passt_stop; says what is wrong if it does not start.
passt_start() {
  local socket=$1
  shift
  host_program /usr/bin/passt --foreground --socket "$socket" "$@" </dev/null >>"$socket.log" 2>&1
  PASST=$!
  for _ in $(seq 100); do
    [ ! -S "$socket" ] || return 0
    kill -0 "$PASST" 2>/dev/null || break
    sleep 0.1
  done
  cat "$socket.log" >&2
  return 1
}

# passt_stop: ends it. It does not end with this shell as others do: who changes his user is not told.
passt_stop() {
  [ -z "$PASST" ] || kill "$PASST" 2>/dev/null
  PASST=''
}
