// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Everything that can be changed, changed in any order while frames are on their way. Nothing may
//! fail, hang or touch memory that is not the card's, and afterwards every pair works.
#![allow(missing_docs)]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{options, own, round_trip};
use proptest::prelude::*;
use vnet_contract::{queue, regs};
use vnet_testkit::{region, Killer, Nic, Options, Server};

const PAIRS: u16 = 3;

#[derive(Clone, Debug)]
enum Step {
    /// Frames on a pair, published together.
    Burst(u16, u16),
    /// Take what has come.
    Poll(u16),
    /// Stop a queue, take its buffers back, start it again.
    Bounce(u16),
    /// Stop a queue and let it go on where it was.
    Pause(u16),
    Restart,
    BusMaster(bool),
    Power(u8),
    /// Fresh eventfds for every vector.
    Vectors,
    /// Take all memory away, check that it stays as it is, give it back, and start over.
    Unmap,
    Mtu(u32),
    Mode(u32),
    /// Doorbells that nobody asked for.
    Doorbell(u16, u16),
}

fn step() -> impl Strategy<Value = Step> {
    let pair = 0..PAIRS;
    let queue = 0..2 * PAIRS;
    prop_oneof![
        12 => (pair.clone(), 1u16..120).prop_map(|(p, n)| Step::Burst(p, n)),
        8 => pair.prop_map(Step::Poll),
        2 => queue.clone().prop_map(Step::Bounce),
        2 => queue.clone().prop_map(Step::Pause),
        1 => Just(Step::Restart),
        2 => any::<bool>().prop_map(Step::BusMaster),
        1 => prop_oneof![Just(0u8), Just(3u8)].prop_map(Step::Power),
        2 => Just(Step::Vectors),
        1 => Just(Step::Unmap),
        1 => (68u32..9000).prop_map(Step::Mtu),
        1 => (0u32..8).prop_map(Step::Mode),
        2 => (queue, any::<u16>()).prop_map(|(q, v)| Step::Doorbell(q, v)),
    ]
}

/// The power control register.
fn power_control(nic: &mut Nic) -> u64 {
    let mut config = [0; 256];
    nic.card.read(region::CONFIG, 0, &mut config).unwrap();
    let mut at = usize::from(config[0x34]);
    for _ in 0..48 {
        if config[at] == 1 {
            return at as u64 + 4;
        }
        at = usize::from(config[at + 1]);
    }
    panic!("no power management");
}

/// Puts the card into the state in which it carries frames.
fn wake(nic: &mut Nic, power: u64) {
    nic.card.write(region::CONFIG, power, &[0, 0]).unwrap();
    nic.card.set_bus_master(true).unwrap();
}

fn apply(nic: &mut Nic, power: u64, step: Step) {
    match step {
        Step::Burst(pair, count) => {
            for n in 0..count {
                // Waiting for room could take for ever: the card may be paused.
                nic.poll(pair).unwrap();
                if nic.in_flight(pair) >= 120 {
                    break;
                }
                let frame = own(nic, 60 + usize::from(n) * 10, n.into());
                nic.queue(pair, Default::default(), &frame).unwrap();
            }
            nic.flush(pair).unwrap();
        }
        Step::Poll(pair) => {
            while let Some(got) = nic.try_receive(pair).unwrap() {
                assert_eq!(got.frame[6..12], nic.mac, "a frame from nowhere");
            }
        }
        Step::Bounce(queue) => {
            wake(nic, power);
            nic.stop(queue).unwrap();
            nic.resume(queue).unwrap();
        }
        Step::Pause(queue) => {
            wake(nic, power);
            nic.card.disable(queue).unwrap();
            let ctrl = regs::queue_reg(queue, regs::Q_CTRL);
            nic.card.set_reg(ctrl, regs::Q_CTRL_ENABLE).unwrap();
        }
        Step::Restart => {
            wake(nic, power);
            nic.restart().unwrap();
        }
        Step::BusMaster(on) => nic.card.set_bus_master(on).unwrap(),
        Step::Power(state) => nic.card.write(region::CONFIG, power, &[state, 0]).unwrap(),
        Step::Vectors => nic.renew_vectors().unwrap(),
        Step::Unmap => {
            wake(nic, power);
            let ram = Arc::clone(&nic.ram);
            nic.card.unmap(ram.base(), ram.size()).unwrap();
            let before = ram.read_vec(ram.base(), ram.size() as usize);
            nic.card.doorbell(queue::tx_index(0), 0).unwrap();
            nic.card.reg(regs::STATUS).unwrap();
            assert!(before == ram.read_vec(ram.base(), ram.size() as usize));
            nic.card.map(&ram).unwrap();
            nic.restart().unwrap();
        }
        Step::Mtu(mtu) => nic.card.set_reg(regs::MTU, mtu).unwrap(),
        Step::Mode(mode) => nic.card.set_reg(regs::RX_MODE, mode).unwrap(),
        Step::Doorbell(queue, value) => nic.card.doorbell(queue, value).unwrap(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: common::rounds(40), failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_order_of_changes_under_traffic(list in prop::collection::vec(step(), 1..80)) {
        thread_local! {
            static SERVER: Server = Server::start_with("loopback", &["--queues", "3"]).unwrap();
        }
        SERVER.with(|server| live(server, list, None));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: common::rounds(15), failure_persistence: None, ..Default::default() })]

    #[test]
    fn the_same_while_the_server_is_killed(
        list in prop::collection::vec(step(), 1..80),
        seed in any::<u64>(),
        longest in 10..100u64,
    ) {
        thread_local! {
            static SERVER: Server =
                Server::start_with("loopback", &["--queues", "3", "--survive"]).unwrap();
        }
        SERVER.with(|server| {
            let killer = server.kill_workers(seed, Duration::from_millis(longest));
            live(server, list, Some(killer));
        });
    }
}

fn live(server: &Server, list: Vec<Step>, killer: Option<Killer>) {
    let three = Options {
        pairs: PAIRS,
        ..options()
    };
    let mut nic = server.nic_with(three).unwrap();
    let power = power_control(&mut nic);
    for step in list {
        apply(&mut nic, power, step);
    }
    if let Some(killer) = killer {
        killer.stop().unwrap();
    }
    // No rule was broken, so no queue may have failed.
    wake(&mut nic, power);
    for queue in 0..2 * PAIRS {
        let error = nic.card.queue_error(queue).unwrap();
        assert_eq!(error, None, "queue {queue}");
    }
    // What was on its way gets there without a reset.
    nic.card.set_reg(regs::MTU, 1500).unwrap();
    for pair in 0..PAIRS {
        nic.drain(pair).unwrap();
        while nic.receive(pair, Duration::ZERO).unwrap().is_some() {}
    }
    nic.restart().unwrap();
    for pair in 0..PAIRS {
        round_trip(&mut nic, pair, 1);
    }
    assert_eq!(nic.card.reg(regs::STATUS).unwrap() & regs::STATUS_FAILED, 0);
}
