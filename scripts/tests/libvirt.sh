#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# The domain of docs/deploy.md: libvirt's schema has it, and QEMU, given its arguments and shared memory, has
# the card. libvirt itself does not run, and nor does a guest.
. "$(dirname "$0")/../lib/check.sh"
"$REPO/images/packages" test || exit
SCRATCH=$(mktemp -d "${TMPDIR:-/tmp}/vnet.XXXXXX")
trap 'rm -rf "$SCRATCH"' EXIT

# The block that is set off in the page.
sed -n '/^<domain /,/^<\/domain>/p' "$REPO/docs/deploy.md" >"$SCRATCH/domain.xml"
xmllint() {
  "$ROOT/usr/lib64/ld-linux-x86-64.so.2" --library-path "$ROOT/usr/lib/x86_64-linux-gnu" "$ROOT/usr/bin/xmllint" "$@"
}
valid() {
  xmllint --noout --relaxng "$ROOT/usr/share/libvirt/schemas/domain.rng" "$1"
}
check "the domain is one by libvirt's schema" valid "$SCRATCH/domain.xml"
# unsound EDIT: the schema tells a domain from what is none.
unsound() {
  sed "$1" "$SCRATCH/domain.xml" >"$SCRATCH/bad.xml"
  ! cmp "$SCRATCH/domain.xml" "$SCRATCH/bad.xml" && ! valid "$SCRATCH/bad.xml"
}
check "which refuses one without a name" unsound '/<name>/d'
check "and one whose memory is shared in a way that there is none" unsound "s/mode='shared'/mode='lent'/"

# Each argument in a line, as libvirt hands them on.
arguments() {
  xmllint --xpath "//*[local-name()='arg']/@value" "$SCRATCH/domain.xml" |
    sed -n "s/^ *value=[\"']\(.*\)[\"']$/\1/p" | sed 's/&quot;/"/g'
}
mapfile -t given < <(arguments | sed "s|/run/vnetd/|$SCRATCH/|")
printf '  %s\n' "${given[@]}"
check "it has arguments for QEMU, two of them devices" test "${#given[@]}" = 4

child "$REPO/scripts/vnetd" --socket "$SCRATCH/web.sock" --net null
VNETD=$!
until [ -S "$SCRATCH/web.sock" ]; do
  kill -0 "$VNETD" || die "the device server did not start"
  sleep 0.05
done
# What libvirt makes of memoryBacking, and of machine; what is not about the card is left out.
qemu_has_the_card() {
  printf 'info qtree\nquit\n' | timeout 60 "$REPO/scripts/qemu" -nodefaults -display none -S -monitor stdio \
    -machine q35,memory-backend=pc.ram -object memory-backend-memfd,id=pc.ram,size=256M,share=on -m 256M \
    "${given[@]}" | tee "$SCRATCH/qtree"
  awk '/bus: vnet0port/ { port = 1 } port && /dev: / { found = /dev: vfio-user-pci/; exit } END { exit !found }' "$SCRATCH/qtree"
}
check "QEMU has the card in the port that they name" qemu_has_the_card
kill "$VNETD"
wait "$VNETD"
exit $((CHECKS_FAILED > 0))
