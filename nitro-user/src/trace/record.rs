//! What a trace holds.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    engine::{input::Input, receipt::Receipt, retain::settings::Settings},
    units::{ByteCount, ByteRange, FileId, Moment},
};

/// What holds for the whole trace; its first frame.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Header {
    /// Version of the format: see [`super::VERSION`].
    pub format: u32,
    /// Version of the agent.
    pub agent: String,
    /// Release of the kernel.
    pub kernel: String,
    /// Event mode: what is seen of accesses depends on it.
    pub mode: String,
    /// Process id of the agent, whose own reading is among the pages that were brought in.
    pub process: u32,
    /// When the recording began, on the monotonic clock of all its times.
    pub began: Moment,
    /// The same moment in nanoseconds since 1970.
    pub began_unix_ns: i64,
    /// Watched directories; bytes that are not UTF-8 are replaced.
    pub roots: Vec<String>,
    /// The engine's ceiling.
    pub ceiling: ByteCount,
    /// What was to stay available of the machine's memory.
    pub reserve: ByteCount,
    /// Nothing was warmed.
    pub dry_run: bool,
    /// Programs whose reads were ignored.
    pub ignored: Vec<String>,
    /// Accesses were concluded from looking at their readers from time to time.
    pub inferred: bool,
    /// What was warmed was charged to its readers.
    pub charge_consumer: bool,
    /// What was kept after the loads.
    pub retain: Settings,
    /// The time since 1970 when the clock of all its times began.
    pub booted: Duration,
    /// The share of loads that were left without help.
    pub holdout: f64,
    /// Loads that were under way already: of these the replay knows no beginning.
    pub under_way: u64,
    /// Number of the first load that begins in it.
    pub next_load: u64,
    /// What was left out; empty in a trace of everything.
    pub filter: Vec<String>,
    /// Exact system calls were recorded beside the rest.
    pub calls: bool,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// The engine was told. An access carries its time itself.
    Input {
        /// The time that the engine was told.
        at: Moment,
        /// What.
        input: Input,
    },
    /// A run of pages was brought into the page cache.
    Brought {
        /// When.
        at: Moment,
        /// By which process.
        process: u32,
        /// By which of its threads.
        thread: u32,
        /// Of which file.
        file: FileId,
        /// Which bytes.
        range: ByteRange,
    },
    /// A system call.
    Call {
        /// When it began; for `open`, when it returned.
        at: Moment,
        /// By which process.
        process: u32,
        /// By which of its threads.
        thread: u32,
        /// Of which file.
        file: FileId,
        /// What kind.
        kind: CallKind,
        /// Past the page cache.
        direct: bool,
        /// Bytes that were asked for; empty for `open`.
        range: ByteRange,
    },
    /// What the kernel counted of one process in one file since it was last taken.
    Counts {
        /// When it was taken.
        at: Moment,
        /// Of which process.
        process: u32,
        /// The file.
        file: FileId,
        /// Accesses, coalesced or not.
        calls: u64,
        /// Bytes of these; repeated ones count again.
        bytes: u64,
        /// Bytes it brought in, the kernel's readahead for it included.
        added: u64,
        /// Of those, bytes it waited for.
        missed: u64,
    },
    /// A load has ended.
    Receipt {
        /// When it was written.
        at: Moment,
        /// Its account.
        receipt: Box<Receipt>,
    },
    /// Where a file is, and how large: of those that are in no model that the engine was told of.
    File {
        /// When that was known.
        at: Moment,
        /// Which.
        file: FileId,
        /// Its path.
        path: PathBuf,
        /// Bytes.
        size: u64,
    },
    /// The program of a process, as it was called when it was first seen: of those that the engine did not ask about as well.
    Process {
        /// When that was known.
        at: Moment,
        /// The process.
        process: u32,
        /// The program's name.
        name: String,
    },
    /// What is missing so far.
    Lost {
        /// When that was known.
        at: Moment,
        /// How much.
        loss: Loss,
    },
}

/// A system call that has to do with reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CallKind {
    /// `openat`, `openat2`, `open`.
    Open,
    /// `read`, `pread64`, `readv`, `preadv`, `preadv2`, `sendfile`.
    Read,
    /// `mmap`.
    Map,
}

/// Records that are missing since the recording began, by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// Dropped by the kernel: the ring was full.
    pub ring: u64,
    /// More than the rate that the recording is limited to.
    pub rate: u64,
    /// Nobody took them in time.
    pub slow: u64,
}

impl Loss {
    /// All of them.
    pub const fn sum(self) -> u64 {
        self.ring + self.rate + self.slow
    }
}

impl Record {
    /// When it happened.
    pub fn at(&self) -> Moment {
        match self {
            Self::Input {
                input: Input::Access(access),
                ..
            } => access.at,
            Self::Input { at, .. }
            | Self::Brought { at, .. }
            | Self::Call { at, .. }
            | Self::Counts { at, .. }
            | Self::Receipt { at, .. }
            | Self::File { at, .. }
            | Self::Process { at, .. }
            | Self::Lost { at, .. } => *at,
        }
    }
}
