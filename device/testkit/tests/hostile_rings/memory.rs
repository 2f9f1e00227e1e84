// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Ring memory that is taken away.

use std::sync::Arc;

use vnet_contract::queue::{Error, Kind};
use vnet_testkit::{GuestRam, Server};

use crate::common::round_trip;
use crate::rig::{Rig, SIZE};

/// Ring memory taken away under a running queue.
#[test]
fn ring_memory_that_vanishes() {
    let server = Server::start_with("loopback", &["--queues", "2"]).unwrap();
    for part in 0..3 {
        let mut rig = Rig::new(&server, Kind::Tx);
        let ram = Arc::new(GuestRam::new(0x1_0000_0000, 0x1000).unwrap());
        rig.nic.card.map(&ram).unwrap();
        let queue = rig.queue();
        rig.nic.card.disable(queue).unwrap();
        let mut rings = rig.raw.ring.addresses();
        // One part of the ring moves to memory of its own, which is zero as the part was.
        rings[part] = ram.base();
        rig.nic.card.enable(queue, SIZE.into(), rings, 0).unwrap();
        assert_eq!(rig.nic.card.queue_error(queue).unwrap(), None);
        rig.nic.card.unmap(ram.base(), ram.size()).unwrap();
        rig.offer_good();
        rig.kick();
        let what = ["descriptor table", "avail ring", "used ring"][part];
        let seen = rig.nic.card.wait_queue_error(queue).unwrap();
        assert_eq!(seen, Error::RingFault, "{what}");
        round_trip(&mut rig.nic, 1, 3);
        rig.assert_repairable(what);
    }
}
