// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Chains, buffers and headers of a transmit queue.

use vnet_contract::hdr::{NetHdr, F_NEEDS_CSUM, GSO_TCPV4, GSO_UDP_L4};
use vnet_contract::queue::{tx_index, Error, Kind};
use vnet_contract::ring::{DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE};
use vnet_testkit::{GuestRam, Server};

use crate::rig::{check, Rig, HDR, NOWHERE, READ_ONLY, SIZE};

/// A frame in one buffer whose header is wrong.
fn with_header(rig: &mut Rig, header: NetHdr) {
    let mut bytes = header.to_bytes().to_vec();
    bytes.resize(72, 0);
    rig.nic.ram.write(rig.page, &bytes);
    rig.raw.desc(0, rig.page, 72, 0, 0);
    rig.raw.offer(0);
}

#[test]
fn transmit_indices_and_chains() {
    check(
        Kind::Tx,
        &[
            ("avail index jumps", Error::AvailIndex, Some(65), |r| {
                r.raw.move_index(65);
            }),
            (
                "avail index runs back",
                Error::AvailIndex,
                Some(0xffff),
                |r| {
                    r.raw.move_index(0xffff);
                },
            ),
            ("head outside the ring", Error::DescIndex, Some(64), |r| {
                r.raw.offer(64);
            }),
            ("head far outside", Error::DescIndex, Some(0xffff), |r| {
                r.raw.offer(0xffff);
            }),
            ("next outside the ring", Error::DescIndex, Some(64), |r| {
                r.raw.desc(0, r.page, HDR, DESC_F_NEXT, 64);
                r.raw.offer(0);
            }),
            (
                "descriptor follows itself",
                Error::ChainLength,
                Some(5),
                |r| {
                    r.raw.desc(5, r.page, HDR, DESC_F_NEXT, 5);
                    r.raw.offer(5);
                },
            ),
            ("chain loops", Error::ChainLength, Some(0), |r| {
                for n in 0..3 {
                    r.raw.desc(n, r.page, HDR, DESC_F_NEXT, (n + 1) % 3);
                }
                r.raw.offer(0);
            }),
            (
                "loop through the whole ring",
                Error::ChainLength,
                Some(9),
                |r| {
                    for n in 0..SIZE {
                        r.raw.desc(n, r.page, HDR, DESC_F_NEXT, (n + 1) % SIZE);
                    }
                    r.raw.offer(9);
                },
            ),
            ("indirect", Error::Indirect, Some(2), |r| {
                r.raw.desc(2, r.page, 16, DESC_F_INDIRECT, 0);
                r.raw.offer(2);
            }),
            ("writable descriptor", Error::Direction, Some(1), |r| {
                r.raw.desc(0, r.page, HDR, DESC_F_NEXT, 1);
                r.raw.desc(1, r.page, 60, DESC_F_WRITE, 0);
                r.raw.offer(0);
            }),
        ],
    );
}

#[test]
fn transmit_buffers() {
    check(
        Kind::Tx,
        &[
            ("length zero", Error::BufferLength, Some(0), |r| {
                r.raw.desc(0, r.page, 0, 0, 0);
                r.raw.offer(0);
            }),
            (
                "length zero in the middle",
                Error::BufferLength,
                Some(1),
                |r| {
                    r.raw.desc(0, r.page, HDR, DESC_F_NEXT, 1);
                    r.raw.desc(1, r.page, 0, DESC_F_NEXT, 2);
                    r.raw.desc(2, r.page, 60, 0, 0);
                    r.raw.offer(0);
                },
            ),
            ("header only", Error::BufferLength, Some(3), |r| {
                r.raw.desc(3, r.page, HDR, 0, 0);
                r.raw.offer(3);
            }),
            ("half a header", Error::BufferLength, Some(3), |r| {
                r.raw.desc(3, r.page, 5, 0, 0);
                r.raw.offer(3);
            }),
            (
                "less than an Ethernet header",
                Error::BufferLength,
                Some(0),
                |r| {
                    r.raw.desc(0, r.page, HDR + 13, 0, 0);
                    r.raw.offer(0);
                },
            ),
            ("length of 4 GiB", Error::BufferLength, Some(0), |r| {
                r.raw.desc(0, r.page, u32::MAX, 0, 0);
                r.raw.offer(0);
            }),
            (
                "chain longer than any frame",
                Error::BufferLength,
                None,
                |r| {
                    let base = r.nic.ram.base();
                    for n in 0..SIZE {
                        let flags = if n + 1 < SIZE { DESC_F_NEXT } else { 0 };
                        r.raw.desc(n, base, 4096, flags, n + 1);
                    }
                    r.raw.offer(0);
                },
            ),
            ("address outside memory", Error::BufferFault, Some(1), |r| {
                r.raw.desc(0, r.page, HDR, DESC_F_NEXT, 1);
                r.raw.desc(1, NOWHERE, 60, 0, 0);
                r.raw.offer(0);
            }),
            (
                "buffer runs out of memory",
                Error::BufferFault,
                Some(0),
                |r| {
                    let end = r.nic.ram.end();
                    r.raw.desc(0, end - 50, 72, 0, 0);
                    r.raw.offer(0);
                },
            ),
            (
                "buffer begins before memory",
                Error::BufferFault,
                Some(0),
                |r| {
                    let base = r.nic.ram.base();
                    r.raw.desc(0, base - 1, 72, 0, 0);
                    r.raw.offer(0);
                },
            ),
            ("buffer wraps at 2^64", Error::BufferFault, Some(0), |r| {
                r.raw.desc(0, u64::MAX - 10, 72, 0, 0);
                r.raw.offer(0);
            }),
        ],
    );
}

#[test]
fn transmit_headers() {
    check(
        Kind::Tx,
        &[
            ("checksum outside the frame", Error::Header, Some(0), |r| {
                let header = NetHdr {
                    flags: F_NEEDS_CSUM,
                    csum_start: 59,
                    csum_offset: 0,
                    ..NetHdr::default()
                };
                with_header(r, header);
            }),
            ("checksum offset overflows", Error::Header, Some(0), |r| {
                let header = NetHdr {
                    flags: F_NEEDS_CSUM,
                    csum_start: 0xffff,
                    csum_offset: 0xffff,
                    ..NetHdr::default()
                };
                with_header(r, header);
            }),
            (
                "checksum in the Ethernet header",
                Error::Header,
                Some(0),
                |r| {
                    let header = NetHdr {
                        flags: F_NEEDS_CSUM,
                        csum_start: 2,
                        csum_offset: 2,
                        ..NetHdr::default()
                    };
                    with_header(r, header);
                },
            ),
            ("segmentation not negotiated", Error::Header, Some(0), |r| {
                let header = NetHdr {
                    flags: F_NEEDS_CSUM,
                    gso_type: GSO_TCPV4,
                    hdr_len: 54,
                    gso_size: 1,
                    csum_start: 34,
                    csum_offset: 16,
                    ..NetHdr::default()
                };
                with_header(r, header);
            }),
            ("segments of no bytes", Error::Header, Some(0), |r| {
                let header = NetHdr {
                    flags: F_NEEDS_CSUM,
                    gso_type: GSO_UDP_L4,
                    hdr_len: 42,
                    csum_start: 34,
                    csum_offset: 6,
                    ..NetHdr::default()
                };
                with_header(r, header);
            }),
            ("undefined type", Error::Header, Some(0), |r| {
                let header = NetHdr {
                    gso_type: 0x7f,
                    ..NetHdr::default()
                };
                with_header(r, header);
            }),
            ("undefined flags", Error::Header, Some(0), |r| {
                let header = NetHdr {
                    flags: 0xfe,
                    ..NetHdr::default()
                };
                with_header(r, header);
            }),
        ],
    );
}

#[test]
fn a_read_only_buffer_can_be_sent() {
    let server = Server::start_with("loopback", &["--queues", "2"]).unwrap();
    let mut rig = Rig::new(&server, Kind::Tx);
    rig.raw.desc(0, READ_ONLY, 72, 0, 0);
    rig.raw.offer(0);
    rig.kick();
    rig.wait_used();
    assert_eq!(rig.nic.card.queue_error(tx_index(0)).unwrap(), None);
}

#[test]
fn a_buffer_may_cross_two_mappings() {
    let server = Server::start_with("loopback", &["--queues", "2"]).unwrap();
    let mut rig = Rig::new(&server, Kind::Tx);
    // More memory right behind the read-only one: one buffer over the seam.
    let more = GuestRam::new(READ_ONLY + 0x4000, 0x4000).unwrap();
    rig.nic.card.map(&more).unwrap();
    rig.raw.desc(0, READ_ONLY + 0x4000 - 40, 72, 0, 0);
    rig.raw.offer(0);
    rig.kick();
    rig.wait_used();
}
