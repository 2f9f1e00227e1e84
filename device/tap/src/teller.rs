// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Tells the kernel which offloads the guest takes.
//!
//! The kernel takes the lock of all network configuration for this, which others may hold for
//! seconds. So a thread waits for it, and not the one that a register of the card is written by.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

/// In place of flags: the end.
const END: u32 = u32::MAX;

/// The thread, which is waited for when this is dropped.
#[derive(Debug)]
pub(crate) struct Teller {
    /// Flags that the kernel is to know. One that is late for some knows the last ones.
    wanted: Arc<AtomicU32>,
    thread: Option<JoinHandle<()>>,
}

impl Teller {
    /// Starts with what the kernel was told already, and `tell` for whatever comes.
    pub(crate) fn start(known: u32, tell: impl Fn(u32) + Send + 'static) -> io::Result<Self> {
        let wanted = Arc::new(AtomicU32::new(known));
        let source = Arc::clone(&wanted);
        let thread = thread::Builder::new()
            .name("vnet-tap".into())
            .spawn(move || run(&source, known, tell))?;
        Ok(Self {
            wanted,
            thread: Some(thread),
        })
    }

    /// Has the kernel told. Resets come often, and most change nothing.
    pub(crate) fn want(&self, flags: u32) {
        if self.wanted.swap(flags, Ordering::Relaxed) != flags {
            self.wake();
        }
    }

    fn wake(&self) {
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        self.want(END);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(wanted: &AtomicU32, mut known: u32, tell: impl Fn(u32)) {
    loop {
        match wanted.load(Ordering::Relaxed) {
            END => return,
            // Comes back at once if there was another wish since it looked.
            flags if flags == known => thread::park(),
            flags => {
                tell(flags);
                known = flags;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{channel, sync_channel};
    use std::time::Duration;

    #[test]
    fn nobody_waits_for_the_kernel_and_it_knows_the_last_wish() {
        let patience = Duration::from_secs(10);
        let (begun, begins) = channel();
        let (go, gone) = sync_channel::<()>(0);
        let teller = Teller::start(7, move |flags| {
            begun.send(flags).unwrap();
            gone.recv().unwrap();
        });
        let teller = teller.unwrap();
        teller.want(7);
        teller.want(1);
        assert_eq!(begins.recv_timeout(patience).unwrap(), 1);
        // It is still at that.
        teller.want(2);
        teller.want(3);
        go.send(()).unwrap();
        assert_eq!(begins.recv_timeout(patience).unwrap(), 3);
        go.send(()).unwrap();
        drop(teller);
        assert!(begins.recv().is_err(), "it is told nothing else");
    }
}
