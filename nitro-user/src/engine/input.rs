//! Everything the engine is told. A recorded trace holds these.

use std::{path::PathBuf, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

pub use super::order::{Command, OrderId};
use super::{
    action::{LoadId, ModelPin},
    learn::row::Row,
    plan::device::Knowledge,
};
use crate::{
    catalog::model::{Description, Model},
    units::{ByteCount, ByteRange, FileId, Moment},
};

/// One thing that happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// A process accessed a watched file.
    Access(Access),
    /// The catalog's answer; `None` when the file is in no watch root any more.
    Described {
        /// The file asked about.
        file: FileId,
        /// What it is part of.
        description: Option<Description>,
    },
    /// A command line named a file.
    Named {
        /// The process that was started with it.
        process: u32,
        /// The file, and what it is part of.
        description: Description,
    },
    /// Who a process is.
    Program {
        /// Process id.
        process: u32,
        /// Name for people.
        name: String,
        /// Real user id.
        user: u32,
    },
    /// A process has the file open with `O_DIRECT`: the page cache is of no use to it.
    Direct {
        /// Process id.
        process: u32,
        /// The file.
        file: FileId,
    },
    /// A worker finished, or gave up, a step.
    Outcome(Outcome),
    /// Pages left the page cache.
    Removed {
        /// Of which file.
        file: FileId,
        /// Which bytes.
        range: ByteRange,
    },
    /// A process has ended.
    Ended {
        /// Process id.
        process: u32,
    },
    /// The kernel's counters, in answer to [`super::Action::Count`].
    Counted {
        /// Of which load.
        load: LoadId,
        /// File by file and thread by thread.
        counts: Vec<FileCounts>,
    },
    /// What the processes of a load have brought in themselves, in answer to [`super::Action::AskAdded`].
    Added {
        /// Of which load.
        load: LoadId,
        /// Bytes, the kernel's readahead for them included.
        added: u64,
    },
    /// What was known of a device when the agent ran before.
    Recalled {
        /// Its number.
        device: u32,
        /// What is known.
        knowledge: Knowledge,
    },
    /// A file was deleted, or left the watch roots.
    Gone {
        /// Which.
        file: FileId,
    },
    /// Nothing at or below this absolute path is watched any more: what is read there ends, also of files with other names elsewhere.
    Unwatched {
        /// The path.
        path: PathBuf,
    },
    /// A file's content or its model changed.
    Changed {
        /// Which.
        file: FileId,
    },
    /// Nothing is to be brought in from now on, and no file held open.
    Pause {
        /// Until then; until [`Input::Resume`] without.
        until: Option<Moment>,
    },
    /// The pause is over.
    Resume,
    /// Whether the machine runs on its battery.
    Battery(bool),
    /// The ceiling changed.
    Ceiling(ByteCount),
    /// The machine's memory, in answer to [`super::Action::AskMemory`].
    Memory(MachineMemory),
    /// What was learned when the agent ran before. To be told before anything else.
    Learned(Vec<Row>),
    /// Who has what mapped, in answer to [`super::Action::AskUsers`]: processes that live.
    Users(Vec<User>),
    /// What is at a path, in answer to [`super::Action::Find`].
    Found {
        /// The path.
        path: PathBuf,
        /// The watched file there, if there is one.
        description: Option<Description>,
    },
    /// Somebody wants something done with files, and hears of its [`super::Action::Progress`].
    Ordered {
        /// From now on its name.
        order: OrderId,
        /// What is to be done.
        command: Command,
        /// With which parts of which models.
        items: Vec<Item>,
    },
    /// Whoever gave an order does not want it any more.
    Withdrawn {
        /// Which.
        order: OrderId,
    },
    /// These are not locked any more, unasked: the process that held them has ended, or a cgroup that is charged for them has been given a limit.
    Unheld {
        /// Which.
        pins: Vec<ModelPin>,
    },
    /// What was learned of the models at or below a path is to be forgotten; without one, everything.
    Forget {
        /// Absolute.
        path: Option<PathBuf>,
    },
    /// The time of [`super::Engine::deadline`] has come.
    Tick,
}

/// What is known of the machine's memory at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MachineMemory {
    /// Bytes that can be had without swapping (`MemAvailable`).
    pub available: ByteCount,
    /// Bytes that nobody has, not even the page cache: of the machine, and within the limits of the agent's own memory cgroup.
    pub free: ByteCount,
    /// What the limits of the agent's own memory cgroup leave once the pages of files that nobody uses have gone; nothing without a limit.
    pub room: Option<ByteCount>,
    /// How long somebody has waited for memory since the machine was started.
    pub stalled: Duration,
    /// How long somebody has waited for a device.
    pub devices_stalled: Duration,
    /// Bytes that the kernel has taken back, for the machine or for a cgroup.
    pub reclaimed: ByteCount,
    /// Bytes of files that it took from somebody's working set and that had to be read again; under a limit of the agent's own memory cgroup, all that had to be there.
    pub restored: ByteCount,
}

/// Parts of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The model.
    pub model: Arc<Model>,
    /// Indexes of its parts.
    pub parts: Vec<usize>,
}

/// A live process, as to what it has of some files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Process id.
    pub process: u32,
    /// Those of the files that it has mapped.
    pub maps: Vec<FileId>,
    /// It has a device open that computes with data in memory of its own.
    pub accelerator: bool,
    /// Its anonymous memory.
    pub anonymous: ByteCount,
}

/// How a file was accessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AccessKind {
    /// A buffered read.
    Read,
    /// A touch of a mapping.
    MapTouch,
    /// A mapping filled inside a system call: `MAP_POPULATE`, `MADV_POPULATE_READ`.
    MapPopulate,
    /// A mapping was made (syscalls mode); nothing was read yet.
    Map,
    /// The file was opened (syscalls mode).
    Open,
    /// The thread brought pages in (syscalls mode): of a reader of a mapping, who makes no system calls, the only sign.
    Brought,
}

impl AccessKind {
    /// Whether bytes are asked for.
    pub const fn is_demand(self) -> bool {
        matches!(self, Self::Read | Self::MapTouch | Self::MapPopulate)
    }
}

/// One access event: the first of a step, or a jump.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// When, by the kernel's clock.
    pub at: Moment,
    /// Process id.
    pub process: u32,
    /// Thread id.
    pub thread: u32,
    /// Which file.
    pub file: FileId,
    /// The inode's generation, 0 where it is not known: inode numbers are reused at once, generations are not.
    pub generation: u32,
    /// Which bytes.
    pub range: ByteRange,
    /// How.
    pub kind: AccessKind,
    /// It does not continue the thread's previous access.
    pub jump: bool,
    /// The eighth access in order since the last jump.
    pub in_order: bool,
    /// Somebody has the file open for writing.
    pub written: bool,
}

/// What a process did with one file, by the kernel's own count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileCounts {
    /// Which file.
    pub file: Option<FileId>,
    /// Accesses.
    pub calls: u64,
    /// Bytes of these; repeated ones count again.
    pub bytes: u64,
    /// Bytes it brought into the page cache, the kernel's readahead for it included.
    pub added: u64,
    /// Of those, bytes it waited for.
    pub missed: u64,
}

impl FileCounts {
    /// Adds what was counted elsewhere of the same file.
    pub fn add(&mut self, other: &Self) {
        self.calls += other.calls;
        self.bytes += other.bytes;
        self.added += other.added;
        self.missed += other.missed;
    }
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StepEnd {
    /// Verified; see the byte counts.
    Done,
    /// The whole part was found in the page cache before anything was read.
    WholePartResident,
    /// Cancelled before it was submitted.
    Cancelled,
    /// Somebody else uses the device, and it was not urgent: what was brought in until then stays, the rest may be asked for again.
    Yielded,
    /// There is no thread for it: too many loads at once.
    Refused,
    /// It cannot be done on its reader's account.
    NoAccount,
    /// The memory cgroup of its reader is full.
    NoRoom,
    /// The file could not be opened or read.
    Failed,
    /// Nobody who has it open lends it.
    NotLent,
    /// What its reader has open is another file of the same number, a snapshot's.
    Namesake,
    /// Another file has this name now, or the file has another size than the catalog said: it must be asked again.
    Stale,
    /// The file was changed a moment ago, or holds pages that are not on the device yet.
    Written,
    /// Readahead and reads bring nothing into the page cache here.
    Unverified,
    /// It is there, and must not or cannot be locked.
    NotHeld,
}

/// What a worker did about one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// For which load.
    pub load: LoadId,
    /// Index of the part in its model.
    pub part: usize,
    /// The file.
    pub file: FileId,
    /// Its device.
    pub device: u32,
    /// The step's bytes.
    pub range: ByteRange,
    /// How it ended.
    pub end: StepEnd,
    /// Bytes present before.
    pub before: u64,
    /// Bytes up to date afterwards, by `mincore`.
    pub after: u64,
    /// Bytes that were brought in beyond `range` with it, in the next step; that step's own outcome counts them again.
    pub beyond: u64,
    /// Bytes that were locked.
    pub held: u64,
    /// When its first readahead was called.
    pub submitted: Moment,
    /// When it was seen complete.
    pub completed: Moment,
}

impl Outcome {
    /// Bytes that were brought in.
    pub fn gained(&self) -> u64 {
        self.after.saturating_sub(self.before)
    }
}
