// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Tables of descriptors, good and bad, of both kinds of queues.

use vnet_contract::features::INDIRECT_DESC;
use vnet_contract::queue::{Error, Kind};
use vnet_contract::ring::{Desc, DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE};
use vnet_ring::Memory as _;
use vnet_testkit::Server;

use crate::common::own;
use crate::rig::{check_with, Case, Rig, HDR, NOWHERE, SIZE};

/// Where a rig's page has room for a table.
const TABLE: u64 = 2048;

#[test]
fn indirect_tables() {
    let cases: [Case; 5] = [
        ("no table", Error::Indirect, Some(3), |r| {
            r.raw.desc(3, r.page, 0, DESC_F_INDIRECT, 0);
            r.raw.offer(3);
        }),
        (
            "table longer than the ring",
            Error::Indirect,
            Some(3),
            |r| {
                let len = 16 * (u32::from(SIZE) + 1);
                r.raw.desc(3, r.page, len, DESC_F_INDIRECT, 0);
                r.raw.offer(3);
            },
        ),
        ("table outside memory", Error::BufferFault, Some(3), |r| {
            r.raw.desc(3, NOWHERE, 32, DESC_F_INDIRECT, 0);
            r.raw.offer(3);
        }),
        ("table in a table", Error::Indirect, Some(3), |r| {
            let inner = Desc {
                addr: r.page,
                len: 16,
                flags: DESC_F_INDIRECT,
                next: 0,
            };
            r.raw.indirect(3, r.page + TABLE, &[inner]);
            r.raw.offer(3);
        }),
        ("link out of the table", Error::DescIndex, Some(2), |r| {
            let write = match r.kind {
                Kind::Tx => 0,
                Kind::Rx => DESC_F_WRITE,
            };
            let link = Desc {
                addr: r.page,
                len: HDR,
                flags: DESC_F_NEXT | write,
                next: 2,
            };
            r.raw.indirect(3, r.page + TABLE, &[link; 2]);
            r.raw.offer(3);
        }),
    ];
    check_with(Kind::Tx, INDIRECT_DESC, &cases);
    check_with(Kind::Rx, INDIRECT_DESC, &cases);
}

#[test]
fn frames_go_out_and_come_in_through_tables() {
    let server = Server::start_with("loopback", &["--queues", "2"]).unwrap();
    for kind in [Kind::Tx, Kind::Rx] {
        let mut rig = Rig::with(&server, kind, INDIRECT_DESC);
        let frame = own(&rig.nic, 1000, 9);
        let flag = match kind {
            Kind::Tx => {
                let packet = [&[0; HDR as usize], &frame[..]].concat();
                rig.nic.ram.write(rig.page, &packet);
                0
            }
            Kind::Rx => DESC_F_WRITE,
        };
        let last = HDR as u64 + 100;
        let part = |at: u64, len, flags, next| Desc {
            addr: rig.page + at,
            len,
            flags: flag | flags,
            next,
        };
        let table = [
            part(0, HDR, DESC_F_NEXT, 1),
            part(HDR.into(), 100, DESC_F_NEXT, 2),
            part(last, 900, 0, 0),
        ];
        rig.raw.indirect(7, rig.page + TABLE, &table);
        rig.raw.offer(7);
        match kind {
            Kind::Tx => {
                rig.kick();
                assert_eq!(rig.nic.expect(0).unwrap().frame, frame);
            }
            Kind::Rx => {
                let index = rig.raw.avail_index();
                let queue = rig.queue();
                rig.nic.card.doorbell(queue, index).unwrap();
                rig.nic.send(0, &frame).unwrap();
                rig.nic.drain(0).unwrap();
                rig.wait_used();
                let at = rig.page + u64::from(HDR);
                assert_eq!(rig.nic.ram.read_vec(at, frame.len()), frame);
            }
        }
        assert_eq!(rig.raw.used_index(), 1);
        assert_eq!(rig.raw.ring.used(0).id, 7);
    }
}
