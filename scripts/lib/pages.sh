# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# Has the commands of documents run, and what they print compared with what the document shows. After
# check.sh. A block of a document is run if its first line says so:
#
#   ```console guest     "# COMMAND" in the guest
#   ```console host      "$ COMMAND" on this side, in a scratch directory with vnetd and vnetctl at hand
#   ```console both      both, with the guest's cards in a vnetd that vnetctl steers
#   ```diff FILE         a change of a phase's source: the lines with "-" are there once, those with "+"
#                        take their place, and a line of "@@" stands between two places
#   ```console changed   "# COMMAND" in the guest, where the module has the changes since the last such block
#   ```text build        the changes do not compile, and this is what the compiler says
#   ```toml vnetd        a configuration, which "vnetd check" must like
#   ```text dialogue     what a client says to the control socket of the guest's cards, after "-> ", and what
#                        it is told, after "<- "
#
# A line that starts with "> " continues a command. "..." in a line stands for any text in it, a line of
# "..." alone for any lines or none; after "console ... numbers" every number stands for any, and after
# "console ... quick" the debug kernel, which is too slow for what is shown, may print anything.
# /run/vnetd and /etc in what is said and shown stand for places of the test.

NEWLINE=$'\n'
COPY=$CACHE/tour-copy # of what modules are made from, to be changed
SCRATCH=''            # where commands of this side run
EXPERIMENTS=''        # modules that changes have given, and what the compiler said; for FILES
BACKGROUND=()         # processes that they have started

# pattern [numbers]: the output that a page shows, on stdin, as a regular expression.
pattern() {
  local line text='^' number=$'\1' blanks=$'\2'
  while IFS= read -r line; do
    if [ "$line" = ... ]; then
      text+="([^$NEWLINE]*$NEWLINE)*"
      continue
    fi
    [ "${1:-}" != numbers ] ||
      line=$(sed -E "s/0x[0-9a-f]+|[0-9]+(\.[0-9]+)?/$number/g; s/ +/$blanks/g" <<<"$line")
    # shellcheck disable=SC2001 # what was found is part of what replaces it
    line=$(sed 's/[][\.*^$+?(){}|]/\\&/g' <<<"$line")
    line=${line//'\.\.\.'/"[^$NEWLINE]*"}
    line=${line//"$number"/'(0x[0-9a-f]+|[0-9]+(\.[0-9]+)?)'}
    text+=${line//"$blanks"/' +'}$NEWLINE
  done
  printf '%s$' "$text"
}

# shows NUMBERS OUTPUT CMD...: what CMD prints is what the page shows.
shows() {
  local output expected shown=$2
  expected=$(printf '%s' "$shown" | pattern "$1")
  shift 2
  # The end of line that the substitution takes is given back.
  output=$("$@" 2>&1)
  [ -z "$output" ] || output+=$NEWLINE
  # Blanks at the ends of lines are nobody's concern.
  # shellcheck disable=SC2001 # in every line
  output=$(sed 's/[[:blank:]]*$//' <<<"$output" && echo .)
  output=${output%"$NEWLINE".}
  [[ $output =~ $expected ]] && return
  printf 'command: %s\nthe page shows:\n%sthis is printed:\n%s' "${*: -1}" "$shown" "$output"
  return 1
}

# eventually CMD...: it succeeds now or a while later.
eventually() {
  for _ in 1 2 3 4 5; do
    ! "$@" >/dev/null || return 0
    sleep 0.5
  done
  "$@"
}

# placed TEXT RUN: PLACED is the text with the places of the test.
placed() {
  PLACED=${1//"/run/vnetd"/"$2"}
  PLACED=${PLACED//"/etc/"/"$SCRATCH/etc/"}
}

# host_run RUN CMD: a command of this side. One that ends in "&" stays until the block is through; it is
# vnetd, and there when it listens.
host_run() {
  cd "$SCRATCH" || return
  VNETD_CONTROL=$1/control.sock PATH=$REPO/scripts:$PATH timeout 60 bash -c "$2"
}
host_start() {
  local before=("$1"/*.sock) now
  child env -C "$SCRATCH" VNETD_CONTROL="$1/control.sock" PATH="$REPO/scripts:$PATH" \
    bash -c "exec ${2%&}" >"$SCRATCH/background.log" 2>&1 </dev/null
  BACKGROUND+=("$!")
  for _ in $(seq 200); do
    now=("$1"/*.sock)
    [ "${now[*]}" = "${before[*]}" ] || return 0
    sleep 0.1
  done
  cat "$SCRATCH/background.log"
  return 1
}
end_background() {
  local pid
  for pid in "${BACKGROUND[@]}"; do
    kill "$pid" 2>/dev/null
    wait "$pid" 2>/dev/null
  done
  BACKGROUND=()
}

# change FILE: makes the change that is on stdin, as the lines of a diff block.
change() {
  local line old='' new='' text rest
  text=$(cat "$1" && echo .)
  while IFS= read -r line; do
    case $line in
      -*) old+=${line#-}$NEWLINE ;;
      +*) new+=${line#+}$NEWLINE ;;
      @@) ;;
      *) old+=${line# }$NEWLINE new+=${line# }$NEWLINE ;;
    esac
    [ "$line" = @@ ] || continue
    rest=${text#*"$old"}
    if [ "$rest" = "$text" ] || [[ $rest == *"$old"* ]]; then
      printf 'not there, or more than once, in %s:\n%s' "$1" "$old"
      return 1
    fi
    text=${text%%"$old"*}$new$rest
    old='' new=''
  done < <(cat && echo @@)
  printf '%s' "${text%.}" >"$1"
}

# copy_source: a new copy of what modules are made from. Times are kept, so that only what is changed is
# compiled.
copy_source() {
  rm -rf "$COPY"
  mkdir -p "$COPY/device"
  cp -a "$REPO/guest-driver" "$COPY/guest-driver"
  cp -a "$REPO/device/contract" "$COPY/device/contract"
}

# build_changed PHASE NAME: the module of a phase, from the copy, as NAME/vnet_phaseN.ko, if it compiles.
build_changed() {
  local built=$CACHE/module-tour-$FLAVOUR module=vnet_phase$1.ko to=$EXPERIMENTS/$2
  mkdir -p "$to"
  # Before, as the copy's times are older than what was made of the last change, and after for the same.
  rm -f "$built"/phases/phase"$1"_*.o
  "$REPO/scripts/build-module" --kernel "$FLAVOUR" --out "$built" "$COPY/guest-driver" -- "$module" \
    >"$to/log" 2>&1 &&
    in_root strip --strip-debug -o "/cache/${built##*/}/stripped.ko" "/cache/${built##*/}/$module" &&
    cp "$built/stripped.ko" "$to/$module"
  rm -f "$built"/phases/phase"$1"_*.o "$built/$module"
}

# build_experiments PAGE...: makes the modules of all changes in the pages, before there is a guest.
build_experiments() {
  local page name line kind='' file='' text='' number changed
  EXPERIMENTS=$(mktemp -d "${TMPDIR:-/tmp}/vnet-pages.XXXXXX")/experiments
  mkdir "$EXPERIMENTS"
  for page in "$@"; do
    grep -q '^```diff ' "$page" || continue
    number=0 changed=no name=$(basename "$page" .md)
    while IFS= read -r line <&7; do
      case $kind:$line in
        :'```diff '*)
          [ $changed = yes ] || copy_source
          changed=yes kind='diff' file=${line#'```diff '} text=''
          ;;
        diff:'```')
          kind=''
          check "$name: the change of ${file##*/} can be made" \
            change "$COPY/$file" <<<"${text%"$NEWLINE"}"
          ;;
        diff:*) text+=$line$NEWLINE ;;
        :'```console changed'* | :'```text build')
          number=$((number + 1)) changed=no
          build_changed "${name%%-*}" "${name%%-*}-$number"
          ;;
      esac
    done 7<"$page"
  done
  rm -rf "$COPY"
}

# refused_to_build NAME OUTPUT: the compiler said these lines, in this order, and made nothing.
refused_to_build() {
  local log=$EXPERIMENTS/$1/log pattern=''
  if compgen -G "$EXPERIMENTS/$1/*.ko" >/dev/null; then
    echo "it compiles"
    return 1
  fi
  pattern=$(printf '%s' "$2" | pattern)
  # Anything may stand around them.
  pattern=${pattern#^} pattern="(^|$NEWLINE)${pattern%$}"
  [[ $(cat "$log") =~ $pattern ]] && return
  printf 'the page shows:\n%sthe compiler says:\n' "$2"
  grep -A 12 -E '^(error|ERROR)' "$log"
  return 1
}

# commands_left_out FILE...: says of each block of commands that is not run why not, which the line before it
# has to say. Fails if one does not.
commands_left_out() {
  awk '
    FNR == 1 { inside = 0 }
    /^```/ && !inside {
      inside = 1
      if (/^```(sh|bash|console)( |$)/ && !/^```console (guest|host|both|changed)( |$)/) {
        if (before ~ /^<!-- not run: .* -->$/)
          print "not run: " FILENAME ":" FNR ": " substr(before, 15, length(before) - 18)
        else
          bad = bad "\n" FILENAME ":" FNR ": neither run nor said why not"
      }
      next
    }
    /^```/ { inside = 0 }
    !inside && /^    ([$#] |<|\{|vnetd |ip |cp |\.\/scripts|scripts)/ {
      bad = bad "\n" FILENAME ":" FNR ": not in a block with a kind"
    }
    { before = $0 }
    END { if (bad) { print bad; exit 1 } }' "$@"
}

# likes TOML: "vnetd check" has nothing to say against a configuration.
likes() {
  printf '%s' "$1" >"$SCRATCH/checked.toml"
  "$REPO/scripts/vnetd" check "$SCRATCH/checked.toml"
}

# dialogue SOCKET DIALOGUE: says what a client says in it, and prints what both said.
dialogue() {
  sed -n 's/^-> //p' <<<"$2" | IN_ROOT_EXTRA=$(dirname "$1") in_root scripts/lib/dialogue "/extra/${1##*/}"
}

# run_page FILE: all of its blocks that are to be run, in order.
run_page() {
  local name line kind='' numbers='' command='' output='' where='' blocks=0 experiment=0
  name=$(basename "$1" .md)
  finish_command() {
    [ -n "$command" ] || return 0
    local title="$name: ${command%%"$NEWLINE"*}" run=$SCRATCH/run looks=(shows)
    # What only looks may come too early for what it is to see.
    case $where:$command in
      guest:dmesg* | guest:'cat /sys/'* | guest:'ethtool vnet'*) [ -z "$output" ] || looks=(eventually shows) ;;
    esac
    [ "$kind" != both ] || run=$GUEST_DIR
    if [ "$kind" = changed ]; then
      command="cd /root/experiments/${name%%-*}-$experiment && $command"
    fi
    # What a slow kernel says of its own, and the debug kernel of each of its objects, when that is released.
    [ "$where" != guest ] ||
      command="dmesg() { command dmesg | grep -vE ' (kobject|hrtimer|sched|clocksource): '; }$NEWLINE$command"
    [ "$FLAVOUR" != debug ] || [ "$numbers" != quick ] || output=...$NEWLINE
    placed "$output" "$run" && output=$PLACED
    if [ "$where" = guest ]; then
      check "$title" "${looks[@]}" "$numbers" "$output" guest "$command"
    else
      placed "$command" "$run"
      case $command in
        # Not in the subshell of a check: it is to be remembered.
        *'&') if host_start "$run" "$PLACED"; then ok "$title"; else not_ok "$title"; fi ;;
        *) check "$title" shows "$numbers" "$output" host_run "$run" "$PLACED" ;;
      esac
    fi
    command='' output=''
  }
  while IFS= read -r line <&7; do
    if [ -z "$kind" ]; then
      case $line in
        '```console guest'* | '```console host'* | '```console both'* | '```console changed'* | \
          '```text build' | '```text dialogue' | '```toml vnetd')
          read -r _ kind numbers <<<"$line"
          command='' output='' blocks=$((blocks + 1))
          case $kind in changed | build) experiment=$((experiment + 1)) ;; esac
          ;;
        '```diff '*) kind='diff' ;;
      esac
      continue
    fi
    case $kind:$line in
      build:'```') check "$name: what the compiler says" refused_to_build "${name%%-*}-$experiment" "$output" ;;
      dialogue:'```')
        placed "$output" "$GUEST_DIR"
        check "$name: what is said at the control socket" \
          shows '' "$PLACED" dialogue "$GUEST_DIR/control.sock" "$PLACED"
        ;;
      vnetd:'```') check "$name: a configuration" likes "$output" ;;
      *:'```') finish_command && end_background ;;
      host:'$ '* | both:'$ '*) finish_command && command=${line#'$ '} where=host && continue ;;
      guest:'# '* | changed:'# '* | both:'# '*) finish_command && command=${line#'# '} where=guest && continue ;;
      guest:'> '* | changed:'> '* | both:'> '* | host:'> '*) command+=$NEWLINE${line#'> '} && continue ;;
      guest:'>' | changed:'>' | both:'>' | host:'>') command+=$NEWLINE && continue ;;
      *) output+=$line$NEWLINE && continue ;;
    esac
    kind=''
  done 7<"$1"
  [ $blocks -gt 0 ] || not_ok "$name: has no commands"
}

# scratch: a new directory for commands of this side.
scratch() {
  SCRATCH=$(mktemp -d "${TMPDIR:-/tmp}/vnet-pages.XXXXXX")
  mkdir "$SCRATCH/run" "$SCRATCH/etc"
}

# pages_end: leaves nothing behind.
pages_end() {
  end_background
  guest_stop
  rm -rf "$SCRATCH" "${EXPERIMENTS%/*}" "$COPY"
}
trap pages_end EXIT
