# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# The XDP programs of scripts/tests/xdp, compiled to $XDP_PROGRAMS. Source after check.sh.

XDP_PROGRAMS=$CACHE/xdp/programs.o

xdp_programs() {
  mkdir -p "$CACHE/xdp"
  in_root clang -O2 -target bpf -Wall -Werror -I/usr/include/x86_64-linux-gnu \
    -c /repo/scripts/tests/xdp/programs.c -o /cache/xdp/programs.o
}
