// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The system calls on packet sockets that have no safe wrapper.

#![allow(unsafe_code)]

use std::io;
use std::mem::{size_of, size_of_val, zeroed};
use std::os::fd::{AsRawFd, BorrowedFd};

use libc::{c_int, c_uint, c_void, socklen_t};
use vnet_tap::Vectors;

// linux/if_packet.h, not in libc.
const PACKET_VNET_HDR_SZ: c_int = 24;

const TP_STATUS_VLAN_VALID: u32 = 1 << 4;
const TP_STATUS_VLAN_TPID_VALID: u32 = 1 << 6;

/// The protocol of a VLAN tag, if the kernel does not say.
const VLAN: u16 = 0x8100;

/// `struct tpacket_auxdata`.
#[repr(C)]
#[derive(Clone, Copy)]
struct AuxData {
    status: u32,
    len: u32,
    snaplen: u32,
    mac: u16,
    net: u16,
    vlan_tci: u16,
    vlan_tpid: u16,
}

/// Room for the control messages of a call: one with [`AuxData`], and alignment.
#[repr(C, align(8))]
struct Control([u8; 64]);

/// Binds a packet socket to an interface; `protocol` 0: it only sends.
pub(crate) fn bind(socket: BorrowedFd<'_>, index: u32, protocol: c_int) -> io::Result<()> {
    // SAFETY: zeros are a valid value of this plain structure.
    let mut address: libc::sockaddr_ll = unsafe { zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (protocol as u16).to_be();
    address.sll_ifindex = index as c_int;
    let len = size_of_val(&address) as socklen_t;
    // SAFETY: the address is valid for its length during the call, which only reads it.
    let result = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len) };
    check(result)
}

/// Has the socket speak a header before each frame, and returns how long it is.
pub(crate) fn set_header(socket: BorrowedFd<'_>, len: usize, short: usize) -> io::Result<usize> {
    if set(socket, PACKET_VNET_HDR_SZ, &(len as c_int)).is_ok() {
        return Ok(len);
    }
    // Before Linux 6.4 there is only the header without its last field.
    set(socket, libc::PACKET_VNET_HDR, &1)?;
    Ok(short)
}

/// Asks for tags beside the frames, and for no frames that others on this machine send there.
pub(crate) fn set_up(socket: BorrowedFd<'_>) -> io::Result<()> {
    set(socket, libc::PACKET_AUXDATA, &1)?;
    set(socket, libc::PACKET_IGNORE_OUTGOING, &1)
}

/// Has the interface take all frames, for as long as the socket is open.
pub(crate) fn set_promiscuous(socket: BorrowedFd<'_>, index: u32) -> io::Result<()> {
    // SAFETY: zeros are a valid value of this plain structure.
    let mut request: libc::packet_mreq = unsafe { zeroed() };
    request.mr_ifindex = index as c_int;
    request.mr_type = libc::PACKET_MR_PROMISC as u16;
    set(socket, libc::PACKET_ADD_MEMBERSHIP, &request)
}

/// Frames that were lost since the last call as the socket had no room.
pub(crate) fn lost(socket: BorrowedFd<'_>) -> u32 {
    let mut stats = [0 as c_uint; 2];
    let mut len = size_of_val(&stats) as socklen_t;
    // SAFETY: PACKET_STATISTICS writes a `struct tpacket_stats`, which is two of these numbers, and
    // no more than `len` bytes.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            (&raw mut stats).cast(),
            &mut len,
        )
    };
    match result {
        0 => stats[1],
        _ => 0,
    }
}

fn set<T: Copy>(socket: BorrowedFd<'_>, option: c_int, value: &T) -> io::Result<()> {
    let len = size_of::<T>() as socklen_t;
    let value: *const T = value;
    // SAFETY: the value is valid for its length during the call, which only reads it.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            option,
            value.cast::<c_void>(),
            len,
        )
    };
    check(result)
}

/// Sends one frame.
pub(crate) fn send(socket: BorrowedFd<'_>, vectors: &Vectors<'_>) -> io::Result<usize> {
    let all = vectors.as_slice();
    // SAFETY: zeros are a valid value of this plain structure.
    let mut message: libc::msghdr = unsafe { zeroed() };
    message.msg_iov = all.as_ptr().cast_mut();
    message.msg_iovlen = all.len();
    // SAFETY: the vectors keep what they describe borrowed, and so mapped. The kernel only reads it,
    // and does not write to the vectors.
    let n = unsafe { libc::sendmsg(socket.as_raw_fd(), &message, libc::MSG_DONTWAIT) };
    usize::try_from(n).map_err(|_| io::Error::last_os_error())
}

/// Receives one frame. Returns the number of bytes, and the VLAN tag that was taken off it.
pub(crate) fn receive(
    socket: BorrowedFd<'_>,
    vectors: &Vectors<'_>,
) -> io::Result<(usize, Option<[u8; 4]>)> {
    let all = vectors.as_slice();
    let mut control = Control([0; 64]);
    // SAFETY: zeros are a valid value of this plain structure.
    let mut message: libc::msghdr = unsafe { zeroed() };
    message.msg_iov = all.as_ptr().cast_mut();
    message.msg_iovlen = all.len();
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = control.0.len();
    // SAFETY: the vectors keep what they describe borrowed for writing, and so mapped, and the
    // control buffer is valid for its length. The kernel does not write to the vectors themselves.
    let n = unsafe { libc::recvmsg(socket.as_raw_fd(), &mut message, libc::MSG_DONTWAIT) };
    let n = usize::try_from(n).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: the kernel has just filled in the message, whose control buffer lives on.
    let first = unsafe { libc::CMSG_FIRSTHDR(&message) };
    if first.is_null() {
        return Ok((n, None));
    }
    // SAFETY: not null, so it points to a whole header within the control buffer.
    let header = unsafe { first.read_unaligned() };
    // SAFETY: computes a length only.
    let least = unsafe { libc::CMSG_LEN(size_of::<AuxData>() as u32) };
    if header.cmsg_level != libc::SOL_PACKET
        || header.cmsg_type != libc::PACKET_AUXDATA
        || header.cmsg_len < least as usize
    {
        return Ok((n, None));
    }
    // SAFETY: the message is as long as its structure, as was just checked, and lies within the
    // control buffer, as the kernel says that it does.
    let aux = unsafe { libc::CMSG_DATA(first).cast::<AuxData>().read_unaligned() };
    let tag = (aux.status & TP_STATUS_VLAN_VALID != 0).then(|| {
        let kind = match aux.status & TP_STATUS_VLAN_TPID_VALID {
            0 => VLAN,
            _ => aux.vlan_tpid,
        };
        let ([a, b], [c, d]) = (kind.to_be_bytes(), aux.vlan_tci.to_be_bytes());
        [a, b, c, d]
    });
    Ok((n, tag))
}

fn check(result: c_int) -> io::Result<()> {
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
