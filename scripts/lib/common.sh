# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# Places, messages and locks that every script here shares. Source it; it runs nothing.

REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
CACHE=${VNET_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/vnet}
export REPO CACHE

VNET_SINCE=${VNET_SINCE:-$(date +%s)}
export VNET_SINCE

# Progress goes to stderr, so that stdout carries nothing but a command's own output.
step() {
  printf '[%4ds] %s\n' "$(($(date +%s) - VNET_SINCE))" "$*" >&2
}

die() {
  printf '%s: %s\n' "${0##*/}" "$*" >&2
  exit 1
}

# with_lock NAME CMD...: runs CMD while no other process does so under the same name.
with_lock() {
  local name=$1
  shift
  mkdir -p "$CACHE"
  (
    if ! flock -w 3 9; then
      step "waiting for another run that prepares $name"
      flock 9
    fi
    "$@" 9>&-
  ) 9>"$CACHE/.lock-$name"
}

# Fingerprint of files and words: artefacts are rebuilt when what made them changes.
fingerprint() {
  local item
  for item in "$@"; do
    if [ -f "$item" ]; then cat "$item"; else printf '%s\n' "$item"; fi
  done | sha256sum | cut -c1-16
}

# The kernels that there are: Debian's, those of another series, and one with checkers.
FLAVOURS='cloud-amd64 amd64 cloud-amd64-7.2 amd64-7.2 debug'

# known_flavour FLAVOUR: ends the script if there is no such kernel.
known_flavour() {
  case " $FLAVOURS " in
    *" $1 "*) ;;
    *) die "no such kernel flavour: $1 (${FLAVOURS// /, })" ;;
  esac
}

# flavour_series FLAVOUR: "-7.2" for cloud-amd64-7.2, nothing for a kernel of the usual series.
flavour_series() {
  [[ ! $1 =~ -[0-9]+\.[0-9]+$ ]] || echo "${BASH_REMATCH[0]}"
}

# need TOOL PACKAGE...: installs the package by apt when root, says what is missing otherwise.
need() {
  local tool=$1
  shift
  command -v "$tool" >/dev/null && return
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    step "installing $* on this machine"
    if ! { apt-get install -qy --no-install-recommends "$@" ||
      { apt-get -q update && apt-get install -qy --no-install-recommends "$@"; }; } \
      >"$CACHE/host-packages.log" 2>&1; then
      die "cannot install $*: see $CACHE/host-packages.log"
    fi
  else
    die "missing on this machine: $tool (Debian package: $*)"
  fi
}
