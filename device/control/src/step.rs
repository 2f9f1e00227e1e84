// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What is told of queues that go on a step at a time.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepName {
    /// The next entry of the avail ring is looked at.
    Fetch,
    /// The descriptors of a chain are read.
    Read,
    /// A frame is handed to the backend, or asked for.
    Hand,
    /// The used entry is written, and the used index moves.
    Use,
    /// The used index is compared with what the driver asked for.
    Decide,
    /// The interrupt is raised.
    Signal,
    /// The queue has stopped, as its driver broke a rule.
    Stop,
    /// One that this version does not know.
    #[serde(other)]
    Unknown,
}

/// A step in words.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Words {
    /// Which one.
    pub step: StepName,
    /// One sentence.
    pub text: String,
    /// The section of the data sheet that it follows: path from the top of the repository, and heading.
    pub section: String,
    /// The numbers in it, by name.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub values: Map<String, Value>,
}

/// A step that was done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stepped {
    /// The card.
    pub card: String,
    /// The queue.
    pub queue: String,
    /// What was done.
    pub did: Words,
    /// What the next step will do, if the queue runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Words>,
}

/// The queues of a card that are paused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Paused {
    /// The card.
    pub card: String,
    /// Those of its queues that are.
    pub queues: Vec<PausedQueue>,
}

/// A queue that is paused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PausedQueue {
    /// Its name.
    pub queue: String,
    /// What the next step will do, if the queue runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Words>,
}
