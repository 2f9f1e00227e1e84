// SPDX-License-Identifier: GPL-2.0

//! Interrupt moderation: how long the card may wait before it interrupts.
//!
//! Only received frames have it adapt to the traffic. A transmitted frame that is done has nobody
//! waiting for it, and most are reclaimed by the next transmission or poll: for the rest, a bound
//! that is always the same does.

use kernel::{
    prelude::*,
    sync::atomic::Relaxed, //
};
use netdev::{
    coalesce::{
        Coalesce,
        Level,
        Moderation, //
    },
    error::EOPNOTSUPP,
    ethtool::Answer,
    Locked, //
};
use vnet_contract::{
    features,
    queue,
    regs, //
};

use crate::nic::Nic;

/// What the card does until told otherwise.
const DEFAULT: Coalesce = Coalesce {
    rx: NONE,
    // The time is also the longest that a frame which was sent stays with the driver.
    tx: Moderation {
        usecs: 250,
        frames: 64,
    },
    adaptive_rx: true,
};

/// What a card with these features does until told otherwise. One that does not moderate has nothing
/// that could adapt.
pub(crate) fn initial(accepted: u64) -> Coalesce {
    Coalesce {
        adaptive_rx: DEFAULT.adaptive_rx && accepted & features::MODERATION != 0,
        ..DEFAULT
    }
}

const NONE: Moderation = Moderation {
    usecs: 0,
    frames: 0,
};

/// What the levels of adaptive moderation are. The first is none at all: the library begins there
/// and moves on only while that gives more frames or fewer interrupts.
const LEVELS: [Moderation; Level::COUNT] = [
    NONE,
    Moderation {
        usecs: 16,
        frames: 32,
    },
    Moderation {
        usecs: 32,
        frames: 64,
    },
    Moderation {
        usecs: 64,
        frames: 64,
    },
    Moderation {
        usecs: 128,
        frames: 128,
    },
];

/// The value of `Q_MODERATION`, whose numbers have 16 bits.
fn register(moderation: Moderation) -> Option<u32> {
    let usecs = u16::try_from(moderation.usecs).ok()?;
    let frames = u16::try_from(moderation.frames).ok()?;
    Some(
        regs::Q_MODERATION_USECS.put(u32::from(usecs))
            | regs::Q_MODERATION_FRAMES.put(u32::from(frames)),
    )
}

impl Nic<'_> {
    fn moderates(&self) -> bool {
        self.identity.features & features::MODERATION != 0
    }

    /// The moderation that is set up, if the card has any.
    pub(crate) fn moderation(&self) -> Option<Coalesce> {
        self.moderates().then(|| *self.coalesce.lock())
    }

    /// Changes the moderation of all pairs.
    pub(crate) fn set_moderation(
        &self,
        dev: &Locked<'_, Self>,
        coalesce: Coalesce,
        answer: &mut Answer<'_>,
    ) -> Result {
        if !self.moderates() {
            return Err(EOPNOTSUPP);
        }
        for moderation in [coalesce.rx, coalesce.tx] {
            if register(moderation).is_none() {
                answer.say(c"at most 65535 microseconds and 65535 frames");
                return Err(EINVAL);
            }
            if moderation.usecs == 0 && moderation.frames != 0 {
                answer.say(c"frames end a wait: without microseconds there is none");
                return Err(EINVAL);
            }
        }
        // Held to the end, so that what adapts comes before or after.
        let mut current = self.coalesce.lock();
        *current = coalesce;
        self.adaptive.store(coalesce.adaptive_rx, Relaxed);
        if dev.is_running() && self.runs() {
            for pair in 0..self.shape().pairs {
                self.write_moderation(dev, pair, &coalesce);
            }
        }
        Ok(())
    }

    /// Tells the card the moderation of a pair that is about to start.
    pub(crate) fn restore_moderation(&self, dev: &Locked<'_, Self>, pair: u16) {
        if self.moderates() {
            self.write_moderation(dev, pair, &self.coalesce.lock());
        }
    }

    fn write_moderation(&self, dev: &Locked<'_, Self>, pair: u16, coalesce: &Coalesce) {
        let rx = if coalesce.adaptive_rx {
            LEVELS[dev.moderation_level(pair).index()]
        } else {
            coalesce.rx
        };
        self.write_queue_moderation(queue::rx_index(pair), rx);
        self.write_queue_moderation(queue::tx_index(pair), coalesce.tx);
    }

    fn write_queue_moderation(&self, index: u16, moderation: Moderation) {
        if let Some(value) = register(moderation) {
            self.regs.write_queue(index, regs::Q_MODERATION, value);
        }
    }

    /// Sets the level that fits the traffic of a pair.
    pub(crate) fn adapt_moderation(&self, pair: u16, level: Level) {
        let coalesce = self.coalesce.lock();
        // It may have been switched off since the decision was made.
        if coalesce.adaptive_rx && self.present() {
            self.write_queue_moderation(queue::rx_index(pair), LEVELS[level.index()]);
        }
    }
}
