// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Chains and buffers of a receive queue.

use vnet_contract::queue::{Error, Kind};
use vnet_contract::ring::{DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE};

use crate::rig::{check, HDR, NOWHERE, READ_ONLY};

#[test]
fn receive_rings() {
    check(
        Kind::Rx,
        &[
            ("avail index jumps", Error::AvailIndex, Some(65), |r| {
                r.raw.move_index(65);
            }),
            ("head outside the ring", Error::DescIndex, Some(64), |r| {
                r.raw.offer(64);
            }),
            ("readable descriptor", Error::Direction, Some(0), |r| {
                r.raw.desc(0, r.page, 2048, 0, 0);
                r.raw.offer(0);
            }),
            ("chain loops", Error::ChainLength, Some(0), |r| {
                r.raw.desc(0, r.page, 16, DESC_F_WRITE | DESC_F_NEXT, 1);
                r.raw.desc(1, r.page, 16, DESC_F_WRITE | DESC_F_NEXT, 0);
                r.raw.offer(0);
            }),
            ("length zero", Error::BufferLength, Some(4), |r| {
                r.raw.desc(4, r.page, 0, DESC_F_WRITE, 0);
                r.raw.offer(4);
            }),
            (
                "no room for the header",
                Error::BufferLength,
                Some(0),
                |r| {
                    r.raw.desc(0, r.page, HDR - 1, DESC_F_WRITE, 0);
                    r.raw.offer(0);
                },
            ),
            ("length of 4 GiB", Error::BufferLength, Some(0), |r| {
                r.raw.desc(0, r.page, u32::MAX, DESC_F_WRITE, 0);
                r.raw.offer(0);
            }),
            (
                "memory that is read-only",
                Error::BufferFault,
                Some(0),
                |r| {
                    r.raw.desc(0, READ_ONLY, 2048, DESC_F_WRITE, 0);
                    r.raw.offer(0);
                },
            ),
            ("address outside memory", Error::BufferFault, Some(0), |r| {
                r.raw.desc(0, NOWHERE, 2048, DESC_F_WRITE, 0);
                r.raw.offer(0);
            }),
            ("indirect", Error::Indirect, Some(0), |r| {
                r.raw.desc(0, r.page, 16, DESC_F_INDIRECT, 0);
                r.raw.offer(0);
            }),
        ],
    );
}
