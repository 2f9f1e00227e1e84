#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# The pages of the tour (docs/tour/): each block that is marked "console guest" is run in a guest, and what
# its commands print is compared with what the page shows.
#
#   # COMMAND      what is run; a line that starts with "> " continues it
#   ... in a line stands for any text in it; a line of "..." alone for any lines, or none
. "$(dirname "$0")/../lib/check.sh"

FILES=("$CACHE/module-$FLAVOUR"/vnet_phase?.ko)
NEWLINE=$'\n'

# pattern: the output that a page shows, on stdin, as a regular expression.
pattern() {
  local line text='^'
  while IFS= read -r line; do
    if [ "$line" = ... ]; then
      text+="([^$NEWLINE]*$NEWLINE)*"
    else
      # shellcheck disable=SC2001 # what was found is part of what replaces it
      line=$(sed 's/[][\.*^$+?(){}|]/\\&/g' <<<"$line")
      text+=${line//'\.\.\.'/"[^$NEWLINE]*"}$NEWLINE
    fi
  done
  printf '%s$' "$text"
}

# shows COMMAND OUTPUT: what the command prints in the guest is what the page shows.
shows() {
  local output expected
  # The end of line that the substitution takes is given back.
  output=$(guest "$1" 2>&1)
  [ -z "$output" ] || output+=$NEWLINE
  expected=$(printf '%s' "$2" | pattern)
  # Blanks at the ends of lines are nobody's concern.
  # shellcheck disable=SC2001 # in every line
  output=$(sed 's/[[:blank:]]*$//' <<<"$output" && echo .)
  output=${output%"$NEWLINE".}
  [[ $output =~ $expected ]] && return
  printf 'command: %s\nthe page shows:\n%sthe guest prints:\n%s' "$1" "$2" "$output"
  return 1
}

# run_page FILE: all commands of its blocks, in order.
run_page() {
  local name line inside=no command='' output='' commands=0
  name=$(basename "$1" .md)
  finish_command() {
    [ -n "$command" ] || return 0
    check "$name: ${command%%"$NEWLINE"*}" shows "$command" "$output"
    command='' output='' commands=$((commands + 1))
  }
  while IFS= read -r line <&7; do
    case $inside:$line in
      no:'```console guest') inside=yes ;;
      no:*) ;;
      yes:'```') finish_command && inside=no ;;
      yes:'# '*) finish_command && command=${line#'# '} ;;
      yes:'> '*) command+=$NEWLINE${line#'> '} ;;
      yes:*) output+=$line$NEWLINE ;;
    esac
  done 7<"$1"
  [ $commands -gt 0 ] || not_ok "$name: has no commands"
}

# run_pages FILE...: those of one guest, in order.
run_pages() {
  local page
  guest_start
  guest 'echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6'
  for page in "$@"; do
    run_page "$page"
  done
}

run_pages "$REPO"/docs/tour/[1-8]-*.md
finish_guest
# Those of the finished driver.
QUEUES=2 SMP=2
run_pages "$REPO"/docs/tour/9-*.md "$REPO"/docs/tour/1[0-9]-*.md
finish
