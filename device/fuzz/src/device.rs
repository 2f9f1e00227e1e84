// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! A card behind the protocol, with a client that sends anything.

use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arbitrary::{Result, Unstructured};
use rustix::event::{eventfd, EventfdFlags};
use vnet_card::{Card, Config};
use vnet_contract::regs::{self, queue_reg};
use vnet_dma::MAX_MAPPINGS;
use vnet_loopback::Loopback;
use vnet_queue::mock::memfd;
use vnet_session::test_utils;
use vnet_session::SharedCard;

use crate::client::{Has, Server};
use crate::input::rarely;

/// Registers, the pending bits, config space; and one that is empty.
const HAS: Has = Has {
    regions: &[0, 0, 7, 2, 1],
    numbers: &[
        0,
        1,
        // The command register, and its bits for memory and bus mastering.
        4,
        6,
        regs::CTRL as u64,
        regs::DRIVER_FEATURES_LO as u64,
        queue_reg(0, regs::Q_CTRL) as u64,
        queue_reg(1, regs::Q_SIZE) as u64,
        queue_reg(1, regs::Q_DESC_LO) as u64,
        regs::DOORBELL as u64,
        0x40,
        0x1000,
        0x2000,
        0x3ffc,
    ],
};

/// A stream of messages to a real card. It does not break, whatever it is asked for; what it has of its
/// client has bounds, and is given back when the client is gone.
pub fn device(data: &[u8]) {
    let _ = run(&mut Unstructured::new(data));
}

fn run(u: &mut Unstructured<'_>) -> Result<()> {
    let config = Config {
        max_mtu: 9000,
        ..Config::new([0x52, 0x54, 0, 1, 2, 3])
    };
    let card = Card::new(config, Box::new(Loopback::new())).expect("a good configuration");
    let vectors = card.vectors().count();
    let card: SharedCard = Arc::new(Mutex::new(card));
    let done = serve(u, vectors, &card);
    let mut card = lock(&card);
    card.disconnect();
    assert!(card.address_space().all().is_empty());
    card.vectors().hold(false);
    for vector in 0..vectors {
        card.vectors().raise(vector.into(), 1).expect("it exists");
        let vector = card.vectors().get(vector).expect("it exists");
        assert!(vector.is_pending(), "somebody heard of it");
    }
    done
}

fn serve(u: &mut Unstructured<'_>, vectors: u16, card: &SharedCard) -> Result<()> {
    let mut server = Server::new(
        u,
        test_utils::layout(vectors),
        test_utils::device(Arc::clone(card)),
    )?;
    let memory = memfd(0x4000);
    while !u.is_empty() && !server.ended {
        server.step(u, &HAS, |u| {
            Ok(match rarely(u, 2)? {
                true => memory.try_clone().expect("dup"),
                false => File::from(eventfd(0, EventfdFlags::CLOEXEC).expect("an eventfd")),
            })
        })?;
        let mut card = lock(card);
        assert!(card.address_space().all().len() <= MAX_MAPPINGS);
        // Awake, to see whether a worker has panicked: a client cannot make it.
        card.write_config(0x44, &[0]);
        card.write_config(4, &[6, 0]);
        let mut status = [0; 4];
        card.read_registers(regs::STATUS.into(), &mut status);
        let status = u32::from_le_bytes(status);
        assert_eq!(status & regs::STATUS_FAILED, 0);
    }
    Ok(())
}

fn lock(card: &SharedCard) -> MutexGuard<'_, Card> {
    card.lock().unwrap_or_else(PoisonError::into_inner)
}
