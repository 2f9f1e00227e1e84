// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Drivers that keep to the rules, whatever else they do: nothing may be found.

use std::time::Duration;

use proptest::prelude::*;

use crate::rig::{Rig, PATIENCE, SIZE};

/// When a driver asks for an interrupt for frames that it sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asks {
    /// When it goes to sleep, as ours does.
    Asleep,
    /// When it sends, for the last frame. Later only for what is still in flight.
    Sending,
    /// The same, but the card was there first: the frames may be back.
    Late,
}

/// A driver in the way of ours, and of others: it polls both queues, may go on polling without
/// end, gathers empty buffers, and asks for late interrupts.
struct Good {
    rig: Rig,
    asks: Asks,
    /// Empty buffers that are not posted yet, and free descriptors of the transmit ring.
    held: Vec<u16>,
    free: Vec<u16>,
    polling: bool,
    /// Buffers that it may hold.
    lag: usize,
    /// Chains that it may let complete before the interrupt of the transmit queue.
    late: u16,
    /// Used entries that it took, as its next indices.
    rx_used: u16,
    tx_used: u16,
    /// Next avail entry of the transmit ring.
    tx_avail: u16,
    /// Chains that the card has.
    flying: u16,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// Frames come, and the card may ask for a doorbell.
    Receive(usize, bool),
    /// The driver sends, and the card takes some, and may ask for a doorbell.
    Send(usize, usize, bool),
    /// The driver begins to poll.
    Poll,
    /// It takes some entries.
    Take(usize),
    /// It is done, for now.
    Sleep,
    /// Time goes by, more than it may take its time for. Whatever is due is done before.
    Pass(bool),
}

impl Good {
    fn new(index: u16, asks: Asks, lag: usize, late: u16) -> Self {
        Self {
            rig: Rig::new(index),
            asks,
            held: (0..SIZE).collect(),
            free: (0..SIZE).collect(),
            polling: false,
            lag,
            late,
            rx_used: index,
            tx_used: index,
            tx_avail: index,
            flying: 0,
        }
    }

    fn refill(&mut self, least: usize) {
        if self.held.len() < least {
            return;
        }
        let mut rings = false;
        for head in self.held.drain(..) {
            rings |= self.rig.post(head);
        }
        if rings {
            self.rig.serve_rx(true);
        }
    }

    fn send(&mut self, frames: usize, taken: usize, arm: bool) {
        let mut rings = false;
        for _ in 0..frames.min(self.free.len()) {
            let head = self.free.remove(0);
            self.flying += 1;
            self.tx_avail = self.tx_avail.wrapping_add(1);
            rings |= self.rig.offer(head);
        }
        let last = self.tx_avail.wrapping_sub(1);
        let asks = self.asks != Asks::Asleep && self.flying > 0;
        if asks && self.asks == Asks::Sending {
            self.rig.tx.set_used_event(last);
        }
        self.rig.backend.takes = taken;
        if rings || arm {
            self.rig.serve_tx(arm);
        }
        if asks && self.asks == Asks::Late {
            self.rig.tx.set_used_event(last);
            while self.rig.tx.used_idx() != self.tx_used {
                self.reclaim(usize::MAX);
                self.ask();
            }
        }
    }

    /// Takes sent frames back.
    fn reclaim(&mut self, most: usize) {
        for _ in 0..most {
            let Some((head, _)) = self.rig.tx.take_used() else {
                break;
            };
            self.tx_used = self.tx_used.wrapping_add(1);
            self.flying -= 1;
            self.free.push(head as u16);
        }
    }

    /// Asks for an interrupt for the frames in flight, or the next that is sent.
    fn ask(&mut self) {
        if self.flying > 0 || self.asks == Asks::Asleep {
            let after = self.late.min(self.flying.saturating_sub(1));
            let event = self.tx_used.wrapping_add(after);
            self.rig.tx.set_used_event(event);
        }
    }

    fn poll(&mut self) {
        self.polling = true;
        self.rig.rx.set_used_event(self.rx_used.wrapping_sub(1));
        if self.asks == Asks::Asleep {
            self.rig.tx.set_used_event(self.tx_used.wrapping_sub(1));
        }
    }

    fn take(&mut self, most: usize) {
        for _ in 0..most {
            let Some((head, _)) = self.rig.rx.take_used() else {
                break;
            };
            self.rx_used = self.rx_used.wrapping_add(1);
            self.held.push(head as u16);
        }
        self.reclaim(most);
        self.refill(self.lag);
    }

    fn has_used(&self) -> bool {
        self.rig.rx.used_idx() != self.rx_used || self.rig.tx.used_idx() != self.tx_used
    }

    /// Takes everything and asks for interrupts, in the order of our driver.
    fn sleep(&mut self) {
        loop {
            self.take(usize::MAX);
            self.rig.rx.set_used_event(self.rx_used);
            self.ask();
            if !self.has_used() {
                break;
            }
        }
        self.polling = false;
    }

    fn pass(&mut self, alive: bool) {
        // The card is done with what it can do, and the driver with what it must.
        self.rig.backend.takes = usize::MAX;
        self.rig.serve_tx(true);
        self.rig.serve_rx(true);
        while self.has_used() {
            match self.polling {
                true => self.take(usize::MAX),
                false => self.sleep(),
            }
        }
        self.rig.pass(PATIENCE * 2 + Duration::from_secs(1), alive);
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Receive(frames, arm) => {
                self.rig.backend.has += frames;
                self.rig.serve_rx(arm);
            }
            Step::Send(frames, taken, arm) => self.send(frames, taken, arm),
            Step::Poll => self.poll(),
            Step::Take(most) if self.polling => self.take(most),
            Step::Take(_) => {}
            Step::Sleep => self.sleep(),
            Step::Pass(alive) => self.pass(alive),
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..40usize, any::<bool>()).prop_map(|(n, arm)| Step::Receive(n, arm)),
        (0..40usize, 0..40usize, any::<bool>()).prop_map(|(n, m, arm)| Step::Send(n, m, arm)),
        Just(Step::Poll),
        (0..70usize).prop_map(Step::Take),
        Just(Step::Sleep),
        any::<bool>().prop_map(Step::Pass),
    ]
}

/// An interrupt makes the driver take its frame back. There is no other one to ask for.
#[test]
fn a_driver_that_has_nothing_in_flight() {
    let mut rig = Rig::new(0);
    rig.backend.takes = usize::MAX;
    for head in 0..5 {
        rig.offer(head);
        rig.serve_tx(true);
        // Its handler is slow.
        rig.pass(PATIENCE / 8, true);
    }
    rig.pass(PATIENCE * 4, true);
    assert_eq!(rig.rules(), [""; 0]);
}

/// It masks its vector and polls, which never runs dry. The event index that it left behind comes due
/// again.
#[test]
fn a_driver_that_polls_with_its_vector_masked() {
    let mut rig = Rig::new(0);
    (0..SIZE).for_each(|head| _ = rig.post(head));
    let mut empty = Vec::new();
    let mut poll = |rig: &mut Rig, frames: u16, gathered: usize| {
        rig.backend.has = frames.into();
        rig.serve_rx(true);
        while let Some((head, _)) = rig.rx.take_used() {
            empty.push(head as u16);
        }
        if empty.len() >= gathered {
            empty.drain(..).for_each(|head| _ = rig.post(head));
        }
    };
    poll(&mut rig, 1, 1);
    // Until then the interrupt could wait for company.
    rig.pass(Duration::from_millis(400), true);
    rig.masked = true;
    for _ in 0..(1 << 16) / u32::from(SIZE / 2) {
        poll(&mut rig, SIZE / 2, 1);
    }
    for _ in 0..100 {
        poll(&mut rig, 1, 20);
        rig.pass(PATIENCE / 10, true);
    }
    assert_eq!(rig.rules(), [""; 0]);
}

proptest! {
    #[test]
    fn nothing_is_found(
        index in prop_oneof![Just(0u16), 0xff80..=0xffffu16],
        asks in prop_oneof![Just(Asks::Asleep), Just(Asks::Sending), Just(Asks::Late)],
        lag in 1..=usize::from(SIZE) / 2,
        late in 0..SIZE,
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut driver = Good::new(index, asks, lag, late);
        driver.refill(0);
        for step in steps {
            driver.step(step);
            prop_assert_eq!(driver.rig.rules(), [""; 0], "after {:?}", step);
        }
    }
}
