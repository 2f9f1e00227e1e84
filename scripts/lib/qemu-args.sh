# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# From qemu-config/ to QEMU's command line.

# args_from FILE [NAME=VALUE...]: appends the file's arguments to the array QEMU_ARGS, with
# @NAME@ replaced. A line is an option and its value.
args_from() {
  local file=$REPO/qemu-config/$1 line pair
  shift
  while IFS= read -r line; do
    case $line in '' | '#'*) continue ;; esac
    for pair in "$@"; do
      line=${line//"@${pair%%=*}@"/"${pair#*=}"}
    done
    QEMU_ARGS+=("${line%% *}")
    [ "${line#* }" = "$line" ] || QEMU_ARGS+=("${line#* }")
  done <"$file"
}

# machine_config MEM CPUS [MEMORY]: the machine with other numbers, on stdout; with MEMORY=private,
# with memory of the usual kind, which no other process can map.
machine_config() {
  local private=''
  [ "${3:-shared}" = shared ] || private='/memory-backend = /d; /^\[object "ram"\]/,/^$/d;'
  sed "$private s/^\( *size = \).*/\1\"$1\"/; s/^\( *cpus = \).*/\1\"$2\"/" \
    "$REPO/qemu-config/machine.cfg"
}

# accelerator WISH: kvm or tcg. "auto" goes by the CPU's flag: a device node alone does not
# mean that guests run.
accelerator() {
  case $1 in
    kvm | tcg) echo "$1" ;;
    auto)
      if ! grep -qE '^flags.* (vmx|svm)( |$)' /proc/cpuinfo; then
        echo tcg
      elif [ ! -w /dev/kvm ]; then
        step "no access to /dev/kvm: using the slow emulator (add yourself to group kvm)"
        echo tcg
      else
        echo kvm
      fi
      ;;
    *) die "no such accelerator: $1 (auto, kvm, tcg)" ;;
  esac
}
