#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# The commands of the README and of docs/, beside the tour: those that can be run are, and print what is
# shown; the others say why not.
. "$(dirname "$0")/../lib/check.sh"
. "$REPO/scripts/lib/pages.sh"

cd "$REPO" || exit
# Not as a check: what is not run is to be seen.
if commands_left_out README.md docs/*.md docs/tour/*.md guest-driver/README.md images/README.md \
  qemu-config/README.md; then
  ok "each command is run, or it is said why not"
else
  not_ok "each command is run, or it is said why not"
fi

# named_functions FILE...: the tables of what real drivers do name functions that are in the kernel's source, in
# the file that they say.
named_functions() {
  local rows file functions function missing=0 seen=0
  rows=$(awk '/^## /{ on = /What real drivers do/ } on && /^\| [a-z]/' "$@" | cut -d'|' -f3 | tr ';' '\n')
  while IFS=: read -r file functions; do
    file=$CACHE/linux-source/drivers/net/${file// /}
    [ -n "$functions" ] || continue
    while read -r function; do
      seen=$((seen + 1))
      grep -qw "$function" "$file" || { echo "no $function in $file" && missing=1; }
    done < <(grep -o '`[^`]*`' <<<"$functions" | tr -d '\`')
  done <<<"$rows"
  echo "$seen functions"
  [ $seen -gt 50 ] && [ $missing = 0 ]
}
check "real drivers have the functions that the tour names" named_functions docs/tour/[0-9]*.md

# names COLUMN PATTERN: the names in code style in a column of the tables of docs/netdev.md.
names() {
  awk -F'|' -v column="$1" '/^\| /{ print $column }' docs/netdev.md | grep -oE "\`$2\`" | tr -d '\`!' |
    sed 's/^struct //; s/.*:://' | sort -u
}
# all_there NAMES FOLDER...: each of the names, a line each, is in a file there.
all_there() {
  local wanted=$1 found
  shift
  found=$(grep -rhowF -f <(printf '%s\n' "$wanted") "$@" | sort -u)
  comm -23 <(printf '%s\n' "$wanted") <(printf '%s\n' "$found") | grep . && return 1
  [ "$(wc -l <<<"$wanted")" -gt 50 ]
}
check "the kernel has the C functions that docs/netdev.md names" \
  all_there "$(names 2 '[a-z_0-9 ]+')" "$CACHE/linux-source/include/linux" "$CACHE/linux-source/include/net"
check "the layer has what docs/netdev.md names" all_there "$(names 3 '[A-Za-z_:!0-9]+')" guest-driver/netdev

scratch
placed "$(cat "$REPO/qemu-config/vnetd.toml")" "$SCRATCH/run"
printf '%s\n' "$PLACED" | tee "$SCRATCH/vnetd.toml" >"$SCRATCH/etc/vnetd.toml"
run_page "$REPO/README.md"
run_page "$REPO/docs/backends.md"

boot NICS=2 CONFIG=yes
# Both are in one network: so the first one has the addresses.
guest 'ip addr flush dev vnet1'
run_page "$REPO/guest-driver/README.md"
run_page "$REPO/docs/vnetd.md"
finish
