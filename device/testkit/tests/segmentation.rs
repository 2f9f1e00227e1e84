// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Large frames over the real socket: whole where the receiver takes them, cut where it does not.
#![allow(missing_docs)]

mod common;

use common::{counter, options};
use vnet_contract::features::{RX_CSUM, RX_ECN, RX_TSO4, RX_USO, TX_CSUM, TX_ECN, TX_TSO4, TX_USO};
use vnet_contract::hdr::{NetHdr, F_NEEDS_CSUM, GSO_ECN, GSO_TCPV4, GSO_UDP_L4};
use vnet_contract::{queue, regs};
use vnet_testkit::{Nic, Options, Received, Server};

/// Offset of the transport header.
const TRANSPORT: usize = 34;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ACK: u8 = 0x10;
const PSH: u8 = 0x08;
const CWR: u8 = 0x80;
const SEGMENT: usize = 1448;

fn driver(server: &Server, features: u64) -> Nic {
    let usual = options();
    let large = Options {
        features: usual.features & !(RX_CSUM | TX_CSUM) | features,
        max_frame: 65_553,
        ring_size: 64,
        ..usual
    };
    server.nic_with(large).unwrap()
}

/// Sum of the bytes as 16-bit words, folded.
fn sum(bytes: &[u8]) -> u32 {
    let words = bytes.chunks(2);
    let sum: u32 = words
        .map(|w| u32::from(w[0]) << 8 | u32::from(*w.get(1).unwrap_or(&0)))
        .sum();
    fold(sum)
}

fn fold(mut sum: u32) -> u32 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum
}

fn pseudo_sum(frame: &[u8]) -> u32 {
    let len = (frame.len() - TRANSPORT) as u32;
    fold(sum(&frame[26..34]) + u32::from(frame[23]) + len)
}

/// A large frame to the card itself, with its header.
fn large(nic: &Nic, protocol: u8, payload: usize) -> (NetHdr, Vec<u8>) {
    let (transport, checksum, gso_type) = match protocol {
        TCP => (20, 16, GSO_TCPV4 | GSO_ECN),
        _ => (8, 6, GSO_UDP_L4),
    };
    let headers = TRANSPORT + transport;
    let mut frame = vec![0; headers];
    frame[..6].copy_from_slice(&nic.mac);
    frame[6..12].copy_from_slice(&nic.mac);
    frame[12..16].copy_from_slice(&[0x08, 0x00, 0x45, 0]);
    let len = (headers - 14 + payload) as u16;
    frame[16..18].copy_from_slice(&len.to_be_bytes());
    frame[22..24].copy_from_slice(&[64, protocol]);
    frame[26..34].copy_from_slice(&[192, 0, 2, 1, 192, 0, 2, 2]);
    if protocol == TCP {
        frame[46..48].copy_from_slice(&[0x50, ACK | PSH | CWR]);
    }
    frame.extend((0..payload).map(|n| (n / 7) as u8));
    let pseudo = (pseudo_sum(&frame) as u16).to_be_bytes();
    let field = TRANSPORT + checksum;
    frame[field..field + 2].copy_from_slice(&pseudo);
    let header = NetHdr {
        flags: F_NEEDS_CSUM,
        gso_type,
        hdr_len: headers as u16,
        gso_size: SEGMENT as u16,
        csum_start: TRANSPORT as u16,
        csum_offset: checksum as u16,
        num_buffers: 0,
    };
    (header, frame)
}

/// Takes the segments of the frame, and checks that they are right and all of it.
fn expect_segments(nic: &mut Nic, sent: &[u8], headers: usize, checksummed: bool) {
    let mut payload = Vec::new();
    let count = (sent.len() - headers).div_ceil(SEGMENT);
    for index in 0..count {
        let Received { header, frame, .. } = nic.expect(0).unwrap();
        assert_eq!(header.gso_type, 0);
        assert_eq!(sum(&frame[14..TRANSPORT]), 0xffff, "IP checksum");
        let total = u16::from_be_bytes([frame[16], frame[17]]);
        assert_eq!(usize::from(total), frame.len() - 14);
        let ident = u16::from_be_bytes([frame[18], frame[19]]);
        assert_eq!(usize::from(ident), index);
        if checksummed {
            assert_eq!(header.flags, 0);
            let all = fold(pseudo_sum(&frame) + sum(&frame[TRANSPORT..]));
            assert_eq!(all, 0xffff, "transport checksum");
        } else {
            assert_eq!(header.flags, F_NEEDS_CSUM);
            assert_eq!(usize::from(header.csum_start), TRANSPORT);
            let field = TRANSPORT + usize::from(header.csum_offset);
            let stands = u16::from_be_bytes([frame[field], frame[field + 1]]);
            assert_eq!(u32::from(stands), pseudo_sum(&frame));
        }
        if frame[23] == TCP {
            let sequence = u32::from_be_bytes([frame[38], frame[39], frame[40], frame[41]]);
            assert_eq!(sequence as usize, payload.len());
            let mut flags = ACK;
            flags |= if index == 0 { CWR } else { 0 };
            flags |= if index + 1 == count { PSH } else { 0 };
            assert_eq!(frame[47], flags);
        }
        payload.extend_from_slice(&frame[headers..]);
    }
    assert!(payload == sent[headers..]);
}

#[test]
fn a_large_frame_comes_back_whole_to_a_driver_that_takes_it() {
    let server = Server::start("loopback").unwrap();
    let all = TX_CSUM | TX_TSO4 | TX_ECN | TX_USO | RX_CSUM | RX_TSO4 | RX_ECN | RX_USO;
    let mut nic = driver(&server, all);
    for (protocol, payload) in [(TCP, 20_000), (TCP, 65_400), (UDP, 20_000)] {
        let (header, frame) = large(&nic, protocol, payload);
        nic.send_with(0, header, &frame).unwrap();
        let back = nic.expect(0).unwrap();
        assert!(back.frame == frame);
        let got = (
            back.header.flags,
            back.header.gso_type,
            back.header.gso_size,
        );
        assert_eq!(got, (header.flags, header.gso_type, header.gso_size));
        assert_eq!(back.header.hdr_len, header.hdr_len);
    }
}

#[test]
fn a_large_frame_comes_back_in_segments_to_a_driver_that_does_not() {
    let server = Server::start("loopback").unwrap();
    let transmit = TX_CSUM | TX_TSO4 | TX_ECN | TX_USO;
    // With TCP taken but not CWR: what is missing decides.
    for receive in [0, RX_CSUM, RX_CSUM | RX_TSO4] {
        let mut nic = driver(&server, transmit | receive);
        for (protocol, payload) in [(TCP, 1), (TCP, 20_000), (TCP, 65_400), (UDP, 20_000)] {
            let (header, frame) = large(&nic, protocol, payload);
            nic.send_with(0, header, &frame).unwrap();
            expect_segments(&mut nic, &frame, header.hdr_len.into(), receive == 0);
        }
        let tx = queue::tx_index(0);
        // A large frame counts as one.
        assert_eq!(counter(&mut nic, tx, regs::S_FRAMES), 4);
        assert_eq!(counter(&mut nic, tx, regs::S_DROPS), 0);
    }
}

#[test]
fn what_the_driver_takes_may_change_under_way() {
    let server = Server::start("loopback").unwrap();
    let receive = RX_CSUM | RX_TSO4 | RX_ECN;
    let mut nic = driver(&server, TX_CSUM | TX_TSO4 | TX_ECN | receive);
    let (header, frame) = large(&nic, TCP, 30_000);
    for large in [true, false, true, false] {
        let offloads = if large { receive } else { 0 };
        nic.card
            .set_reg(regs::RX_OFFLOADS, offloads as u32)
            .unwrap();
        assert_eq!(nic.card.reg(regs::RX_OFFLOADS).unwrap(), offloads as u32);
        nic.send_with(0, header, &frame).unwrap();
        if large {
            assert!(nic.expect(0).unwrap().frame == frame);
        } else {
            expect_segments(&mut nic, &frame, header.hdr_len.into(), true);
        }
    }
}

#[test]
fn a_large_frame_that_is_none_is_dropped_and_counted() {
    let server = Server::start("loopback").unwrap();
    let mut nic = driver(&server, TX_CSUM | TX_TSO4 | TX_ECN);
    let (header, good) = large(&nic, TCP, 3000);
    let mut bad = good.clone();
    // Not IPv4, whatever the header says.
    bad[12] = 0x86;
    nic.send_with(0, header, &bad).unwrap();
    nic.send_with(0, header, &good).unwrap();
    expect_segments(&mut nic, &good, header.hdr_len.into(), true);
    let tx = queue::tx_index(0);
    assert_eq!(counter(&mut nic, tx, regs::S_FRAMES), 1);
    assert_eq!(counter(&mut nic, tx, regs::S_BYTES), good.len() as u64);
    assert_eq!(counter(&mut nic, tx, regs::S_DROPS), 1);
}
