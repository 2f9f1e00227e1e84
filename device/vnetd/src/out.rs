// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Standard error, which may lead to somebody who does not read it. A thread of its own waits for them,
//! so that none that serves a card does: what they leave unread for too long is lost.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{sync_channel, Receiver, RecvError, SyncSender, TryRecvError, TrySendError};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use tracing::warn;

use crate::error::Error;

/// Most texts that wait to be read, each of a line but for the last ones of a program.
const WAITING: usize = 1024;
/// How long a program that ends waits for who reads them.
const PATIENCE: Duration = Duration::from_millis(500);
/// The same where a card waits for that end.
const HASTE: Duration = Duration::from_millis(5);
/// Pause before the next attempt at that.
const PAUSE: Duration = Duration::from_millis(1);

static ORDERS: OnceLock<SyncSender<Order>> = OnceLock::new();
/// Texts that nobody will read.
static LOST: AtomicU64 = AtomicU64::new(0);

/// A card waits for the end of the program.
static AWAITED: AtomicBool = AtomicBool::new(false);

enum Order {
    Write(Vec<u8>),
    /// Says that all before it is written.
    Answer(SyncSender<()>),
}

/// Has a thread write from here on. Before, who writes waits: a program that has begun nothing yet can.
pub(crate) fn start() -> Result<(), Error> {
    let (sender, orders) = sync_channel(WAITING);
    thread::Builder::new()
        .name("vnet-log".into())
        .spawn(move || write(&orders))
        .map_err(Error::Thread)?;
    // There is one caller a program.
    let _ = ORDERS.set(sender);
    Ok(())
}

/// Waits until all is written, or for so long.
pub(crate) fn flush(limit: Duration) {
    let Some(orders) = ORDERS.get() else { return };
    let end = Instant::now() + limit;
    let (sender, answer) = sync_channel(1);
    let mut order = Order::Answer(sender);
    while let Err(TrySendError::Full(back)) = orders.try_send(order) {
        if Instant::now() > end {
            return;
        }
        order = back;
        thread::sleep(PAUSE);
    }
    // An error: nobody reads.
    let _ = answer.recv_timeout(end.saturating_duration_since(Instant::now()));
}

/// Says that a card waits for the end of the program.
pub(crate) fn hurry() {
    AWAITED.store(true, Ordering::Relaxed);
}

/// Flushes at the end of the program, a panic's included.
#[derive(Debug)]
pub(crate) struct Flushed;

impl Drop for Flushed {
    fn drop(&mut self) {
        flush(match AWAITED.load(Ordering::Relaxed) {
            true => HASTE,
            false => PATIENCE,
        });
    }
}

/// Writes a text in one piece.
#[derive(Debug)]
pub(crate) struct Out;

impl Write for Out {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        match ORDERS.get() {
            Some(orders) => {
                if orders.try_send(Order::Write(text.to_vec())).is_err() {
                    LOST.fetch_add(1, Ordering::Relaxed);
                }
            }
            None => io::stderr().write_all(text)?,
        }
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write(orders: &Receiver<Order>) {
    while let Ok(order) = next(orders) {
        match order {
            // Of a log that cannot be written there is nobody to tell, either.
            Order::Write(text) => drop(io::stderr().write_all(&text)),
            // Fails if it took too long.
            Order::Answer(sender) => drop(sender.try_send(())),
        }
    }
}

/// Takes the next order. With none left there is room to say what was lost.
fn next(orders: &Receiver<Order>) -> Result<Order, RecvError> {
    match orders.try_recv() {
        Ok(order) => return Ok(order),
        Err(TryRecvError::Disconnected) => return Err(RecvError),
        Err(TryRecvError::Empty) => {}
    }
    let lost = LOST.swap(0, Ordering::Relaxed);
    if lost > 0 {
        warn!("{lost} lines of this log are lost: nobody read it for too long");
    }
    orders.recv()
}
