# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# cargo for device/: the host's when it is new enough, else the one that images/device-toolchain
# puts into the build root. Source after root.sh. Builds go to the cache directory.

CARGO_MIN=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$REPO/device/Cargo.toml")
# Where that toolchain is in the build root.
ROOT_RUST=/opt/device-toolchain

# Prints "host" or "root"; VNET_CARGO decides if it is set.
cargo_where() {
  local have
  have=$(cargo --version 2>/dev/null | cut -d' ' -f2)
  if [ "${VNET_CARGO:-}" ]; then
    echo "$VNET_CARGO"
  elif [ -n "$have" ] && [ "$(printf '%s\n' "$CARGO_MIN" "$have" | sort -V | head -n1)" = "$CARGO_MIN" ]; then
    echo host
  else
    echo root
  fi
}

# Makes what was built in the root this tree's, with nobody else at it. cargo sees each tree as /repo there, and goes by
# times: what is of another one may be newer, and would be taken for this one's.
take_targets() {
  [ "$(cat "$CACHE/target-root/.source" 2>/dev/null)" != "$REPO" ] || return 0
  rm -rf "$CACHE"/target-{root,loom}/*/.fingerprint/vnet*
  echo "$REPO" >"$CACHE/target-root/.source"
}

# in_cargo ENV=VALUE... cargo|COMMAND ARGUMENT...: runs a command where cargo is, in device/.
in_cargo() {
  if [ "$(cargo_where)" = host ]; then
    (cd "$REPO/device" && env CARGO_TARGET_DIR="$CACHE/target" "$@")
  else
    # The host's way to the registry is ours too: its certificates and its cargo configuration.
    local bundle=${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}
    local config=${CARGO_HOME:-$HOME/.cargo}/config.toml
    mkdir -p "$CACHE/cargo" "$CACHE/target-root"
    [ ! -e "$bundle" ] || cp -L "$bundle" "$CACHE/cargo/certificates.pem"
    [ ! -e "$config" ] || cp -L "$config" "$CACHE/cargo/config.toml"
    (
      flock -s 8
      while [ "$(cat "$CACHE/target-root/.source" 2>/dev/null)" != "$REPO" ]; do
        flock 8
        take_targets
        flock -s 8
      done
      # shellcheck disable=SC2016 # expanded by the inner shell
      in_root sh -c '
        rust=$1; shift; cd /repo/device
        [ ! -e /cache/cargo/certificates.pem ] || export CARGO_HTTP_CAINFO=/cache/cargo/certificates.pem
        exec env PATH="$rust/usr/bin:$PATH" LD_LIBRARY_PATH="$rust/usr/lib/x86_64-linux-gnu" \
          CARGO_TARGET_DIR=/cache/target-root CARGO_HOME=/cache/cargo "$@"
      ' sh "$ROOT_RUST" "$@" 8>&-
    ) 8>"$CACHE/.lock-target-root"
  fi
}

# Prints the flag that builds with AddressSanitizer, if this host's rustc has what it needs. The flag
# is unstable, so RUSTC_BOOTSTRAP=1 goes with it.
asan_flag() {
  local runtime
  runtime=("$(rustc --print sysroot)/lib/rustlib/$(host_triple)/lib"/librustc*_rt.asan.a)
  [ ! -e "${runtime[0]}" ] || echo -Zsanitizer=address
}

host_triple() {
  rustc -vV | sed -n 's/^host: //p'
}
