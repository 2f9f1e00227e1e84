// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What outlives the processes of a card, and what of the card can be compared.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use vnet_contract::regs::{self, stats_reg};
use vnet_loopback::Null;
use vnet_state::mock::Holder;
use vnet_state::records::{Reader, Writer};
use vnet_state::{Keeper, Memory, Token};

use super::bench::{new_card, Bench, PAIRS};
use crate::{Card, Error, Survival};

/// What outlives the processes.
#[derive(Clone)]
pub(super) struct Shelter {
    pub(super) memory: Arc<Memory>,
    pub(super) holder: Arc<Holder>,
}

impl Shelter {
    pub(super) fn new() -> Self {
        Self {
            memory: Memory::create().unwrap(),
            holder: Arc::default(),
        }
    }

    pub(super) fn tokens(&self) -> Vec<Token> {
        self.holder.held().into_keys().collect()
    }

    pub(super) fn survive(&self, card: &mut Card) -> Result<(), Error> {
        // As another process would: over a mapping of its own.
        let memory = Memory::open(self.memory.as_fd().try_clone_to_owned().unwrap()).unwrap();
        let keeper = Arc::clone(&self.holder) as Arc<dyn Keeper>;
        card.survive(Survival { memory, keeper }, &mut self.holder.held())
    }

    pub(super) fn card(&self) -> Card {
        let mut card = new_card(Box::new(Null::new()));
        self.survive(&mut card).unwrap();
        card
    }

    pub(super) fn bench(&self) -> Bench {
        Bench::prepare(self.card())
    }
}

/// All that the driver can read.
pub(super) fn registers(b: &mut Bench) -> Vec<(u32, u32)> {
    (0..0x4000)
        .step_by(4)
        // What is no register counts as illegal.
        .filter_map(|at| b.card.map.slot(at.into()).map(|_| (at, b.read(at))))
        .collect()
}

/// The same once queues that were started with nonsense have had the time to fail.
pub(super) fn settled(b: &mut Bench) -> Vec<(u32, u32)> {
    let mut before = registers(b);
    let mut same = 0;
    for _ in 0..200 {
        thread::sleep(Duration::from_millis(2));
        let now = registers(b);
        same = if now == before { same + 1 } else { 0 };
        // A worker may have to wait for its turn on a machine with much to do.
        if same == 10 {
            break;
        }
        before = now;
    }
    before
}

/// True for what a new process changes: it raises each interrupt once more.
pub(super) fn counts_interrupts(at: u32) -> bool {
    (0..2 * PAIRS).any(|queue| at == stats_reg(queue, regs::S_INTERRUPTS))
}

pub(super) fn config_space(b: &Bench) -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    b.card.read_config(0, &mut bytes);
    bytes
}

/// Changes the records that a card wrote.
pub(super) fn rewrite(shelter: &Shelter, f: impl Fn(u16, &[u8], &mut Writer)) {
    let saved = shelter.memory.snapshot().unwrap();
    let mut to = Writer::new();
    let mut rest = &saved[2..];
    for (tag, _) in Reader::new(&saved).unwrap() {
        let len = u32::from_le_bytes(rest[2..6].try_into().unwrap()) as usize;
        f(tag, &rest[6..6 + len], &mut to);
        rest = &rest[6 + len..];
    }
    assert!(shelter.memory.commit(&to.finish()));
}
