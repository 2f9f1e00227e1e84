// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What is told of a card.

use serde::{Deserialize, Serialize};

/// A card.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Card {
    /// Its name.
    pub name: String,
    /// Whether it is served.
    pub status: Status,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Path of its socket.
    pub socket: String,
    /// Its backend, as for `--net`.
    pub net: String,
    /// Its permanent MAC address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// Number of queue pairs.
    pub queues: u16,
    /// Largest MTU that the driver may set.
    pub mtu_max: u16,
    /// Its link.
    pub link: LinkState,
    /// The virtual machine that it is in, if it is in one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<Peer>,
    /// The features that its driver accepted; `None`: there is no driver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub features: Option<u64>,
    /// What is done about rules that the driver breaks.
    pub sanitize: String,
    /// How often it broke one; `None`: nobody looks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules_broken: Option<u64>,
    /// Number of faults that the card is told to have.
    pub faults: usize,
    /// Names of its queues that are paused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paused: Vec<String>,
}

/// Whether a card is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// A client may connect, or is connected.
    Serving,
    /// Something went wrong; it can only be removed.
    Failed,
}

/// Who is connected to a card.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Process id.
    pub pid: i32,
    /// User id.
    pub uid: u32,
}

/// A link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct LinkState {
    /// What the driver is told.
    pub up: bool,
    /// Mbit/s, if it is known.
    pub speed: Option<u32>,
    /// The cable is pulled: `link-set`.
    pub forced_down: bool,
    /// What the backend says.
    pub backend_up: bool,
}

/// The counters of a card, since it was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Name of the card.
    pub card: String,
    /// Its queues.
    pub queues: Vec<Queue>,
}

/// A queue and its counters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queue {
    /// Number of the pair.
    pub pair: u16,
    /// What it carries.
    pub direction: Direction,
    /// Name of the error that stopped it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Frames carried.
    pub frames: u64,
    /// Bytes carried.
    pub bytes: u64,
    /// Frames dropped.
    pub drops: u64,
    /// Times that it stopped with an error.
    pub errors: u64,
    /// Doorbells received.
    pub doorbells: u64,
    /// Interrupts raised.
    pub interrupts: u64,
}

/// Which way frames go, from the guest's point of view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// To the guest.
    Receive,
    /// From the guest.
    Transmit,
}

/// Another backend is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendChanged {
    /// The new one.
    pub net: String,
    /// The old one.
    pub before: String,
    /// Frames that the old one still had for the guest. They are lost, and counted as drops.
    pub dropped: u64,
}

/// How a card misbehaves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultPlan {
    /// A line for each fault: how many events there were, and how many of them went wrong.
    pub report: Vec<String>,
}

/// Rules that a driver broke.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Findings {
    /// How often, in all.
    pub total: u64,
    /// Each of them.
    pub rules: Vec<RuleBroken>,
}

/// A rule that a driver broke.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleBroken {
    /// Its name, as in docs/rules.md.
    pub rule: String,
    /// How often.
    pub total: u64,
    /// The first cases.
    pub first: Vec<String>,
}

/// A capture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct CaptureState {
    /// Name of the card.
    pub card: String,
    /// Why it is over; `None`: it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<CaptureEnd>,
    /// What went wrong, if it ended with that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Frames in the file.
    pub frames: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// The queues.
    pub queues: Vec<CaptureQueue>,
    /// Events that are not in the file, since there was no room for them.
    pub lost_events: u64,
}

/// Why a capture is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum CaptureEnd {
    /// It was stopped.
    Stopped,
    /// There were as many frames as were wanted.
    Count,
    /// It took as long as was wanted.
    Time,
    /// The file could not be written any more.
    Failed,
    /// It was stopped, but whoever reads the file has not taken all of it yet.
    Unfinished,
    /// One that this version does not know.
    #[serde(other)]
    Unknown,
}

/// A queue that is captured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptureQueue {
    /// Its name, such as `tx0`.
    pub queue: String,
    /// Frames that it carried since the capture began.
    pub seen: u64,
    /// Those of them for which there was no room on their way to the file.
    pub dropped: u64,
}
