//! Orders by hand: what is asked for, and how far it is. Values, as the control socket carries them.

use serde::{Deserialize, Serialize};

use super::input::StepEnd;

/// Names an order for as long as the agent runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OrderId(pub u64);

/// What people may want done by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Command {
    /// Lock it in memory, whatever its heat.
    Pin,
    /// Not any more.
    Unpin,
    /// Bring it into the page cache.
    Warm,
    /// Take it out of the page cache, where nobody has it mapped.
    Evict,
}

/// How far an order is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Bytes of all that it is about.
    pub total: u64,
    /// Bytes that it is through with.
    pub done: u64,
    /// Of these, bytes that are in the page cache now.
    pub there: u64,
    /// Bytes that were brought in, or dropped.
    pub changed: u64,
    /// Bytes that are locked, or were let go.
    pub held: u64,
    /// Bytes that it could not be done with.
    pub failed: u64,
    /// Why the last of these could not.
    pub trouble: Option<StepEnd>,
    /// Nothing goes on for want of memory, or since the agent is paused.
    pub waits: bool,
    /// Nothing more will be said.
    pub over: bool,
}
