//! Everything the engine asks for. The daemon carries it out, or the simulator.

use std::{path::PathBuf, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{
    happening::Happening, input::OrderId, learn::row::Change, order::Progress, plan::device::Knowledge,
    receipt::Receipt,
};
use crate::{
    catalog::model::Model,
    units::{ByteRange, FileId},
};

/// Names a load for as long as the agent runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LoadId(pub u64);

/// Names what is locked together, and let go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ModelPin(pub u64);

/// What is to be done with a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Task {
    /// It is to be up to date in the page cache.
    #[default]
    Warm,
    /// That, and locked there.
    Pin(ModelPin),
    /// It is to leave the page cache, as far as nobody has it mapped.
    Drop,
}

/// How a step is to be brought in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Manner {
    /// What is to be done with it.
    pub task: Task,
    /// Look first whether the whole part is resident.
    pub survey: bool,
    /// Its reader is not there yet: one request at a time, and only while nobody else uses the device.
    pub speculative: bool,
    /// The process it is done for.
    pub reader: u32,
    /// That process's memory cgroup is to be charged; the agent's own without.
    pub charged: bool,
}

/// One thing to do.
#[derive(Clone, Debug)]
pub enum Action {
    /// Ask the catalog, which looks at the file again; answered by `Input::Described`, after `Input::Changed` where it differs from what the catalog
    /// knew.
    Describe(FileId),
    /// Ask who a process is; answered by `Input::Program`.
    AskProgram {
        /// Process id.
        process: u32,
    },
    /// Look whether the process reads the file with `O_DIRECT`; answered by `Input::Direct` if so.
    AskDirect {
        /// Process id.
        process: u32,
        /// The file.
        file: FileId,
    },
    /// Ask how much memory there is, and who waits for it; answered by `Input::Memory`.
    AskMemory,
    /// Ask what was learned of a device before the agent was started; answered by `Input::Recalled` if there is any.
    Recall {
        /// Its number.
        device: u32,
    },
    /// Keep what was learned of a device.
    Keep {
        /// Its number.
        device: u32,
        /// What is worth keeping.
        knowledge: Knowledge,
    },
    /// Keep what was learned of models and programs.
    Learn(Change),
    /// Bring a step into the page cache, lock it there, or drop it; answered by `Input::Outcome`.
    Warm {
        /// For which load; steps of one load are done in order.
        load: LoadId,
        /// The model, for its parts' places.
        model: Arc<Model>,
        /// Index of the part.
        part: usize,
        /// Which bytes.
        range: ByteRange,
        /// How.
        manner: Manner,
    },
    /// Drop the load's steps that were not submitted yet; each still gets its outcome.
    Cancel {
        /// Which load.
        load: LoadId,
    },
    /// Close every descriptor held for the load.
    Close {
        /// Which load.
        load: LoadId,
    },
    /// Lock nothing any more of what is locked under this number.
    Release {
        /// Which.
        pin: ModelPin,
    },
    /// Ask who has these files mapped, and how these processes are; answered by `Input::Users`.
    AskUsers {
        /// The files.
        files: Vec<FileId>,
        /// Processes that have read them.
        processes: Vec<u32>,
    },
    /// Ask the catalog what is at a path; answered by `Input::Found`.
    Find {
        /// Absolute.
        path: PathBuf,
    },
    /// Tell whoever gave an order how far it is.
    Progress {
        /// Which.
        order: OrderId,
        /// What came of it so far.
        progress: Progress,
    },
    /// Take the kernel's counters of processes on a model's files, so that the next load starts at zero; answered by `Input::Counted`.
    Count {
        /// For which load.
        load: LoadId,
        /// Process ids.
        processes: Vec<u32>,
        /// The model.
        model: Arc<Model>,
    },
    /// Look up how much these processes have brought in of a model's files; answered by `Input::Added`.
    AskAdded {
        /// For which load.
        load: LoadId,
        /// Process ids.
        processes: Vec<u32>,
        /// The model.
        model: Arc<Model>,
    },
    /// The process has ended and its receipts are written: its counters can go.
    Forget {
        /// Process id.
        process: u32,
    },
    /// Tell people.
    Tell(Happening),
    /// Keep a receipt.
    Finish(Box<Receipt>),
}
