//! What was learned, in the form in which the state directory keeps it. Values only: no table, no file.
//!
//! Models and programs are named by numbers, which [`Row::Model`] and [`Row::Program`] give a meaning to; the engine hands these out from 1 on, before any row that uses
//! them. A row with the same key as one before replaces it. Times are seconds since 1970: the clock of the engine begins anew with every boot.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{catalog::model::LayoutKind, engine::plan::device::Knowledge};

/// Number of a model or of a program; 0 stands for none.
pub type Number = u32;

/// In a [`Successor`]'s context: the program had loaded nothing for long. No model has this number.
pub const BEGINNING: Number = Number::MAX;

/// Models before a load that are looked at for what follows, at most.
pub const MOST_CONTEXT: usize = 3;

/// Runs of steps of which the order of one model may consist.
pub const MOST_RUNS: usize = 4096;

/// One fact.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Row {
    /// A model. Key: `number`.
    Model {
        /// From now on.
        number: Number,
        /// Absolute path of its first part; need not be UTF-8.
        path: PathBuf,
    },
    /// A program. Key: `number`.
    Program {
        /// From now on.
        number: Number,
        /// As `ps -o comm` shows it.
        name: String,
    },
    /// How much a model is used. Key: `model`.
    Heat {
        /// Which.
        model: Number,
        /// Decayed number of uses, as it was at `at`.
        heat: f64,
        /// Somebody has asked for it to be locked, and nobody to let it go.
        asked: bool,
        /// Seconds since 1970.
        at: u64,
    },
    /// What a program loaded next. Key: `program`, `context`, `next`.
    Successor(Successor),
    /// In which order a program reads a model. Key: `model`, `program`.
    Order(Order),
    /// How long after the first evidence a program begins to read. Key: `layout`, `program`.
    Lead(Lead),
    /// How often predictions of a confidence come true. Key: `bucket`.
    Calibration {
        /// Tenths of confidence before it is corrected, or finer: the predictor's own.
        bucket: u8,
        /// Decayed number of them that came true.
        right: f32,
        /// Decayed number of all.
        all: f32,
    },
    /// What a device does. Key: `identity`.
    Device {
        /// What identifies it beyond a restart.
        identity: String,
        /// What is known.
        knowledge: Knowledge,
        /// When it was last heard of, in seconds since 1970.
        at: u64,
    },
}

/// See [`Row::Successor`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Successor {
    /// Who loads; 0 for any program.
    pub program: Number,
    /// The models loaded before by that program, the last one first, and [`BEGINNING`] before the first one; 0 where the context is shorter.
    pub context: [Number; MOST_CONTEXT],
    /// The model that came next; 0 where none came for long.
    pub next: Number,
    /// Decayed number of times, as it was at `at`.
    pub weight: f32,
    /// Seconds since 1970.
    pub at: u64,
    /// Mean of the natural logarithm of the seconds from the beginning of the load before to the beginning of this one.
    pub gap_log: f32,
    /// Mean absolute deviation of the same.
    pub gap_spread: f32,
}

/// See [`Row::Order`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// Which model.
    pub model: Number,
    /// Who reads.
    pub program: Number,
    /// Size of the model's parts together: a model of another size is another model of this name.
    pub bytes: u64,
    /// Steps of 2 MiB in the order in which they were first asked for. What is in none was never read.
    pub runs: Vec<Run>,
    /// Decayed number of loads that agreed with it, as it was at `at`.
    pub weight: f32,
    /// Seconds since 1970.
    pub at: u64,
}

/// Steps of one part in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Index of the part in its model.
    pub part: u32,
    /// The first step.
    pub first: u32,
    /// Steps, at least one.
    pub steps: u32,
}

/// See [`Row::Lead`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lead {
    /// The arrangement on disk.
    pub layout: LayoutKind,
    /// Who loads.
    pub program: Number,
    /// Decayed number of loads, as it was at `at`.
    pub weight: f32,
    /// Seconds since 1970.
    pub at: u64,
    /// Mean of the natural logarithm of the seconds from the first evidence to the first read beyond the header.
    pub log: f32,
    /// Mean absolute deviation of the same.
    pub spread: f32,
}

/// A change of what is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Change {
    /// Keep this, instead of what had its key.
    Put(Row),
    /// Forget a model and all that mentions it.
    ForgetModel(Number),
    /// Forget a program and all that mentions it.
    ForgetProgram(Number),
    /// Forget one order: there is no room for it.
    ForgetOrder {
        /// Which model.
        model: Number,
        /// Who reads.
        program: Number,
    },
    /// Forget one row of a successor: it has faded.
    Fade {
        /// Who loads.
        program: Number,
        /// After what.
        context: [Number; MOST_CONTEXT],
        /// What.
        next: Number,
    },
    /// Forget everything.
    ForgetAll,
}
