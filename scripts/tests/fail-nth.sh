#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# Memory runs out at every single allocation that is made for the driver: the first one of an operation
# fails, then the second, until the operation gets by without one that is left to fail; in a short run one
# of seven, from the first on or from VNET_FIRST. Each time it is refused or done, the card can be used, and the next
# attempt starts from there. So it is with those of a transfer that is received; besides, many are lost by chance. Runs on
# the debug kernel only, whose fault injection does it. "--only PATTERN" takes a part.
. "$(dirname "$0")/../lib/check.sh"
. "$REPO/scripts/lib/xdp.sh"

only='*'
while [ $# -gt 0 ]; do
  case $1 in
    --only) only=${2:?} && shift ;;
    *) die "usage: ${0##*/} [--only PATTERN]" ;;
  esac
  shift
done
if [ "$FLAVOUR" != debug ]; then
  skip "fault injection is in the debug kernel: VNET_TEST_FLAVOUR=debug"
  exit
fi

step=7 first=${VNET_FIRST:-$((RANDOM % 7 + 1))}
[ -z "${VNET_LONG:-}" ] || step=1 first=${VNET_FIRST:-1}
echo "VNET_FIRST=$first, then every $step"
check "XDP programs compile" xdp_programs
FILES=("$XDP_PROGRAMS")
# What vmalloc says of an allocation that failed has a trace of its own; and the kernel warns when an interrupt goes
# whose entry in /proc it had no memory for.
LOG_EXPECTED='Call Trace|WARNING: at remove_proc_entry'
# Short of memory, it forgets a bitmap: docs/trust.md.
# shellcheck disable=SC2034 # read by nothing_leaked
LEAKS_EXPECTED=' ida_alloc_range\+'
boot QUEUES=2

IN_GUEST+="
step=$step first=$first"'
card=$(cat /tmp/card 2>/dev/null || true)
driver=/sys/bus/pci/drivers/vnet
kinds="/sys/kernel/debug/failslab /sys/kernel/debug/fail_page_alloc"

# set_all NAME VALUE: for slabs and pages.
set_all() {
  for kind in $kinds; do echo $2 >$kind/$1; done
}
# address FUNCTION
address() {
  sed -n "s/^\([0-9a-f]*\) . $1\$/0x\1/p" /proc/kallsyms
}
# spare FIRST NEXT: allocations for functions of the kernel from the one to before the other do not fail.
spare() {
  set_all reject-start $(address $1)
  set_all reject-end $(address $2)
}
# The DMA checker, without memory for what it notes, would end.
spare_checker() { spare debug_dma_dump_mappings debug_dma_free_pages; }
# Allocations that were made to fail so far: each takes one of many times.
injected() {
  read slabs </sys/kernel/debug/failslab/times
  read pages </sys/kernel/debug/fail_page_alloc/times
  echo $((4000000000 - slabs - pages))
}
# one_fails N COMMAND...: runs it with the N-th allocation failing.
one_fails() {
  sh -c "echo \$0 >/proc/self/fail-nth; exec \"\$@\"" "$@"
}
# poll_fails N COMMAND...: with the N-th that a poll makes meanwhile. They can be counted where a thread polls.
poll_fails() {
  poller=$(polls)
  echo $1 >$poller/fail-nth
  shift
  "$@"
  result=$?
  echo 0 >$poller/fail-nth
  return $result
}
polls() {
  dirname $(grep -l "^napi/vnet0-" /proc/[0-9]*/comm)
}
# walk NAME COMMAND...: runs it with one allocation failing, the first, the second and so on. What
# check_NAME finds afterwards must be right; it is told whether the command succeeded, and takes it back.
# A short run tries one in seven.
walk() {
  name=$1 fails=one_fails
  # Few are made there.
  [ $name != receive ] || fails=poll_fails first=1 step=1
  nth=$((first - step)) tried=0 refused=0
  shift
  while [ $nth -lt 3000 ]; do
    nth=$((nth + step)) had=$(injected)
    for _ in $(seq 50); do
      if $fails $nth "$@" >/tmp/out 2>&1; then status=done; else status=refused; fi
      # See ethtool in in-guest.sh.
      grep -q "temporarily unavailable" /tmp/out || break
      usleep 200000
    done
    failed=$(($(injected) - had))
    # In a condition, the first command that fails would not end it.
    (check_$name $status) >/tmp/check 2>&1 &
    wait $! || {
      echo "$name: wrong after allocation $nth failed, $status"
      cat /tmp/out /tmp/check
      return 1
    }
    [ $failed != 0 ] || break
    tried=$((tried + 1))
    [ $status = done ] || refused=$((refused + 1))
  done
  echo "$tried allocations failed, $refused times it was refused"
  [ $status = done ]
  # Otherwise no failure is injected at all. The others may get by without memory.
  case $name in
    insmod | bind | open | rings | channels | split | xdp | reset | unbind | receive) [ $tried -gt 0 ] ;;
  esac
}
answers() {
  ping -c 1 -W 5 $gateway || ping -c 1 -W 5 $gateway
}
rings() {
  ethtool -g vnet0 | sed -n "/^Current/,\$s/^RX:[[:space:]]*//p"
}
channels() {
  ethtool -l vnet0 | sed -n "/^Current/,\$s/^Combined:[[:space:]]*//p"
}

check_insmod() {
  if [ $1 = done ]; then
    [ -e $driver ]
    rmmod vnet
  fi
  # The kernel takes back a driver, also one that it half entered, when its kobject is released, which is late here.
  within 5 [ ! -e $driver ]
}
check_bind() {
  if [ $1 = refused ]; then
    [ ! -e /sys/class/net/vnet0 ]
    [ ! -e $driver/$card ]
  else
    [ -e /sys/class/net/vnet0 ]
    echo $card >$driver/unbind
  fi
}
check_open() {
  if [ $1 = refused ]; then
    ip link show vnet0 >/tmp/link
    refused grep "[<,]UP[,>]" /tmp/link
  else
    answers
    ip link set vnet0 down
  fi
}
check_close() {
  [ $1 = done ]
  ip link set vnet0 up
  answers
}
check_rings() {
  if [ $1 = refused ]; then
    [ $(rings) = 64 ]
  else
    [ $(rings) = 128 ]
    ethtool -G vnet0 rx 64 tx 64
  fi
  answers
}
check_channels() {
  if [ $1 = refused ]; then
    [ $(channels) = 1 ]
  else
    [ $(channels) = 2 ]
    ethtool -L vnet0 combined 1
  fi
  answers
}
check_mtu() {
  if [ $1 = refused ]; then
    grep -x 1500 /sys/class/net/vnet0/mtu
  else
    ip link set vnet0 mtu 1500
  fi
  answers
}
check_split() {
  if [ $1 = refused ]; then
    ethtool -g vnet0 | grep "TCP data split:.*off"
  else
    ethtool -G vnet0 tcp-data-split off
  fi
  answers
}
check_xdp() {
  if [ $1 = refused ]; then
    refused eval "ip link show vnet0 | grep prog/xdp"
  else
    ip link set vnet0 xdpdrv off
  fi
  answers
}
check_xdpoff() {
  if [ $1 = refused ]; then
    ip link show vnet0 | grep prog/xdp
  else
    ip link set vnet0 xdpdrv obj /root/programs.o program pass
  fi
  answers
}
check_settings() { answers; }
check_reset() {
  # A card that could not be started is tried again, after four seconds at most.
  within 20 ping -c 1 -W 1 $gateway
}
# What a frame has no memory for is sent again. The next attempt begins with no buffer in the pool.
check_receive() {
  [ $1 = done ]
  ip link set vnet0 down
  ip link set vnet0 up
  answers
}
check_unbind() {
  [ $1 = done ]
  [ ! -e /sys/class/net/vnet0 ]
  echo $card >$driver/bind
  small
}
polled() {
  echo 1 >/sys/class/net/vnet0/threaded
  within 5 polls
}
# As little as there can be.
small() {
  ip link set vnet0 up
  ip addr replace $guest/24 dev vnet0
  ethtool -G vnet0 rx 64 tx 64
  [ $(channels) = 1 ] || ethtool -L vnet0 combined 1
}
'

guest_check "the allocations of modules can be told from the others" '
  basename $(readlink /sys/class/net/vnet0/device) >/tmp/card
  grep "^ffffffff[a-f].*\[vnet\]" /proc/kallsyms | head -n 3
  # The kernel itself is below.
  set_all require-start 0xffffffffa0000000
  spare_checker
  set_all ignore-gfp-wait N
  set_all verbose 0
  set_all times 2000000000
  echo N >/sys/kernel/debug/fail_page_alloc/ignore-gfp-highmem
  echo 0 >/sys/kernel/debug/fail_page_alloc/min-order
  echo 8192 >/sys/kernel/tracing/buffer_size_kb
  echo 1 >/sys/kernel/tracing/events/page_pool/page_pool_release/enable
  one_fails 1 ls / >/dev/null
  [ $(injected) = 0 ]'

# part NAME TITLE PREPARATION COMMAND...
part() {
  local name=$1 title=$2 before=$3 output
  shift 3
  # shellcheck disable=SC2053 # a pattern
  [[ $name == $only ]] || return 0
  if output=$(guest "set -e
$IN_GUEST
{ $before; } >/tmp/before 2>&1 || { cat /tmp/before; exit 1; }
walk $name $*" 300 2>&1); then
    ok "$title: $(tail -n 1 <<<"$output")"
  else
    not_ok "$title"
    printf '%s\n' "$output" | sed 's/^/    /'
    guest 'dmesg | tail -n 40' | sed 's/^/    /'
  fi
}
# To load a module takes its time here, so that the card is left for later.
part insmod "module is loaded" 'rmmod vnet; echo 0 >/sys/bus/pci/drivers_autoprobe' insmod /vnet.ko
guest 'echo 1 >/sys/bus/pci/drivers_autoprobe; [ -e /sys/module/vnet ] || insmod /vnet.ko'
# shellcheck disable=SC2016 # expanded there
{
  # Linux 7.3 itself does not survive a failure to add an interface to sysfs, when kobjects are released late:
  # docs/trust.md.
  part bind "card is probed" 'spare netdev_register_kobject netdev_uevent_add; echo $card >$driver/unbind' \
    'sh -c "echo $card >$driver/bind"'
  guest "$IN_GUEST"'spare_checker; [ -e $driver/$card ] || echo $card >$driver/bind'
  part open "interface is opened" 'small; ip link set vnet0 down' ip link set vnet0 up
  part close "... and closed" small ip link set vnet0 down
  part rings "rings are resized" small ethtool -G vnet0 rx 128 tx 128
  part channels "a queue pair is added" small ethtool -L vnet0 combined 2
  part mtu "MTU is changed" small ip link set vnet0 mtu 9000
  part split "headers and data are split" small ethtool -G vnet0 tcp-data-split on
  part xdp "an XDP program comes" small \
    ip -force link set vnet0 xdpdrv obj /root/programs.o program pass
  part xdpoff "... and goes" 'small; ip -force link set vnet0 xdpdrv obj /root/programs.o program pass' \
    ip link set vnet0 xdpdrv off
  part settings "flows are spread otherwise" small ethtool -X vnet0 equal 1
  part settings "interrupts are moderated" small ethtool -C vnet0 adaptive-rx off rx-usecs 50
  part settings "statistics are read" small ethtool -S vnet0
  part settings "an address is added" small bridge fdb add 02:00:00:00:00:07 dev vnet0 self
  part reset "card is reset" small 'sh -c "echo 1 >$driver/$card/reset"'
  part receive "a transfer is received" 'small; polled' from_card 300000 3
  part receive "... in jumbo frames" 'ip link set vnet0 mtu 9000' from_card 300000 3
  part receive "... with headers apart" \
    'ip link set vnet0 mtu 1500; ethtool -G vnet0 tcp-data-split on' from_card 300000 3
  part receive "... with an XDP program" \
    'ethtool -G vnet0 tcp-data-split off
    ip -force link set vnet0 xdpdrv obj /root/programs.o program pass_frags' from_card 300000 3
  # shellcheck disable=SC2053 # a pattern
  [[ receive != $only ]] || guest_check "no thread polls any more" '
    ip link set vnet0 xdpdrv off
    echo 0 >/sys/class/net/vnet0/threaded
    small
    pings'
  part unbind "card is let go" small 'sh -c "echo $card >$driver/unbind"'
}

# While memory fails.
# shellcheck disable=SC2016 # expanded there
receive='
# failing PERCENT: of the allocations made in polls.
failing() { set_all probability $1; }
starve() {
  had=$(injected)
  traffic
  for percent in 5 30 100; do
    before=$(injected)
    failing $percent
    sleep 2
    # A kernel that gets little of the CPU makes few.
    within 2 eval "[ \$((\$(injected) - $before)) -ge 7 ]" || true
  done
  failing 0
  end_traffic
  echo "$(($(injected) - had)) allocations failed"
  [ $(($(injected) - had)) -ge 20 ]
  pings
  from_card 1000000 3
  to_card 1000000
}
'
during() {
  # shellcheck disable=SC2053 # a pattern
  [[ receive == $only ]] || return 0
  guest_check "memory fails in polls, $1" "$receive$2" 120
}
during "frames in few buffers" 'small; starve'
during "jumbo frames" 'ip link set vnet0 mtu 9000; starve; ip link set vnet0 mtu 1500'
during "headers apart" 'ethtool -G vnet0 tcp-data-split on; starve; ethtool -G vnet0 tcp-data-split off'
during "with an XDP program" '
  ip -force link set vnet0 xdpdrv obj /root/programs.o program pass_frags
  starve
  ip link set vnet0 xdpdrv off'
during "two queue pairs of large rings" 'ethtool -G vnet0 rx 1024 tx 1024; ethtool -L vnet0 combined 2; starve'
guest_check "no transmit queue was stuck, and every page pool was empty when it went" '
  small
  [ $(counter tx_timeouts) = 0 ]
  [ $(counter queue_errors) = 0 ]
  rmmod vnet
  sleep 2
  sed -n "s/.*page_pool_release: page_pool=\([^ ]*\) inflight=\([^ ]*\) .*/\1 \2/p" \
    /sys/kernel/tracing/trace >/tmp/pools
  [ -s /tmp/pools ]
  awk "{ left[\$1] = \$2 } END { for (p in left) if (left[p] != 0) print p, left[p] }" /tmp/pools >/tmp/full
  cat /tmp/full
  [ ! -s /tmp/full ]'
finish
