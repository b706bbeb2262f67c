//! What people are told: one line per happening. Values; printing is the command line's job.

use serde::{Deserialize, Serialize};

use super::receipt::Receipt;
use crate::units::ByteCount;

/// Kinds of happening, as printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum What {
    /// A load was recognised.
    Load,
    /// Its window was opened.
    Warm,
    /// It is left alone, or no longer helped.
    Skip,
    /// It ended.
    Done,
}

impl What {
    /// Four letters.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Load => "LOAD",
            Self::Warm => "WARM",
            Self::Skip => "SKIP",
            Self::Done => "DONE",
        }
    }
}

/// Why nothing, or nothing more, was warmed for a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Skip {
    /// It reads past the page cache.
    DirectIo,
    /// It was in the page cache already.
    Resident,
    /// Deleted, replaced, or no longer watched.
    Gone,
    /// Changed on disk.
    Changed,
    /// Open for writing, dirty, or changed in the last 10 s: a download or a checkpoint that is not complete.
    Written,
    /// Too many loads at once.
    Busy,
    /// Cannot be opened or read.
    Unreadable,
    /// Root is refused where it is, and its reader keeps no descriptor of it open that could be borrowed.
    NotLent,
    /// Its reader has a file of another snapshot, which has the same number.
    Namesake,
    /// The file system keeps nothing in the page cache that could be verified.
    Unverified,
    /// It reads here and there.
    Random,
    /// It brings in itself what it is going to read.
    Prefetching,
    /// The device gives the reader all it can take without help.
    FastDevice,
    /// `--charge consumer`: the memory cgroup of its reader cannot be joined.
    NoAccount,
    /// `--charge consumer`: the memory cgroup of its reader is full.
    NoRoom,
    /// Its reader gets more from the device without help.
    NoGain,
    /// Reading costs money where it is: see `--fetch`.
    ObserveOnly,
    /// `--dry-run`.
    DryRun,
    /// `--holdout`: one of the loads that show what help is worth.
    HeldOut,
    /// `nitro-agent pause`, for a while.
    Paused,
    /// Named on a command line, and never read.
    NeverRead,
    /// `--ignore-program`.
    Ignored,
    /// The machine's memory is short, for a while.
    Pressure,
}

impl Skip {
    /// For people.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::DirectIo => "reads with O_DIRECT, past the page cache",
            Self::Resident => "already in the page cache",
            Self::Gone => "deleted, replaced, or no longer watched",
            Self::Changed => "changed on disk",
            Self::Written => "being written, or changed a moment ago",
            Self::Busy => "too many loads at once",
            Self::Unreadable => "cannot be opened or read",
            Self::NotLent => "root is refused there, and its reader has closed it",
            Self::Namesake => "it is another snapshot's file that is read",
            Self::Unverified => "nothing stays in the page cache of this file system",
            Self::Random => "reads here and there",
            Self::Prefetching => "prefetches by itself",
            Self::FastDevice => "the device keeps up without help",
            Self::NoAccount => "cannot be warmed on its reader's account",
            Self::NoRoom => "the memory cgroup of its reader is full",
            Self::NoGain => "the reader is faster without help",
            Self::ObserveOnly => "reading costs money there: only observed, unless --fetch says otherwise",
            Self::DryRun => "dry run",
            Self::HeldOut => "held out, to see what help is worth",
            Self::Paused => "paused",
            Self::NeverRead => "named on a command line, not read",
            Self::Ignored => "its program is ignored",
            Self::Pressure => "memory was short",
        }
    }
}

/// One line for people.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Happening {
    /// What.
    pub what: What,
    /// Model or file.
    pub model: String,
    /// Program, once known.
    pub program: Option<String>,
    /// Process id.
    pub process: u32,
    /// Bytes it is about.
    pub bytes: ByteCount,
    /// Percent of the ceiling in use.
    pub ceiling_percent: u8,
    /// Reason or remark.
    pub note: String,
}

impl Happening {
    /// The end of a load, in one line.
    pub fn done(receipt: &Receipt, ceiling_percent: u8) -> Self {
        Self {
            what: What::Done,
            model: receipt.model.clone(),
            program: receipt.program.clone(),
            process: receipt.pids.first().copied().unwrap_or_default(),
            bytes: receipt.demanded,
            ceiling_percent,
            note: receipt.summary(),
        }
    }
}
