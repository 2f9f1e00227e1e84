// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Pictures of rings, whatever is in them.

use crate::backend::{driver, everything, frame, memory, Backend, BUFFERS, RING};
use proptest::prelude::*;
use vnet_contract::features::MRG_RXBUF;
use vnet_contract::ring::{desc_bytes, Desc, DESC_F_NEXT, RING_ENTRIES};
use vnet_dma::DmaMap;
use vnet_queue::{Budget, Rx};

fn owned(rx: &Rx, mem: &DmaMap) -> Vec<usize> {
    let picture = rx.outline().picture(mem).unwrap();
    (0..)
        .zip(&picture.owned)
        .filter(|o| *o.1)
        .map(|o| o.0)
        .collect()
}

#[test]
fn descriptors_change_hands() {
    let mem = memory();
    let mut driver = driver(&mem, 64, MRG_RXBUF).start_at(65533);
    let mut rx = Rx::start(&driver.config, &mem.device()).unwrap();
    let at = |n: u64| BUFFERS + n * 0x1000;
    driver.chain(2, &[(at(0), 2048), (at(1), 2048)], true);
    driver.chain(6, &[(at(2), 2048)], true);
    for head in [6, 2] {
        driver.offer(head);
    }
    driver.set_used_event(65534);
    let device = mem.device();
    assert_eq!(owned(&rx, &device), [2, 3, 6]);
    let mut backend = Backend::with_frames([frame(100, 1)]);
    let outcome = rx.run(&device, &mut backend, &everything(), Budget::default());
    assert_eq!((outcome.fault, outcome.frames), (None, 1));
    assert_eq!(owned(&rx, &device), [2, 3]);
    let picture = rx.outline().picture(&device).unwrap();
    assert_eq!(
        (picture.size, picture.avail, picture.used),
        (64, 65535, 65534)
    );
    assert_eq!(picture.used_event, 65534);
}

proptest! {
    /// Whatever a driver writes, a picture comes to an end and has as many descriptors as the ring.
    #[test]
    fn nonsense_is_seen_as_it_is(
        table in proptest::collection::vec((any::<u16>(), 0u16..80), 64),
        entries in proptest::collection::vec(0u16..80, 64),
        idx: u16,
    ) {
        let mem = memory();
        let driver = driver(&mem, 64, 0);
        let rx = Rx::start(&driver.config, &mem.device()).unwrap();
        for (n, (flags, next)) in (0..).zip(table) {
            driver.desc(n, Desc { addr: BUFFERS, len: 64, flags: flags | DESC_F_NEXT, next });
        }
        let bytes: Vec<u8> = entries.iter().flat_map(|e| e.to_le_bytes()).collect();
        mem.write(RING + (desc_bytes(64) + RING_ENTRIES) as u64, &bytes);
        driver.set_avail_idx(idx);
        let picture = rx.outline().picture(&mem.device()).unwrap();
        prop_assert_eq!((picture.avail, picture.owned.len()), (idx, 64));
        let first = usize::from(entries[0]);
        if idx > 0 && first < 64 {
            prop_assert!(picture.owned[first]);
        }
    }
}
