// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The system calls that have no safe wrapper: TUN's ioctls, and vectored reads and writes of
//! memory that a guest may change meanwhile.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use libc::{c_int, c_ulong};
use vm_memory::VolatileSlice;
use vnet_contract::hdr;

use crate::name::Name;
use crate::vectors::Vectors;

// linux/if_tun.h
const TUNSETIFF: c_ulong = 0x4004_54ca;
const TUNGETIFF: c_ulong = 0x8004_54d2;
const TUNSETOFFLOAD: c_ulong = 0x4004_54d0;
const TUNSETQUEUE: c_ulong = 0x4004_54d9;
const TUNSETVNETHDRSZ: c_ulong = 0x4004_54d8;
const TUNSETVNETLE: c_ulong = 0x4004_54dc;
const TUNGETDEVNETNS: c_ulong = 0x54e3;

// linux/sockios.h
const SIOCGSKNS: c_ulong = 0x894c;
const SIOCBRADDIF: c_ulong = 0x89a2;
const SIOCDEVPRIVATE: c_ulong = 0x89f0;

// linux/if_bridge.h, and the kernel's net/bridge/br_private.h
const BRCTL_GET_PORT_LIST: c_ulong = 7;
const BR_MAX_PORTS: usize = 1024;

const IFF_ATTACH_QUEUE: u16 = 0x0200;
pub(crate) const IFF_DETACH_QUEUE: u16 = 0x0400;

/// `struct ifreq`: a name, and a union of which all members that are used here come first.
#[repr(C)]
struct IfReq {
    name: [u8; 16],
    value: [u8; 24],
}

impl IfReq {
    fn new(name: &Name) -> Self {
        Self {
            name: name.bytes(),
            value: [0; 24],
        }
    }

    fn with_flags(name: [u8; 16], flags: u16) -> Self {
        let mut value = [0; 24];
        value[..2].copy_from_slice(&flags.to_ne_bytes());
        Self { name, value }
    }
}

/// Attaches a descriptor of `/dev/net/tun` to an interface, which is made if it does not exist.
pub(crate) fn attach(tun: BorrowedFd<'_>, name: &Name, flags: u16) -> io::Result<()> {
    let mut request = IfReq::with_flags(name.bytes(), flags);
    // SAFETY: TUNSETIFF reads and writes one `struct ifreq`, for which `request` has the size.
    check(unsafe { libc::ioctl(tun.as_raw_fd(), TUNSETIFF, &mut request) }).map(drop)
}

/// Name and flags (`IFF_*`) of the interface that a descriptor is attached to.
pub(crate) fn attached_to(tun: BorrowedFd<'_>) -> io::Result<(Name, u16)> {
    let mut request = IfReq::with_flags([0; 16], 0);
    // SAFETY: TUNGETIFF writes one `struct ifreq`, for which `request` has the size.
    check(unsafe { libc::ioctl(tun.as_raw_fd(), TUNGETIFF, &mut request) })?;
    let flags = u16::from_ne_bytes([request.value[0], request.value[1]]);
    Ok((Name::given(request.name), flags))
}

/// Attaches a queue of an interface with several queues, or detaches it without closing it.
pub(crate) fn set_attached(tun: BorrowedFd<'_>, attached: bool) -> io::Result<()> {
    let flags = if attached {
        IFF_ATTACH_QUEUE
    } else {
        IFF_DETACH_QUEUE
    };
    // The descriptor says which interface is meant.
    let mut request = IfReq::with_flags([0; 16], flags);
    // SAFETY: TUNSETQUEUE reads and writes one `struct ifreq` at most, for which `request` has the
    // size.
    check(unsafe { libc::ioctl(tun.as_raw_fd(), TUNSETQUEUE, &mut request) }).map(drop)
}

/// Sets the length of the header before each frame.
pub(crate) fn set_header_len(tun: BorrowedFd<'_>, len: usize) -> io::Result<()> {
    set_int(tun, TUNSETVNETHDRSZ, len as c_int)
}

/// Makes the fields of the header little-endian on every machine.
pub(crate) fn set_little_endian(tun: BorrowedFd<'_>) -> io::Result<()> {
    set_int(tun, TUNSETVNETLE, 1)
}

fn set_int(tun: BorrowedFd<'_>, request: c_ulong, value: c_int) -> io::Result<()> {
    // SAFETY: both requests that this is called with read one `int` from the address.
    check(unsafe { libc::ioctl(tun.as_raw_fd(), request, &value) }).map(drop)
}

/// Says what the reader of the TAP can do without (`TUN_F_*`).
pub(crate) fn set_offload(tun: BorrowedFd<'_>, flags: u32) -> io::Result<()> {
    // SAFETY: TUNSETOFFLOAD takes its argument by value and touches no memory of ours.
    check(unsafe { libc::ioctl(tun.as_raw_fd(), TUNSETOFFLOAD, c_ulong::from(flags)) }).map(drop)
}

/// The network namespace in which a descriptor was opened. It takes CAP_NET_ADMIN there.
pub(crate) fn opened_in(tun: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    namespace(tun, SIOCGSKNS)
}

/// The network namespace in which the interface of a descriptor is now. It takes CAP_NET_ADMIN there.
pub(crate) fn is_in(tun: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    namespace(tun, TUNGETDEVNETNS)
}

fn namespace(tun: BorrowedFd<'_>, which: c_ulong) -> io::Result<OwnedFd> {
    // SAFETY: both requests that this is called with have no argument.
    let fd = check(unsafe { libc::ioctl(tun.as_raw_fd(), which) })?;
    // SAFETY: they make a descriptor, which nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Flags (`IFF_*`) of an interface; `socket` is any socket of its network namespace.
pub(crate) fn interface_flags(socket: BorrowedFd<'_>, name: &Name) -> io::Result<u16> {
    let value = interface(socket, name, libc::SIOCGIFFLAGS)?;
    Ok(u16::from_ne_bytes([value[0], value[1]]))
}

/// MTU of an interface; `socket` is any socket of its network namespace.
pub(crate) fn interface_mtu(socket: BorrowedFd<'_>, name: &Name) -> io::Result<u32> {
    let value = interface(socket, name, libc::SIOCGIFMTU)?;
    Ok(u32::from_ne_bytes([value[0], value[1], value[2], value[3]]))
}

/// What an interface's frames begin with (`ARPHRD_*`); `socket` is any socket of its network namespace.
pub(crate) fn interface_type(socket: BorrowedFd<'_>, name: &Name) -> io::Result<u16> {
    let value = interface(socket, name, libc::SIOCGIFHWADDR)?;
    Ok(u16::from_ne_bytes([value[0], value[1]]))
}

/// Index of an interface; `socket` is any socket of its network namespace.
pub(crate) fn interface_index(socket: BorrowedFd<'_>, name: &Name) -> io::Result<u32> {
    let value = interface(socket, name, libc::SIOCGIFINDEX)?;
    Ok(u32::from_ne_bytes([value[0], value[1], value[2], value[3]]))
}

/// Sets the MTU of an interface; `socket` is any socket of its network namespace.
pub(crate) fn set_interface_mtu(socket: BorrowedFd<'_>, name: &Name, mtu: u32) -> io::Result<()> {
    set_interface(socket, name, libc::SIOCSIFMTU, &mtu.to_ne_bytes())
}

/// Brings an interface up; `socket` is any socket of its network namespace.
pub(crate) fn bring_up(socket: BorrowedFd<'_>, name: &Name) -> io::Result<()> {
    let flags = interface_flags(socket, name)? | libc::IFF_UP as u16;
    set_interface(socket, name, libc::SIOCSIFFLAGS, &flags.to_ne_bytes())
}

/// Makes the interface with this index a port of a bridge.
pub(crate) fn join_bridge(socket: BorrowedFd<'_>, bridge: &Name, index: u32) -> io::Result<()> {
    set_interface(socket, bridge, SIOCBRADDIF, &index.to_ne_bytes())
}

/// True if the interface with this index is a port of the bridge, which has to be one.
pub(crate) fn is_in_bridge(socket: BorrowedFd<'_>, bridge: &Name, index: u32) -> bool {
    let mut ports = [0 as c_int; BR_MAX_PORTS];
    // The addresses stay valid for as long as the call takes.
    let arguments: [c_ulong; 4] = [
        BRCTL_GET_PORT_LIST,
        ports.as_mut_ptr().expose_provenance() as c_ulong,
        ports.len() as c_ulong,
        0,
    ];
    let mut request = IfReq::new(bridge);
    let address = arguments.as_ptr().expose_provenance();
    request.value[..size_of::<usize>()].copy_from_slice(&address.to_ne_bytes());
    // SAFETY: a bridge takes the address of four numbers for this, which are there, and writes no more
    // `int`s to the address in the second one than the third one says, which `ports` has room for. It
    // is not told whose memory that is, so both are looked at only afterwards.
    let told = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCDEVPRIVATE, &mut request) };
    check(told).is_ok() && ports.contains(&(index as c_int))
}

fn interface(socket: BorrowedFd<'_>, name: &Name, what: c_ulong) -> io::Result<[u8; 24]> {
    request(socket, what, IfReq::new(name))
}

fn set_interface(
    socket: BorrowedFd<'_>,
    name: &Name,
    what: c_ulong,
    value: &[u8],
) -> io::Result<()> {
    let mut all = IfReq::new(name);
    all.value[..value.len()].copy_from_slice(value);
    request(socket, what, all).map(drop)
}

fn request(socket: BorrowedFd<'_>, what: c_ulong, mut request: IfReq) -> io::Result<[u8; 24]> {
    // SAFETY: all requests that this is called with read and write one `struct ifreq` at most, for
    // which `request` has the size, and take no address from it.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), what, &mut request) })?;
    Ok(request.value)
}

/// Writes one frame: the header, then the first `MAX_PARTS` of `parts`.
pub(crate) fn write(
    tun: BorrowedFd<'_>,
    header: &[u8; hdr::SIZE],
    parts: &[VolatileSlice<'_>],
) -> io::Result<usize> {
    let vectors = Vectors::source(header, parts);
    let all = vectors.as_slice();
    // SAFETY: the vectors describe `header`, and memory that `parts` borrows, so all of it stays
    // mapped during the call. The kernel only reads it. That the guest may write to it at the same
    // time is nothing to the kernel, and there is no Rust reference to it.
    let n = unsafe { libc::writev(tun.as_raw_fd(), all.as_ptr(), all.len() as c_int) };
    usize::try_from(n).map_err(|_| io::Error::last_os_error())
}

/// Reads one frame: the header, then into the first `MAX_PARTS` of `parts`, and what they have
/// no room for into `spill`. Returns the number of bytes, with the header.
pub(crate) fn read(
    tun: BorrowedFd<'_>,
    header: VolatileSlice<'_>,
    parts: &[VolatileSlice<'_>],
    spill: &mut [u8],
) -> io::Result<usize> {
    let vectors = Vectors::target(header, parts, spill);
    let all = vectors.as_slice();
    // SAFETY: the vectors describe `spill`, which is borrowed for writing, and memory that `header` and
    // `parts` borrow, so all of it stays mapped during the call, and is apart from the others. That
    // somebody else may access the latter two at the same time is nothing to the kernel, and there is
    // no Rust reference to them.
    let n = unsafe { libc::readv(tun.as_raw_fd(), all.as_ptr(), all.len() as c_int) };
    usize::try_from(n).map_err(|_| io::Error::last_os_error())
}

fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}
