// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! One queue pair, as the message thread sees it.

use std::fmt;
use std::io;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use vnet_backend::Queue;
use vnet_capture::Bell;
use vnet_contract::queue::{Error, Kind};
use vnet_dma::{AddressSpace, DmaMap};
use vnet_faults::Faults;
use vnet_irq::Vector;
use vnet_queue::{Fault, Observer, RingConfig, Rx, RxFilter, Tx};

use crate::alarm::Alarm;
use crate::counters::{Counters, Tally};
use crate::drops::Reason;
use crate::gate::Gate;
use crate::handover::{serve_or_kick, Rest};
use crate::kick::Kick;
use crate::legacy::Legacy;
use crate::mischief::Mischief;
use crate::moderation::Moderation;
use crate::pace::Pace;
use crate::parcel::Inbox;
use crate::polling::Polling;
use crate::report::Report;
use crate::shared::Shared;
use crate::slot::{Signal, Slot};
use crate::state::{State, Tallies};
use crate::sync::MutexGuard;
use crate::thread::{self, Wiring};

/// How a pair works.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Serve a doorbell where it arrives, for one bounded batch, if the worker is not at it. Else
    /// wake the worker. On by default; without effect where the backend's queues wait for each
    /// other.
    ///
    /// `examples/doorbell.rs` on a shared virtual machine with two cores, through a unix socket:
    /// from the avail index to the used index one frame takes 3.7 us (p50; p99 about 40) inline
    /// and 46 us (p99 100 and more) by way of the worker. A stream is carried at the same rate,
    /// 8.3 and 8.5 million frames a second with a backend that costs nothing, 0.65 and 0.64 with
    /// one that takes 1.4 us a frame, and with fewer than two doorbells per hundred frames.
    ///
    /// In an emulated guest with a TAP, on a machine of two cores that had much else to do, the
    /// flood pings of four turns took 0.11 to 0.23 ms inline and 0.09 to 0.60 ms by way of the
    /// worker; TCP did not differ by more than from turn to turn.
    pub inline_doorbells: bool,

    /// How long a worker that has run out of work goes on looking for more, at most, before it
    /// asks for doorbells and sleeps. It does so only while single frames tend to come that soon,
    /// and gives up when others want the CPU. Zero: never.
    ///
    /// In the emulated guest above, on a quiet machine, the median of a request and its response
    /// went from 250 us to 105 us with 200 us, and a flood ping from 160 us to 95 us; with 50 us
    /// neither changed, for the guest itself takes longer than that. Bulk data is never polled for:
    /// where the guest, its emulator and the worker share two cores, a worker that looks for work
    /// takes time from those who make it.
    pub poll: Duration,

    /// How long a stream of frames to transmit may go on unseen before the worker looks for them
    /// itself, having asked for no doorbell. Zero: every lull is ended by a doorbell.
    pub tx_timer: Duration,

    /// The backend was that of a process whose queues this one may go on with. It is told nothing before
    /// the card first gets at memory: a queue that is said not to receive throws away what waits in it.
    pub taken_over: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            inline_doorbells: true,
            poll: Duration::ZERO,
            tx_timer: Duration::from_micros(50),
            taken_over: false,
        }
    }
}

/// A queue pair with its worker thread. Dropping it stops and joins the thread.
///
/// Methods that change something wait for the batch that runs now, never for more, so the
/// message thread may call them; [`Self::doorbell`] does not wait at all. When
/// [`Self::stop`], [`Self::reset`] or [`Self::quiesce`] returns, no batch that began before is
/// running.
pub struct Pair {
    shared: Arc<Shared>,
    options: Options,
    /// Doorbells are served where they arrive, unless the backend's queues wait for each other.
    inline_doorbells: bool,
    thread: Option<JoinHandle<()>>,
}

impl Pair {
    /// Starts the worker thread of the pair with this index. No queue runs yet.
    pub fn spawn(
        index: u16,
        backend: Box<dyn Queue>,
        dma: AddressSpace,
        report: Arc<dyn Report>,
        options: Options,
    ) -> io::Result<Self> {
        let inline_doorbells = options.inline_doorbells && !backend.is_shared();
        let wiring = Wiring::new(backend.as_ref())?;
        let shared = Arc::new(Shared {
            index,
            gate: Gate::new(State::new(backend, Pace::new(options.tx_timer))),
            kick: Kick::new()?,
            alarm: Alarm::new()?,
            stop: AtomicBool::new(false),
            watched: AtomicBool::new(false),
            unplugged: AtomicBool::new(false),
            paused: AtomicU8::new(0),
            unshared: AtomicBool::new(false),
            rx_pushing: AtomicBool::new(false),
            tx_pushing: AtomicBool::new(false),
            tallies: Tallies::default(),
            rx_bell: Bell::default(),
            tx_bell: Bell::default(),
            dma,
            report,
            link: OnceLock::new(),
        });
        let polling = Polling::new(options.poll);
        let for_thread = Arc::clone(&shared);
        let thread = Builder::new()
            .name(format!("vnet-q{index}"))
            .spawn(move || thread::run(&for_thread, wiring, polling, options.taken_over))?;
        Ok(Self {
            shared,
            options,
            inline_doorbells,
            thread: Some(thread),
        })
    }

    /// Leaves what the pair does to the next process, and takes on what the last one left: the
    /// counters. To be called once, before a queue is started.
    pub fn inherit(&self, rx: Legacy, tx: Legacy) {
        self.shared.tallies.rx.inherit(rx);
        self.shared.tallies.tx.inherit(tx);
    }

    /// How many frames the pair has taken from the backend so far, and how many it has brought to the
    /// driver or dropped; of those that it hands to other pairs, they have brought or dropped them.
    /// `None` if the backend does not count.
    pub fn balance(&self) -> Option<(u64, u64)> {
        self.shared.tallies.rx.balance()
    }

    /// Counts frames that were lost on their way to the driver.
    pub fn lost(&self, frames: u64) {
        self.shared.tallies.rx.lost(frames, Reason::Restart);
    }

    /// Says that a queue is about to be started with this configuration. A process that finds it
    /// written down that the queue was started, but not how far it is, takes it for unused.
    pub fn announce(&self, kind: Kind, ring: &RingConfig) {
        if let Some(legacy) = self.tally(kind).legacy() {
            legacy.progress().begin(ring.index_used);
        }
    }

    /// Lets the pair misbehave, as far as these faults go; queues that run do from the next round
    /// on.
    pub fn set_faults(&self, faults: &Arc<Faults>) {
        let mut mischief = Mischief::new(self.shared.index, faults);
        let mut state = self.shared.gate.lock();
        if let Slot::Running(rx, _) = &mut state.rx {
            mischief.start_rx(rx);
        }
        if let Slot::Running(tx, _) = &mut state.tx {
            mischief.start_tx(tx);
        }
        state.mischief = Some(Box::new(mischief));
    }

    /// Checks the configuration of a queue and starts it. Entries that are in the avail ring
    /// already are served without a doorbell. A queue that runs is replaced.
    ///
    /// A pair whose backend failed starts nothing until it is reset.
    pub fn start(
        &self,
        kind: Kind,
        ring: RingConfig,
        vector: Option<Arc<Vector>>,
    ) -> Result<(), Fault> {
        let mut state = self.shared.gate.lock();
        let observer = state.observer(kind).take();
        // Without bus mastering no ring is within reach.
        let mem = self
            .shared
            .dma
            .memory()
            .ok_or(Fault::at(Error::RingFault, ring.desc))?;
        let mem = self.place(&ring, mem)?;
        match kind {
            Kind::Rx => {
                let mut rx = Rx::start(&ring, &mem)?;
                if let Some(observer) = observer {
                    rx.observe(observer);
                }
                if let Some(legacy) = self.tally(kind).legacy() {
                    rx.track(legacy.progress());
                }
                if let Some(mischief) = &mut state.mischief {
                    mischief.start_rx(&mut rx);
                }
                state.rx = match state.failed {
                    false => Slot::Running(rx, Signal::new(vector)),
                    true => Slot::Failed(rx.indices()),
                };
            }
            Kind::Tx => {
                let mut tx = Tx::start(&ring, &mem)?;
                if let Some(observer) = observer {
                    tx.observe(observer);
                }
                if let Some(legacy) = self.tally(kind).legacy() {
                    tx.track(legacy.progress());
                }
                if let Some(mischief) = &mut state.mischief {
                    mischief.start_tx(&mut tx);
                }
                state.tx = match state.failed {
                    false => Slot::Running(tx, Signal::new(vector)),
                    true => Slot::Failed(tx.indices()),
                };
            }
        }
        state.keep(kind);
        self.tally(kind).set_ring(Some(ring));
        drop(state);
        self.wake();
        Ok(())
    }

    /// The memory to start a queue in: the one that is shared if that holds the ring, or what the
    /// client can be asked for.
    fn place(&self, ring: &RingConfig, shared: Arc<DmaMap>) -> Result<Arc<DmaMap>, Fault> {
        match ring.check(&shared) {
            Err(fault) if fault.error == Error::RingFault => {
                let all = self.shared.dma.mirrored().ok_or(fault)?;
                ring.check(&all)?;
                self.shared.unshared.store(true, Ordering::Release);
                Ok(all)
            }
            // Said again by who starts it.
            Ok(()) | Err(_) => Ok(shared),
        }
    }

    /// Has somebody watch the queue of this kind that is started, or resumed, next.
    pub fn watch(&self, kind: Kind, observer: Box<dyn Observer>) {
        self.shared.watched.store(true, Ordering::Relaxed);
        *self.shared.gate.lock().observer(kind) = Some(observer);
    }

    /// Says that a queue is to be resumed. Until it is, or is stopped, what is for it waits. Nothing is lost of
    /// a transmit queue, whose frames are the driver's.
    pub fn expect(&self, kind: Kind) {
        if kind == Kind::Rx {
            self.shared.gate.lock().rx_expected = true;
        }
    }

    /// Goes on with a queue that the last process started with this configuration, and raises its
    /// interrupt: nobody knows whether the driver has seen the last one. `mem` is guest memory, also
    /// without bus mastering.
    pub fn resume(
        &self,
        kind: Kind,
        ring: RingConfig,
        vector: Option<Arc<Vector>>,
        mem: &DmaMap,
    ) -> Result<(), Fault> {
        let mut state = self.shared.gate.lock();
        let observer = state.observer(kind).take();
        let tally = self.tally(kind);
        let Some(legacy) = tally.legacy() else {
            return Ok(());
        };
        let signal = Signal::new(vector.clone());
        match kind {
            Kind::Rx => {
                let (mut rx, _) = Rx::resume(&ring, mem, legacy.progress())?;
                if let Some(observer) = observer {
                    rx.observe(observer);
                }
                if let Some(mischief) = &mut state.mischief {
                    mischief.start_rx(&mut rx);
                }
                state.rx = Slot::Running(rx, signal);
                state.rx_expected = false;
            }
            Kind::Tx => {
                let dropped = || tally.lost(1, Reason::Restart);
                let (mut tx, _) = Tx::resume(&ring, mem, legacy.progress(), dropped)?;
                if let Some(observer) = observer {
                    tx.observe(observer);
                }
                if let Some(mischief) = &mut state.mischief {
                    mischief.start_tx(&mut tx);
                }
                state.tx = Slot::Running(tx, signal);
            }
        }
        tally.set_ring(Some(ring));
        drop(state);
        if let Some(vector) = vector {
            vector.raise();
            tally.interrupt();
        }
        self.wake();
        Ok(())
    }

    /// Stops a queue: when this returns, nothing touches its rings or buffers any more. Returns
    /// the next avail and the next used index, if the queue was started.
    pub fn stop(&self, kind: Kind) -> Option<(u16, u16)> {
        let mut state = self.shared.gate.lock();
        let indices = indices(&state, kind);
        match kind {
            Kind::Rx => {
                state.rx = Slot::Off;
                state.rx_expected = false;
            }
            Kind::Tx => state.tx = Slot::Off,
        }
        self.tally(kind).set_ring(None);
        self.leave(&state);
        drop(state);
        // The worker tells the backend, which may take its time.
        self.wake();
        indices
    }

    /// The next queue may be in memory that is shared.
    fn leave(&self, state: &State) {
        if !state.rx.is_running() && !state.tx.is_running() {
            self.shared.unshared.store(false, Ordering::Release);
        }
    }

    /// True unless something that a queue has written is still on its way to memory that is not
    /// shared. A queue that was stopped writes nothing more once this is true.
    pub fn is_settled(&self, kind: Kind) -> bool {
        !self.shared.pushing(kind).load(Ordering::Acquire)
    }

    /// The next avail and the next used index of a queue, if it was started.
    pub fn indices(&self, kind: Kind) -> Option<(u16, u16)> {
        indices(&self.shared.gate.lock(), kind)
    }

    /// The driver has made entries available. Never waits.
    pub fn doorbell(&self, kind: Kind) {
        self.tally(kind).doorbell();
        self.shared.bell(kind).ring();
        // Elsewhere, only the worker can wait for what has to be fetched.
        let here = !self.shared.unshared.load(Ordering::Acquire);
        if self.inline_doorbells && here {
            let shared = &self.shared;
            return serve_or_kick(&shared.gate, &shared.kick, |state| {
                // A worker that comes back by itself needs no doorbells, and no waking.
                let sleep = state.sleep;
                // A receive doorbell may end a lack of buffers.
                let due = kind == Kind::Rx;
                let round = shared.serve(state, due, sleep.is_some());
                if sleep.is_some() && round.progress && !self.options.poll.is_zero() {
                    state.served_asleep = Some(Instant::now());
                }
                shared.remind(state, &round, Instant::now);
                shared.report(&round);
                let covered = sleep.is_none_or(|sleep| {
                    !round.again && round.rx_fault.is_none() && sleep.covers(&round.sleep)
                });
                match covered {
                    true => Rest::Nothing,
                    false => Rest::Work,
                }
            });
        }
        // The worker may be past its last look at the ring, so it has to look again.
        self.wake();
    }

    /// Tells whoever watches the queue what the driver wrote to its doorbell; before
    /// [`Self::doorbell`]. Waits for the batch that runs now, if anybody does.
    pub fn doorbell_value(&self, kind: Kind, value: u32) {
        if self.shared.watched.load(Ordering::Relaxed) {
            let mut state = self.shared.gate.lock();
            self.shared.tell(&mut state, kind, |observer, mem, at| {
                observer.doorbell(mem, at, value);
            });
        }
    }

    /// A handle that tells those who watch the pair that time goes by.
    pub fn clock(&self) -> Clock {
        Clock(Arc::clone(&self.shared))
    }

    /// Makes the worker look for work, such as after bus mastering was turned on.
    pub fn wake(&self) {
        self.shared.kick.kick();
    }

    /// Waits until no batch is running that began before the call.
    pub fn quiesce(&self) {
        drop(self.shared.gate.lock());
    }

    /// Sets the receive filter, from the next batch on.
    pub fn set_rx_filter(&self, filter: RxFilter) {
        self.shared.gate.lock().filter = filter;
    }

    /// Says how long the interrupts of a queue wait, from the next one that comes due on.
    pub fn set_moderation(&self, kind: Kind, moderation: Moderation) {
        let mut state = self.shared.gate.lock();
        match kind {
            Kind::Rx => state.rx_moderation = moderation,
            Kind::Tx => state.tx_moderation = moderation,
        }
    }

    /// The counters of a queue.
    pub fn counters(&self, kind: Kind) -> Counters {
        self.tally(kind).read()
    }

    /// Clears the counters of both queues.
    pub fn reset_counters(&self) {
        self.shared.tallies.rx.reset();
        self.shared.tallies.tx.reset();
    }

    /// Back to the state after [`Self::spawn`]: queues stopped, frames that wait, in the backend or
    /// on their way from another pair, forgotten, filter, moderation and counters cleared.
    pub fn reset(&self) {
        let mut state = self.shared.gate.lock();
        state.rx = Slot::Off;
        state.tx = Slot::Off;
        self.tally(Kind::Rx).set_ring(None);
        self.tally(Kind::Tx).set_ring(None);
        self.leave(&state);
        state.filter = RxFilter::default();
        state.rx_moderation = Moderation::default();
        state.tx_moderation = Moderation::default();
        state.inbox.as_mut().map(Inbox::discard);
        self.reset_counters();
        state.failed = false;
        self.tell_backend(state, State::reset_backend);
    }

    /// The machine is gone, and the backend forgets it. After [`Self::reset`].
    pub fn disconnect(&self) {
        let state = self.shared.gate.lock();
        self.tell_backend(state, |state| state.backend.disconnect());
    }

    /// Tells the backend something, unless it has failed.
    fn tell_backend(&self, mut state: MutexGuard<'_, State>, what: impl FnOnce(&mut State)) {
        if state.failed {
            return;
        }
        state.failed = catch_unwind(AssertUnwindSafe(|| what(&mut state))).is_err();
        let failed = state.failed;
        drop(state);
        if failed {
            self.shared.report.pair_failed(self.shared.index);
        }
    }

    /// Says whether calls of the backend's queue may wait for another queue.
    pub(crate) fn set_shared_backend(&mut self, shared: bool) {
        self.inline_doorbells = self.options.inline_doorbells && !shared;
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    fn tally(&self, kind: Kind) -> &Tally {
        match kind {
            Kind::Rx => &self.shared.tallies.rx,
            Kind::Tx => &self.shared.tallies.tx,
        }
    }
}

/// Tells those who watch a pair that time goes by. The pair may be gone by then.
pub struct Clock(Arc<Shared>);

impl Clock {
    /// Waits for the batch that runs now.
    pub fn tick(&self) {
        let mut state = self.0.gate.lock();
        let (rx, tx) = state.held();
        for (kind, held) in [(Kind::Rx, rx), (Kind::Tx, tx)] {
            // There is nothing that the driver of a queue which stands still could be late with.
            if !held {
                self.0
                    .tell(&mut state, kind, |observer, mem, at| observer.tick(mem, at));
            }
        }
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Clock").field(&self.0.index).finish()
    }
}

fn indices(state: &State, kind: Kind) -> Option<(u16, u16)> {
    match kind {
        Kind::Rx => state.rx.indices(),
        Kind::Tx => state.tx.indices(),
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.wake();
        if let Some(thread) = self.thread.take() {
            // The thread contains panics; there is nothing to hear from it.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pair")
            .field("index", &self.shared.index)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
