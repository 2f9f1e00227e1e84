// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What is told of a card.

use std::collections::BTreeMap;

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
    /// The emulated line before its backend, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shape: Option<Shape>,
    /// Its backend, if that is a generator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generator: Option<Generator>,
}

/// What a generator has sent, and what came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Generator {
    /// Frames that the card was given.
    pub sent: u64,
    /// Bytes of them.
    pub sent_bytes: u64,
    /// Frames with a stamp that came, and answers to ARP requests.
    pub received: u64,
    /// Bytes of them.
    pub received_bytes: u64,
    /// Frames that will not come.
    pub lost: u64,
    /// Own frames that may yet come back.
    pub unanswered: u64,
    /// Frames that came after a later one.
    pub reordered: u64,
    /// Frames that came once more.
    pub duplicated: u64,
    /// Frames whose payload is not what was sent.
    pub damaged: u64,
    /// Frames that are none of a generator.
    pub other: u64,
    /// From sending to arrival.
    pub latency: Times,
    /// The longest of that, in nanoseconds.
    pub longest: u64,
}

/// An emulated line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// What the card sent.
    pub transmit: Lane,
    /// What was on its way to the card.
    pub receive: Lane,
}

/// What became of frames in one direction of an emulated line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lane {
    /// Frames that came to it.
    pub frames: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Frames that were lost.
    pub lost: u64,
    /// Frames that went on twice.
    pub duplicated: u64,
    /// Frames that were put behind the next one.
    pub reordered: u64,
}

/// A queue and its counters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
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
    /// The dropped frames by reason; reasons for which none were are left out.
    #[serde(default)]
    pub drops_by_reason: BTreeMap<String, u64>,
    /// How full its ring is; `None` if it is not started, or in memory that is not shared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ring: Option<Ring>,
    /// How long batches took, if they are timed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<Times>,
}

/// How full a ring is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ring {
    /// Chains that the driver has made available and not got back.
    pub waiting: u16,
    /// Descriptors of the ring.
    pub size: u16,
}

/// How long something took: batches in which frames moved, since they are timed, or frames.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Times {
    /// What they took together, in nanoseconds.
    pub sum: u64,
    /// How many took how long, the shorter ones first.
    pub buckets: Vec<Bucket>,
}

/// Those that took longer than those of the bucket before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bucket {
    /// But no longer than this, in nanoseconds; any time if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub most: Option<u64>,
    /// So many.
    pub count: u64,
}

/// A switch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Switch {
    /// Its name.
    pub name: String,
    /// Number of addresses that it has learned.
    pub addresses: usize,
    /// Number of multicast groups with members, if it listens to that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<usize>,
    /// Its ports.
    pub ports: Vec<Port>,
}

/// A port of a switch, and its counters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Port {
    /// Its name; one that has none has its card's.
    pub port: String,
    /// Frames that it sent into the switch.
    pub frames_in: u64,
    /// Bytes of them.
    pub bytes_in: u64,
    /// Frames that it got from the switch.
    pub frames_out: u64,
    /// Bytes of them.
    pub bytes_out: u64,
    /// Frames that it had no room for.
    pub full: u64,
    /// Frames that it sent, and that were not let in.
    pub refused: u64,
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
    /// The first cases of the session that broke it last.
    pub first: Vec<String>,
}

/// A capture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct CaptureState {
    /// Name of the card.
    pub card: String,
    /// Which capture it is: none of this vnetd had the same before. `None`: vnetd is older than that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u64>,
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
