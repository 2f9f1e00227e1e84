# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# cargo for device/: the host's when it is new enough, else the build root's. Source after
# root.sh. Builds go to the cache directory.

CARGO_MIN=1.85

# Prints "host" or "root".
cargo_where() {
  local have
  have=$(cargo --version 2>/dev/null | cut -d' ' -f2)
  if [ -n "$have" ] && [ "$(printf '%s\n' "$CARGO_MIN" "$have" | sort -V | head -n1)" = "$CARGO_MIN" ]; then
    echo host
  else
    echo root
  fi
}

# in_cargo ENV=VALUE... cargo|COMMAND ARGUMENT...: runs a command where cargo is, in device/.
in_cargo() {
  if [ "$(cargo_where)" = host ]; then
    (cd "$REPO/device" && env CARGO_TARGET_DIR="$CACHE/target" "$@")
  else
    in_root sh -c 'cd /repo/device && exec env CARGO_TARGET_DIR=/cache/target-root CARGO_HOME=/cache/cargo "$@"' sh "$@"
  fi
}
