# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# The Debian build root: where it is and how to run commands in it. Source after common.sh.

ROOT=$CACHE/root

# Runs a command in namespaces of its own, as (mapped) root. They end, with every mount in
# them, when the command does; the command dies when the caller is killed.
in_namespace() {
  local user=()
  [ "$(id -u)" = 0 ] || user=(--user --map-root-user --map-auto)
  unshare "${user[@]}" --mount --pid --fork --kill-child "$@"
}

# in_root CMD...: runs CMD in the build root. The repository is at /repo, the cache at /cache
# and, where IN_ROOT_EXTRA names a directory, that at /extra; the working directory is /repo.
in_root() {
  # shellcheck disable=SC2016 # expanded by the inner shell
  in_namespace sh -ec '
    root=$1 repo=$2 cache=$3 extra=$4; shift 4
    mkdir -p "$root/repo" "$root/cache" "$root/extra"
    mount --make-rprivate /
    mount --rbind /dev "$root/dev"
    mount -t proc proc "$root/proc"
    mount --bind "$repo" "$root/repo"
    mount --bind "$cache" "$root/cache"
    [ -z "$extra" ] || mount --bind "$extra" "$root/extra"
    mount -t tmpfs tmpfs "$root/tmp"
    cat /etc/resolv.conf >"$root/etc/resolv.conf" 2>/dev/null || :
    export HOME=/root LANG=C.UTF-8 PATH=/usr/sbin:/usr/bin:/sbin:/bin
    unset TMPDIR CARGO_HOME RUSTUP_HOME RUSTUP_TOOLCHAIN
    exec chroot "$root" sh -c "cd /repo && exec \"\$@\"" sh "$@"
  ' sh "$ROOT" "$REPO" "$CACHE" "${IN_ROOT_EXTRA:-}" "$@"
}
