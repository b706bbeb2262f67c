//! What retention is told once.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::units::ByteCount;

/// What is told once.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// After this a use counts half.
    pub half_life: Duration,
    /// Heat at which a model is locked.
    pub pin_above: f64,
    /// Heat below which it is let go.
    pub unpin_below: f64,
    /// Bytes that may be locked.
    pub pin: ByteCount,
    /// The hottest models of the last run are brought in at the start.
    pub rewarm: bool,
    /// Pages are left alone whose readers have copied them into memory of their own.
    pub keep_after_copy: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            half_life: Duration::from_secs(6 * 3600),
            pin_above: 0.9,
            unpin_below: 0.25,
            pin: ByteCount(0),
            rewarm: false,
            keep_after_copy: false,
        }
    }
}
