// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! A card that misbehaves on command.

use std::sync::Arc;
use std::time::{Duration, Instant};

use vnet_contract::regs::{self, ID_VALUE, STATUS_FEATURES_OK, STATUS_READY};
use vnet_faults::{Faults, Faulty, Plan};
use vnet_loopback::Null;

use super::bench::Bench;
use super::shelter::Shelter;

fn bench(plan: &str) -> (Bench, Arc<Faults>) {
    let faults = Arc::new(Faults::default());
    let endpoint = Faulty::new(Box::new(Null::new()), Arc::clone(&faults));
    let mut bench = Bench::with(Box::new(endpoint));
    bench.card.set_faults(&faults);
    faults.load(&plan.parse().unwrap());
    (bench, faults)
}

#[test]
fn registers_read_wrong_now_and_then() {
    let (mut bench, _) = bench("register-ones at=2\nregister-flip at=4");
    assert_eq!(bench.read(regs::ID), ID_VALUE);
    assert_eq!(bench.read(regs::ID), u32::MAX);
    assert_eq!(bench.read(regs::ID), ID_VALUE);
    assert_eq!((bench.read(regs::ID) ^ ID_VALUE).count_ones(), 1);
    assert_eq!(bench.read(regs::ID), ID_VALUE);
}

#[test]
fn config_space_goes_and_comes_back() {
    let (bench, faults) = bench("config-ones");
    let id = || {
        let mut id = [0; 4];
        bench.card.read_config(0, &mut id);
        id
    };
    assert_eq!(id(), [0xff; 4]);
    faults.load(&Plan::default());
    assert_eq!(id(), [0xf4, 0x1a, id()[2], id()[3]]);
}

#[test]
fn the_card_resets_itself() {
    let (mut bench, _) = bench("reset at=6");
    bench.accept(0);
    assert_eq!(bench.read(regs::STATUS), STATUS_READY | STATUS_FEATURES_OK);
    bench.write(regs::EVENT_ENABLE, 1);
    assert_eq!(bench.read(regs::EVENT_ENABLE), 0);
    assert_eq!(bench.read(regs::STATUS), STATUS_READY);
}

#[test]
fn a_reset_that_came_with_a_read_outlives_the_process() {
    let shelter = Shelter::new();
    let mut bench = shelter.bench();
    let faults = Arc::new(Faults::default());
    bench.card.set_faults(&faults);
    bench.accept(0);
    faults.load(&"reset at=1".parse().unwrap());
    assert_eq!(bench.read(regs::STATUS), STATUS_READY);
    bench.exchange(shelter.card());
    assert_eq!(bench.read(regs::STATUS), STATUS_READY);
}

#[test]
fn registers_take_their_time() {
    let (mut bench, _) = bench("slow-mmio delay=20ms");
    let start = Instant::now();
    assert_eq!(bench.read(regs::ID), ID_VALUE);
    assert!(start.elapsed() >= Duration::from_millis(20));
}

#[test]
fn the_link_goes_down_and_comes_back() {
    let (mut bench, faults) = bench("link-down");
    let mut until = |up: bool| {
        let end = Instant::now() + Duration::from_secs(20);
        while (bench.read(regs::LINK) & regs::LINK_UP != 0) != up {
            assert!(Instant::now() < end);
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    until(false);
    faults.load(&Plan::default());
    until(true);
}
