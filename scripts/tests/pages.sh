#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# The pages of the tour (docs/tour/): their commands are run in a guest and print what the page shows, and
# what they say to change is changed and shows what the page says it does.
. "$(dirname "$0")/../lib/check.sh"
. "$REPO/scripts/lib/pages.sh"

# run_pages FILE...: those of one guest, in order.
run_pages() {
  local page
  guest_start
  guest 'echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6'
  for page in "$@"; do
    run_page "$page"
  done
}

build_experiments "$REPO"/docs/tour/[1-8]-*.md
FILES=("$CACHE/module-$FLAVOUR"/vnet_phase?.ko "$EXPERIMENTS")
run_pages "$REPO"/docs/tour/[1-8]-*.md
finish_guest
# Those of the finished driver.
QUEUES=2 SMP=2
run_pages "$REPO"/docs/tour/9-*.md "$REPO"/docs/tour/1[0-9]-*.md
finish
