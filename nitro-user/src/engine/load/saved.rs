//! What help has saved a load, as far as there is something to compare with, and loads that go without it so that there is.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Load, Policy};
use crate::{
    engine::{
        action::LoadId,
        happening::Skip,
        plan::device::{Device, program_hash},
        receipt::Receipt,
    },
    units::Rate,
};

/// Of a load that brought in less, nothing is concluded.
const LEAST: u64 = 32 << 20;

/// A load without help was cold if so much of it was not there before.
const COLD: f64 = 0.9;

/// What a load is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Basis {
    /// Loads of the same program from the same device that were left without help (`--holdout`).
    HeldOut,
    /// The same readers, for the moment in which they were left alone.
    Alone,
}

impl Basis {
    /// For people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::HeldOut => "by its loads without help",
            Self::Alone => "by its own rate without help",
        }
    }
}

/// What help has saved.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Saved {
    /// So much longer it would have taken; 0 where it would not.
    pub seconds: f64,
    /// Says who.
    pub by: Basis,
}

impl fmt::Display for Saved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = if self.seconds < 10.0 { 1 } else { 0 };
        write!(f, "saved about {:.digits$} s {}", self.seconds, self.by.name())
    }
}

/// Whether a load is one of those that are left without help, a share of all, so that it is known what help is worth. Which ones they are is chance, and the same for the same agent.
pub fn is_held_out(policy: &Policy, id: LoadId) -> bool {
    let seed = id.0 ^ u64::try_from(policy.booted.as_nanos()).unwrap_or(0).rotate_left(32);
    policy.holdout > 0.0 && fastrand::Rng::with_seed(seed).f64() < policy.holdout
}

impl Load {
    /// Its receipt is written: what it tells of loads without help, and what help has saved it.
    pub fn compare(&self, receipt: &Receipt, device: &mut Device) -> Option<Saved> {
        let (demanded, cold) = (
            receipt.demanded.0,
            receipt.demanded.0.saturating_sub(receipt.resident_before.0),
        );
        if cold < LEAST || receipt.seconds <= 0.0 {
            return None;
        }
        let program = program_hash(receipt.program.as_deref()?);
        let only_reads = self.kinds.only_reads();
        let helped = receipt.warmed_in_time.0 + receipt.warmed_late.0;
        if self.skipped.contains(&Skip::HeldOut) {
            if helped == 0 && cold as f64 >= COLD * demanded as f64 {
                device.held_out(program, only_reads, Rate(cold as f64 / receipt.seconds));
            }
            return None;
        }
        if helped == 0 {
            return None;
        }
        let held_out = device
            .without_help(program, only_reads)
            .map(|rate| (rate, Basis::HeldOut));
        let (rate, by) = held_out.or_else(|| Some((self.benefit.alone()?, Basis::Alone)))?;
        let took = receipt.seconds * cold as f64 / demanded as f64;
        Some(Saved {
            seconds: (cold as f64 / rate.0.max(1.0) - took).max(0.0),
            by,
        })
    }
}
