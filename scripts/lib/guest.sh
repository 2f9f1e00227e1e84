# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# One guest: start it, run commands in it, talk QMP to its QEMU, stop it. Source after
# common.sh, root.sh and qemu-args.sh; set what differs from these defaults, then guest_start.

NIC=vnet            # vnet or a rival: virtio-net, e1000e, igb, vmxnet3
KINDS=()            # for a guest with different NICs: what each is instead of NIC
NICS=1              # how many
NET=(gateway)       # backend of each; the last one serves for the rest
WITHOUT=()          # features that each card goes without; the last one serves for the rest
QUEUES=1            # queue pairs of each
MEM=512M            # guest memory
MEMORY=shared       # private: QEMU keeps it to itself, and the card has to ask for it
SMP=1               # guest CPUs
FLAVOUR=cloud-amd64 # kernel
GUEST=initramfs     # debian: a whole one on a disk, which loads the driver itself; see images/README.md
ACCEL=auto          # kvm, tcg
FILES=()            # host files to put into the guest's /root
MTU_MAX=9000        # largest MTU that the device servers offer
VNETD_LOG=warn      # log level of the device servers
VNETD_ARGS=()       # more arguments for them
CONFIG=no           # yes: one device server for all cards, from a configuration; vnetctl steers it
SANITIZE=off        # what they do about rules that the driver breaks: off, report, strict
MODULE=''           # the module to load, if not that of scripts/build-module
FAULTS=no           # yes: the cards can be told to misbehave, see faults in check.sh
QEMU_EXTRA=()       # more arguments for QEMU

# known_sanitize: ends the script if the value of --sanitize is none.
known_sanitize() {
  case $SANITIZE in
    off | report | strict) ;;
    *) die "no such thing: --sanitize $SANITIZE (off, report, strict)" ;;
  esac
}

GUEST_DIR=''   # sockets, FIFOs and logs: console.log, vnetdN.log, qemu.log
QEMU_PID=''    # the running QEMU
VNETD_PIDS=()  # the running device servers, one per NIC

# child CMD...: runs CMD in the background so that it dies with this shell, however that ends.
child() {
  setpriv --pdeathsig KILL "$@" &
}

# host_program PROGRAM ARGUMENT...: one of the build root, on this side, in the background.
host_program() {
  local lib=$ROOT/usr/lib/x86_64-linux-gnu program=$1
  shift
  child "$ROOT/usr/lib64/ld-linux-x86-64.so.2" --library-path "$lib" "$ROOT$program" "$@"
}

# slowness: how many times as long the kernel may take.
slowness() {
  if [ "$FLAVOUR" = debug ]; then echo 8; else echo 1; fi
}

# nth N VALUE...: value N, or the last one if there are fewer.
nth() {
  local n=$1 last=$(($# - 2))
  shift
  [ $# -eq 0 ] || echo "${*:$((n < last ? n : last))+1:1}"
}

guest_backend() {
  nth "$1" "${NET[@]}"
}

# guest_nic N: what NIC N is.
guest_nic() {
  echo "${KINDS[$1]:-$NIC}"
}

guest_mac() {
  printf '52:54:00:76:6e:%02x' "$1"
}

# guest_netdev N: the nearest that QEMU's own network back ends have for the rivals. Of those only
# virtio-net reads more than one queue of a TAP; what the kernel put into another would be lost.
guest_netdev() {
  local nic backend name queues=''
  nic=$(guest_nic "$1") backend=$(guest_backend "$1")
  case $backend in
    gateway) echo user ;;
    tap:name=*)
      name=${backend#tap:name=}
      [ "$nic" != virtio-net ] || [ "$QUEUES" = 1 ] || queues=,queues=$QUEUES
      echo "tap,ifname=$name,script=no,downscript=no$queues"
      ;;
    stream:path=*,listen)
      name=${backend#stream:path=}
      echo "stream,server=on,addr.type=unix,addr.path=${name%,listen}"
      ;;
    stream:path=*)
      echo "stream,addr.type=unix,addr.path=${backend#stream:path=},reconnect-ms=500"
      ;;
    null) echo hubport,hubid=0 ;;
    *) die "--nic $nic has no backend like $backend (gateway, tap:name=NAME, stream:path=PATH, null)" ;;
  esac
}

# guest_failed WORD...: ends the script, with the status that says that it is not the command that failed.
guest_failed() {
  printf '%s: %s\n' "${0##*/}" "$*" >&2
  exit 125
}

# vnetd_start N: starts the device server of NIC N and waits until it listens.
vnetd_start() {
  local n=$1 tries=0 without more=()
  if [ "$FAULTS" = yes ]; then
    touch "$GUEST_DIR/faults"
    more=(--faults "$GUEST_DIR/faults")
  fi
  without=$(nth "$n" "${WITHOUT[@]}")
  [ -z "$without" ] || more+=(--without "$without")
  child "$REPO/scripts/vnetd" --socket "$GUEST_DIR/nic$n.sock" --net "$(guest_backend "$n")" \
    --mac "$(guest_mac "$n")" --queues "$QUEUES" --mtu-max "$MTU_MAX" --log "$VNETD_LOG" \
    --sanitize "$SANITIZE" "${VNETD_ARGS[@]}" "${more[@]}" \
    </dev/null >>"$GUEST_DIR/vnetd$n.log" 2>&1
  VNETD_PIDS[n]=$!
  until [ -S "$GUEST_DIR/nic$n.sock" ]; do
    if ! kill -0 "${VNETD_PIDS[n]}" 2>/dev/null || [ $((tries += 1)) -gt 600 ]; then
      cat "$GUEST_DIR/vnetd$n.log" >&2
      guest_failed "the device server did not start"
    fi
    sleep 0.05
  done
}

# there SOCKET...: all of them are.
there() {
  local socket
  for socket; do [ -S "$socket" ] || return; done
}

# vnetd_config: a configuration with the cards of the guest, made of qemu-config/vnetd.toml.
vnetd_config() {
  local n file=$REPO/qemu-config/vnetd.toml
  sed -n '/^\[\[card\]\]/q; p' "$file" |
    sed "s|^control = .*|control = \"$GUEST_DIR/control.sock\"|; s|^log = .*|log = \"$VNETD_LOG\"|"
  for ((n = 0; n < NICS; n++)); do
    [ "$(guest_nic "$n")" = vnet ] || continue
    sed -n '/^\[\[card\]\]/,$p' "$file" | sed "
      s|^name = .*|name = \"nic$n\"|
      s|^socket = .*|socket = \"$GUEST_DIR/nic$n.sock\"|
      s|^net = .*|net = \"$(guest_backend "$n")\"|
      s|^mac = .*|mac = \"$(guest_mac "$n")\"|
      s|^queues = .*|queues = $QUEUES|
      s|^mtu-max = .*|mtu-max = $MTU_MAX|
      s|^sanitize = .*|sanitize = \"$SANITIZE\"|"
    [ "$FAULTS" = no ] || echo "faults = \"$GUEST_DIR/faults\""
    echo
  done
}

# vnetd_start_all: starts one device server for all cards, and waits until it listens.
vnetd_start_all() {
  local n tries=0 sockets=("$GUEST_DIR/control.sock")
  for ((n = 0; n < NICS; n++)); do
    [ "$(guest_nic "$n")" != vnet ] || sockets+=("$GUEST_DIR/nic$n.sock")
  done
  [ "$FAULTS" = no ] || touch "$GUEST_DIR/faults"
  vnetd_config >"$GUEST_DIR/vnetd.toml"
  child "$REPO/scripts/vnetd" --config "$GUEST_DIR/vnetd.toml" "${VNETD_ARGS[@]}" \
    </dev/null >>"$GUEST_DIR/vnetd0.log" 2>&1
  VNETD_PIDS[0]=$!
  until there "${sockets[@]}"; do
    if ! kill -0 "${VNETD_PIDS[0]}" 2>/dev/null || [ $((tries += 1)) -gt 600 ]; then
      cat "$GUEST_DIR/vnetd0.log" >&2
      guest_failed "the device server did not start"
    fi
    sleep 0.05
  done
}

# guest_files DIR: copies there what this run adds to the guest's /root.
guest_files() {
  local file
  for file in "${FILES[@]}"; do
    cp -RL "$file" "$1/" || die "cannot read $file"
  done
}

# The guest's file system: the common part, then a second archive with what this run adds.
guest_initrd() {
  local extra=$GUEST_DIR/extra
  mkdir -p "$extra/root"
  case " $NIC ${KINDS[*]} " in
    *' vnet '*) cp "${MODULE:-$CACHE/module-$FLAVOUR/vnet.ko}" "$extra/vnet.ko" ;;
  esac
  guest_files "$extra/root"
  cat "$CACHE/initramfs-$FLAVOUR.cpio"
  (cd "$extra" && find . | "$ROOT/usr/bin/busybox" cpio -o -H newc 2>/dev/null)
  rm -rf "$extra"
}

# The kernel stops if its timer does not tick while it counts ten ticks by the TSC, which goes on when an emulated CPU
# waits for its turn on a busy host.
KERNEL_ARGS="console=ttyS0 no_timer_check"

# boot_initramfs: what QEMU boots, a file system in memory.
boot_initramfs() {
  local quiet=''
  # The checker of kobjects tells of each, and the console is slow. With five levels of page tables
  # KASAN, and with caches of objects kmemleak would be misled: see images/README.md.
  [ "$FLAVOUR" != debug ] || quiet='loglevel=6 no5lvl slab_debug=F'
  guest_initrd >"$GUEST_DIR/initrd"
  QEMU_ARGS+=(
    -kernel "$CACHE/linux-$FLAVOUR/vmlinuz" -initrd "$GUEST_DIR/initrd"
    -append "$KERNEL_ARGS panic=-1 $quiet ${APPEND:-}"
  )
}

# boot_debian: the same for a Debian on a disk. What this run adds is an archive on a second one.
boot_debian() {
  local dir=$CACHE/debian-$FLAVOUR extra=$GUEST_DIR/extra
  # A comma in an option's value is written twice.
  args_from debian.args DISK="${dir//,/,,}/disk.img"
  if [ ${#FILES[@]} -gt 0 ]; then
    mkdir "$extra"
    guest_files "$extra"
    tar -C "$extra" -cf "$GUEST_DIR/files.tar" .
    rm -rf "$extra"
    QEMU_ARGS+=(
      -drive "file=${GUEST_DIR//,/,,}/files.tar,format=raw,if=none,id=files,readonly=on"
      -device "virtio-blk-pci,drive=files"
    )
  fi
  QEMU_ARGS+=(
    -kernel "$dir/vmlinuz" -initrd "$dir/initrd" -append "$KERNEL_ARGS root=/dev/vda rw ${APPEND:-}"
  )
}

# guest_start: returns when the guest takes commands. Of those in memory none has a driver loaded yet.
guest_start() {
  local n nic pipe
  GUEST_DIR=$(mktemp -d "${TMPDIR:-/tmp}/vnet.XXXXXX") || guest_failed "no temporary directory"
  QEMU_ARGS=()
  args_from guest.args
  args_from "$(accelerator "$ACCEL").args"
  machine_config "$MEM" "$SMP" "$MEMORY" >"$GUEST_DIR/machine.cfg"
  QEMU_ARGS+=(-readconfig "$GUEST_DIR/machine.cfg" "${QEMU_EXTRA[@]}")

  VNETD_PIDS=()
  case $CONFIG,$NIC,${KINDS[*]} in
    yes,vnet,* | yes,*vnet*) vnetd_start_all ;;
  esac
  for ((n = 0; n < NICS; n++)); do
    nic=$(guest_nic "$n")
    if [ "$nic" = vnet ]; then
      [ "$CONFIG" = yes ] || vnetd_start "$n"
      args_from nic-vnet.args N="$n" CHASSIS="$((n + 1))" SOCKET="$GUEST_DIR/nic$n.sock"
    else
      local netdev mq=off
      netdev=$(guest_netdev "$n")
      case $netdev in *queues=*) mq=on ;; esac
      args_from "nic-$nic.args" N="$n" CHASSIS="$((n + 1))" MAC="$(guest_mac "$n")" \
        NETDEV="$netdev" MQ="$mq"
    fi
  done

  for pipe in control out err tty qmp; do
    mkfifo "$GUEST_DIR/$pipe.in" "$GUEST_DIR/$pipe.out"
    QEMU_ARGS+=(-chardev "pipe,id=$pipe,path=$GUEST_DIR/$pipe")
  done
  QEMU_ARGS+=(
    -chardev "file,id=console,path=$GUEST_DIR/console.log" -serial chardev:console
    -mon "chardev=qmp,mode=control"
    -device "virtio-serial-pci,id=vs"
    -device "virtconsole,chardev=tty"
    -device "virtserialport,chardev=control,name=vnet.control"
    -device "virtserialport,chardev=out,name=vnet.out"
    -device "virtserialport,chardev=err,name=vnet.err"
  )
  "boot_$GUEST"
  # Opened for both directions a FIFO does not make its opener wait for the other side.
  exec {CONTROL_IN}<>"$GUEST_DIR/control.in" {control_both}<>"$GUEST_DIR/control.out"
  exec {QMP_IN}<>"$GUEST_DIR/qmp.in" {QMP_OUT}<>"$GUEST_DIR/qmp.out"
  child "$REPO/scripts/qemu" "${QEMU_ARGS[@]}" </dev/null >"$GUEST_DIR/qemu.log" 2>&1
  QEMU_PID=$!
  CONTROL_OUT=$control_both
  if ! guest_ready; then
    cat "$GUEST_DIR/qemu.log" >&2
    tail -n 20 "$GUEST_DIR/console.log" >&2
    guest_failed "the guest did not come up"
  fi
  # From now on QEMU's end alone keeps these open, so its death reads as an end of file.
  exec {CONTROL_OUT}<"$GUEST_DIR/control.out" {control_both}>&-
  rm -f "$GUEST_DIR/initrd"
  qmp '{"execute":"qmp_capabilities"}' >/dev/null
  [ ! -e "$GUEST_DIR/files.tar" ] || guest 'tar -xf /dev/vdb -C /root' || guest_failed "the files did not arrive"
}

# guest_ready: waits until the guest takes commands.
guest_ready() {
  local limit=90
  [ "$GUEST" = initramfs ] || limit=400
  guest_answer "$((${BOOT_TIMEOUT:-$limit} * $(slowness)))" && [ "$ANSWER" = ready ]
}

# guest_reboot: has a Debian guest reboot, and waits until it takes commands again.
guest_reboot() {
  guest_send reboot ''
  guest_ready
}

guest_lives() {
  kill -0 "$QEMU_PID" 2>/dev/null
}

# guest_answer SECONDS: reads one line from the agent into ANSWER; fails when the time is
# over or QEMU is gone.
guest_answer() {
  local part until=$((SECONDS + $1))
  ANSWER=''
  # Without IFS= the blanks at a part's ends would be lost.
  while ! IFS= read -r -t 0.5 -u "$CONTROL_OUT" part; do
    ANSWER+=$part
    guest_lives || return 1
    [ "$SECONDS" -lt "$until" ] || return 1
  done
  ANSWER+=$part
}

# guest_send MODE SCRIPT [SECONDS]
guest_send() {
  local LC_ALL=C
  printf '%s %s %s\n%s' "$1" "${#2}" "${3:-0}" "$2" >&"$CONTROL_IN"
}

# guest CMD [SECONDS]: runs a shell script in the guest; its output here, its status returned.
# 124 when it took longer than SECONDS (default 60; more with a slow kernel), 125 when the guest is
# gone.
guest() {
  local status out err limit=$((${2:-60} * $(slowness)))
  guest_send run "$1" "$limit"
  if ! guest_answer "$((limit + 30))"; then
    echo "guest does not answer" >&2
    cat "$GUEST_DIR/qemu.log" >&2
    return 125
  fi
  read -r status out err <<<"$ANSWER"
  [ "$out" = 0 ] || head -c "$out" <&"$CONTROL_OUT"
  [ "$err" = 0 ] || head -c "$err" <&"$CONTROL_OUT" >&2
  return "$status"
}

# guest_suspend [SECONDS]: suspends the guest to RAM, stays there that long (default 1), wakes it.
guest_suspend() {
  local n=0
  guest_send suspend ''
  until qmp '{"execute":"query-status"}' | grep -q '"suspended"'; do
    [ $((n += 1)) -le 100 ] || { echo "the guest does not suspend" >&2 && return 1; }
    sleep 0.2
  done
  sleep "${1:-1}"
  qmp '{"execute":"system_wakeup"}' >/dev/null || return
  touch "$GUEST_DIR/slept"
  guest_answer 30 && [ "$ANSWER" = 0 ]
}

# guest_stream CMD [SECONDS]: the same, with output as it comes. Once per guest: the guest is
# off when it returns, which is how the end of the output is known.
guest_stream() {
  local readers status=125 limit=${2:-600}
  cat "$GUEST_DIR/out.out" &
  readers=$!
  cat "$GUEST_DIR/err.out" >&2 &
  readers+=" $!"
  guest_send stream "$1" "$limit"
  if guest_answer "$((limit + 30))"; then
    status=$ANSWER
  else
    echo "guest does not answer" >&2
    guest_lives || last_words
  fi
  guest_off
  # shellcheck disable=SC2086 # two words
  wait $readers
  return "$status"
}

# What the kernel of a guest that is gone said at its end.
last_words() {
  echo "the guest is gone; the end of its kernel's log:" >&2
  tail -n 40 "$GUEST_DIR/console.log" >&2
}

# guest_shell CMD: joins this terminal to a terminal in the guest, where CMD runs. Ctrl-] ends it. 125 if the guest went
# without having been told to.
guest_shell() {
  local saved size reader writer terminal status=0
  saved=$(stty -g)
  size=$(stty size)
  guest_send shell "stty rows ${size% *} cols ${size#* }; $1"
  TERMINAL=$saved
  stty raw -echo isig intr ^] quit undef susp undef
  cat <"$GUEST_DIR/tty.out" &
  reader=$!
  exec {terminal}<&0 # a background command's own stdin is /dev/null
  cat <&"$terminal" >"$GUEST_DIR/tty.in" &
  writer=$!
  until guest_answer 3600; do
    guest_lives || { status=125 && break; }
  done
  kill "$reader" "$writer" 2>/dev/null
  stty "$saved"
  TERMINAL=''
  [ $status = 0 ] || grep -qE 'reboot: (Power down|Restarting system)' "$GUEST_DIR/console.log" || { last_words && return 125; }
}

# qmp JSON [SECONDS]: one QMP command; its answer on stdout, events are passed over.
qmp() {
  local line until=$((SECONDS + ${2:-10}))
  printf '%s\n' "$1" >&"$QMP_IN"
  while [ "$SECONDS" -lt "$until" ]; do
    read -r -t 1 -u "$QMP_OUT" line || continue
    case $line in
      '{"return"'*) printf '%s\n' "$line" && return ;;
      '{"error"'*) printf '%s\n' "$line" >&2 && return 1 ;;
    esac
  done
  return 1
}

# end_process PID SECONDS: waits for it, then insists.
end_process() {
  local n=0
  while kill -0 "$1" 2>/dev/null; do
    [ $((n += 1)) -le $(($2 * 20)) ] || kill -KILL "$1" 2>/dev/null
    sleep 0.05
  done
  wait "$1" 2>/dev/null
}

# guest_off: asks the guest to power off. One that has slept cannot (with QEMU 11.1 it cannot sleep
# again either): that is switched off.
guest_off() {
  local limit=10
  # systemd ends its services.
  [ "$GUEST" = initramfs ] || limit=60
  [ -n "$QEMU_PID" ] || return 0
  if [ -e "$GUEST_DIR/slept" ]; then
    qmp '{"execute":"quit"}' >/dev/null
  else
    guest_send off ''
  fi
  end_process "$QEMU_PID" $limit
  QEMU_PID=''
}

# end_servers: ends the device servers that still run. SERVERS_UNHAPPY has the status of those that did not end
# well: 3 if the driver broke a rule and they were told to be strict.
end_servers() {
  local n
  SERVERS_UNHAPPY=()
  for n in "${!VNETD_PIDS[@]}"; do
    kill "${VNETD_PIDS[n]}" 2>/dev/null
    end_process "${VNETD_PIDS[n]}" 20 || SERVERS_UNHAPPY[n]=$?
    unset "VNETD_PIDS[n]"
  done
}

# guest_verdict STATUS: once the guest is off, says what the device servers have found of its driver. Returns
# STATUS, or if that is 0 the status of a server that did not end well.
guest_verdict() {
  [ "$SANITIZE" != off ] || return "$1"
  end_servers
  grep -h '^sanitizer: ' "$GUEST_DIR"/vnetd*.log >&2
  [ "$1" = 0 ] || return "$1"
  set -- "${SERVERS_UNHAPPY[@]}"
  return "${1:-0}"
}

# guest_stop: ends whatever still runs and removes the run's directory. Safe to call at any time.
guest_stop() {
  [ -z "${TERMINAL:-}" ] || stty "$TERMINAL"
  if [ -n "$QEMU_PID" ]; then
    kill "$QEMU_PID" 2>/dev/null
    end_process "$QEMU_PID" 3
    QEMU_PID=''
  fi
  end_servers
  if [ -n "$GUEST_DIR" ]; then
    [ -z "${KEEP_LOGS:-}" ] || { mkdir -p "$KEEP_LOGS" && cp "$GUEST_DIR"/*.log "$KEEP_LOGS/"; }
    rm -rf "$GUEST_DIR"
    GUEST_DIR=''
  fi
}
