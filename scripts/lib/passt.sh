# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# passt, which gives a guest the host's network without privileges. Source after guest.sh; the build
# root has it once images/packages was there (test, debian).

# passt_start SOCKET ARGUMENT...: at the other end of a card with --net stream:path=SOCKET, until this
# shell ends; says what is wrong if it does not start.
passt_start() {
  local socket=$1
  shift
  host_program /usr/bin/passt --foreground --socket "$socket" "$@" </dev/null >>"$socket.log" 2>&1
  for _ in $(seq 100); do
    [ ! -S "$socket" ] || return 0
    kill -0 $! 2>/dev/null || break
    sleep 0.1
  done
  cat "$socket.log" >&2
  return 1
}
