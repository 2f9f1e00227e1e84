// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Arbitrary sequences of accesses: whatever software does, the card keeps its own rules.

use proptest::prelude::*;
use vnet_contract::regs::{self, queue_reg};

use super::bench::{Bench, BUS_MASTER, MEMORY, MEMORY_SPACE, PAIRS};

#[derive(Clone, Debug)]
enum Step {
    Read { offset: u64, width: usize },
    Write { offset: u64, data: Vec<u8> },
    Config { offset: u64, data: Vec<u8> },
    Start(u16),
    Send(u16),
    Accept,
    Unmap,
    Reset,
}

/// Offsets, more often than not of a register.
fn offset() -> impl Strategy<Value = u64> {
    let global = prop::sample::select(regs::GLOBAL)
        .prop_flat_map(|r| (0..r.count).prop_map(move |i| u64::from(r.offset + i * r.stride)));
    let queue = (0..2 * PAIRS + 1, prop::sample::select(regs::QUEUE))
        .prop_map(|(q, r)| u64::from(queue_reg(q, r.offset)));
    let counter =
        (0..2 * PAIRS + 1, 0u32..16).prop_map(|(q, slot)| u64::from(regs::stats_reg(q, slot * 4)));
    prop_oneof![4 => global, 4 => queue, 1 => counter, 1 => 0u64..0x4010, 1 => any::<u64>()]
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        Just(0u32),
        Just(1),
        Just(2),
        Just(64),
        Just(MEMORY as u32),
        Just(u32::MAX),
        any::<u32>()
    ];
    let legal = word.prop_map(|v| v.to_le_bytes().to_vec());
    prop_oneof![6 => legal, 1 => prop::collection::vec(any::<u8>(), 0..20)]
}

fn step() -> impl Strategy<Value = Step> {
    let width = prop_oneof![4 => Just(4usize), 2 => Just(8usize), 1 => 0usize..20];
    let queue = 0..2 * PAIRS;
    prop_oneof![
        6 => (offset(), width).prop_map(|(offset, width)| Step::Read { offset, width }),
        12 => (offset(), value()).prop_map(|(offset, data)| Step::Write { offset, data }),
        2 => (0u64..0x110, value()).prop_map(|(offset, data)| Step::Config { offset, data }),
        4 => queue.clone().prop_map(Step::Start),
        2 => queue.prop_map(Step::Send),
        2 => Just(Step::Accept),
        1 => Just(Step::Unmap),
        1 => Just(Step::Reset),
    ]
}

/// What holds at any time.
fn assert_invariants(b: &mut Bench) {
    assert_eq!(b.read(regs::ID), regs::ID_VALUE);
    assert_eq!(b.read(regs::CTRL), 0);
    assert!((68..=9000).contains(&b.read(regs::MTU)));
    assert_eq!(b.read(regs::RX_MODE) & !regs::RX_MODE_MASK, 0);
    assert_eq!(b.read(regs::EVENT_ENABLE) & !regs::EVENT_MASK, 0);
    assert_eq!(b.read(regs::EVENT_CAUSE) & !regs::EVENT_MASK, 0);
    let vector = b.read(regs::EVENT_VECTOR);
    assert!(vector == 0xffff || vector <= u32::from(PAIRS));
    let status = b.read(regs::STATUS);
    assert!(matches!(
        status & 5,
        regs::STATUS_READY | regs::STATUS_FAILED
    ));
    let negotiated = status & regs::STATUS_FEATURES_OK != 0;
    for queue in 0..2 * PAIRS {
        // A worker may find a fault between two reads, so each look is one read.
        let status = b.read(queue_reg(queue, regs::Q_STATUS));
        let running = status & regs::Q_STATUS_RUNNING != 0;
        let failed = status & regs::Q_STATUS_ERROR != 0;
        assert!(!(running && failed));
        assert!(!running || negotiated);
        assert_eq!(failed, regs::Q_STATUS_CODE.get(status) != 0);
        assert_eq!(status & !0xff03, 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(super::rounds(128)))]

    #[test]
    fn no_sequence_of_accesses_breaks_the_card(steps in prop::collection::vec(step(), 1..80)) {
        let mut b = Bench::new();
        for step in steps {
            match step {
                Step::Read { offset, width } => {
                    b.card.read_registers(offset, &mut vec![0; width]);
                    b.card.read_msix(offset, &mut vec![0; width]);
                    b.card.read_config(offset, &mut vec![0; width]);
                }
                Step::Write { offset, data } => b.card.write_registers(offset, &data),
                Step::Config { offset, data } => b.card.write_config(offset, &data),
                Step::Start(queue) => b.start(queue),
                Step::Send(queue) => b.send(queue),
                Step::Accept => b.accept(0),
                Step::Unmap => b.card.unmap(MEMORY, 1),
                Step::Reset => b.card.reset_function(),
            }
            // Wake it, whatever config space holds now.
            b.card.write_config(super::bench::PM_CTRL, &[0]);
            b.command(MEMORY_SPACE | BUS_MASTER);
            assert_invariants(&mut b);
        }
        b.write(regs::CTRL, regs::CTRL_RESET);
        b.assert_reset_values();
    }
}
