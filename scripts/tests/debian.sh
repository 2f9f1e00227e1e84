#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# A whole Debian guest: the driver is loaded by PCI alias at boot, vnet0 keeps its name and comes up
# through systemd-networkd. The way in is ssh over vnet0. In a long run it reboots, and comes up through
# NetworkManager, and reboots a few times more.
. "$(dirname "$0")/../lib/check.sh"
. "$REPO/scripts/lib/passt.sh"
. "$REPO/scripts/lib/pages.sh"

if [ "$FLAVOUR" = debug ]; then
  skip "the Debian guest has a kernel of Debian's"
  exit
fi
"$REPO/scripts/prepare" vnet "$FLAVOUR" debian || exit
. "$REPO/scripts/lib/tap.sh"
# passt takes the interface of the default route for the way to the world.
$BUSYBOX ip route add default via 10.99.0.254 dev vnettest

dir=$(mktemp -d "${TMPDIR:-/tmp}/vnet-debian.XXXXXX")
trap 'pages_end; passt_stop; rm -rf "$dir"' EXIT

port=8022
# Not in a check, with whose shell it would end.
passt_start "$dir/socket" -4 -a 10.88.0.2 -n 24 -g 10.88.0.1 -t "127.0.0.1/$port:22"
check "passt starts" test -S "$dir/socket"

# over_ssh CMD: in the guest.
over_ssh() {
  local lib=$ROOT/usr/lib/x86_64-linux-gnu
  timeout 60 "$ROOT/usr/lib64/ld-linux-x86-64.so.2" --library-path "$lib" "$ROOT/usr/bin/ssh" -F none \
    -i "$CACHE/debian-$FLAVOUR/ssh-key" -o UserKnownHostsFile="$dir/known" -o StrictHostKeyChecking=accept-new \
    -o BatchMode=yes -p "$port" root@127.0.0.1 "$1"
}
ssh_works() {
  local sent
  # Its server may be the last thing that comes up.
  for _ in $(seq 30); do
    ! over_ssh true || break
    sleep 1
  done
  [ "$(over_ssh 'cat /sys/class/net/vnet0/address')" = "$(guest_mac 0)" ] || return
  head -c 3000000 /dev/urandom >"$dir/data"
  sent=$(sha256sum <"$dir/data")
  [ "$(over_ssh 'tee /root/data | sha256sum' <"$dir/data")" = "$sent" ] || return
  [ "$(over_ssh 'cat /root/data' | sha256sum)" = "$sent" ]
}

# came_up: what holds after every boot.
came_up() {
  guest_check "$1: udev has loaded the module by the card's alias" '
    within 60 test -e /sys/class/net/vnet0
    card=$(basename "$(readlink /sys/class/net/vnet0/device)")
    modprobe --resolve-alias "$(cat /sys/bus/pci/devices/$card/modalias)" | grep -x vnet
    [ "$(modinfo -n vnet)" = "/lib/modules/$(uname -r)/updates/vnet.ko" ]
    # Nothing else asks for it.
    ! grep -rsw vnet /etc/modules /etc/modules-load.d /usr/lib/modules-load.d /etc/modprobe.d' 90
  guest_check "$1: udev, which has another name for it, keeps vnet0" '
    udevadm settle --timeout=60
    udevadm info --query=property /sys/class/net/vnet0 | tee /tmp/udev
    grep "^ID_NET_NAME_PATH=enp" /tmp/udev
    grep -x "ID_NET_DRIVER=vnet" /tmp/udev
    ip link show dev vnet0 | tee /tmp/link
    grep "altname enp" /tmp/link
    ! ls -d /sys/class/net/enp*' 90
}

FILES=("$CACHE/module-$FLAVOUR/vnet.ko")
boot GUEST=debian NET="stream:path=$dir/socket" MEM=1G SMP=2
guest_check "Debian 13 with systemd, on Debian's kernel" '
  cat /proc/version
  grep -x "VERSION_ID=\"13\"" /etc/os-release
  [ "$(cat /proc/1/comm)" = systemd ]
  uname -v | grep Debian'
came_up "first boot"
guest_check "systemd-networkd has brought it up" '
  within 60 sh -c "networkctl status vnet0 | grep \"State: routable (configured)\""
  systemctl is-active systemd-networkd
  ip -4 addr show dev vnet0 | grep 10.88.0.2/24'
check "ssh over vnet0, and 3 MB each way" ssh_works
guest_check "a guest without the driver, for the page" '
  rmmod vnet
  rm "/lib/modules/$(uname -r)/updates/vnet.ko"
  refused modprobe vnet' 120
scratch
run_page "$REPO/docs/existing-vm.md"
check "ssh over vnet0, as the page has it" ssh_works
if [ -n "${VNET_LONG:-}" ]; then
  guest_check "NetworkManager in its place, from the next boot on" '
    cat /proc/sys/kernel/random/boot_id >/root/before
    systemctl disable systemd-networkd
    systemctl enable NetworkManager' 120
  check "reboot, and the guest is there again" guest_reboot
  guest_check "it is another boot" '! diff /root/before /proc/sys/kernel/random/boot_id'
  came_up "after reboot"
  guest_check "NetworkManager has brought it up" '
    within 90 sh -c "nmcli -g GENERAL.STATE,GENERAL.CONNECTION device show vnet0 | tr \"\\n\" \" \" | grep \"^100 (connected) vnet\""
    refused systemctl is-active systemd-networkd
    ip -4 addr show dev vnet0 | grep 10.88.0.2/24' 120
  check "ssh over vnet0 again" ssh_works
  for ((n = 0; n < 5; n++)); do
    check "one more reboot" guest_reboot
    check "ssh" eval 'guest "vnet-up vnet 1 dhcp" 150 && ssh_works'
  done
fi
guest_check "the card has counted no fault" '
  for name in tx_timeouts resets queue_errors lost_states lost_cards; do [ "$(counter $name)" = 0 ]; done'
finish
