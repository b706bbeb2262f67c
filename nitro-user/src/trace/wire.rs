//! Records as they are written: small numbers instead of names, differences instead of times and places, in the variable-length integers of postcard.
//!
//! A line refers to files, threads and models by their number in the tables of writer ([`super::encode`]) and reader ([`super::decode`]), which are filled by lines of their own. Nothing here knows what came before: what a difference is
//! to, the tables know.

use std::{
    ffi::OsString,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::Path,
};

use serde::{Deserialize, Serialize};

use super::record::{CallKind, Loss};
use crate::{
    catalog::model::{LayoutKind, Model, Part, Place},
    engine::{
        input::{AccessKind, Command, MachineMemory, StepEnd},
        learn::row::Row,
        plan::device::Knowledge,
    },
    sys::top::{Elsewhere, Top},
    units::FileId,
};

/// Entries of each table, after which all begin anew.
pub const MOST_ENTRIES: usize = 1 << 17;

/// The kinds of accesses, by their number in a line.
pub const KINDS: [AccessKind; 6] = [
    AccessKind::Read,
    AccessKind::MapTouch,
    AccessKind::MapPopulate,
    AccessKind::Map,
    AccessKind::Open,
    AccessKind::Brought,
];

/// The number of a kind.
pub const fn number_of(kind: AccessKind) -> u8 {
    match kind {
        AccessKind::Read => 0,
        AccessKind::MapTouch => 1,
        AccessKind::MapPopulate => 2,
        AccessKind::Map => 3,
        AccessKind::Open => 4,
        AccessKind::Brought => 5,
    }
}

/// Bits of [`Line::Access`] beside the three of its kind.
pub const JUMP: u8 = 8;
/// See [`JUMP`].
pub const IN_ORDER: u8 = 16;
/// See [`JUMP`].
pub const WRITTEN: u8 = 32;

/// A place in a file: from there so many bytes. The start is told by its distance to where the thread's last one ended.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Span {
    pub start: i64,
    pub length: u64,
}

/// A line of a frame.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Line {
    // Entries of the tables, numbered in the order in which they come.
    File {
        file: WireFile,
        generation: u32,
    },
    Thread {
        process: u32,
        thread: u32,
    },
    Model(WireModel),
    /// All tables are empty again.
    Reset,
    /// The lines that follow are of a time so much later, in nanoseconds.
    Time(i64),

    // What the engine was told.
    Access {
        thread: u32,
        file: u32,
        span: Span,
        how: u8,
    },
    Described {
        file: u32,
        description: Option<WireDescription>,
    },
    Named {
        process: u32,
        description: WireDescription,
    },
    Program {
        process: u32,
        name: String,
        user: u32,
    },
    Direct {
        process: u32,
        file: u32,
    },
    Outcome(WireOutcome),
    Removed {
        file: u32,
        start: u64,
        length: u64,
    },
    Ended {
        process: u32,
    },
    Counted {
        load: u64,
        counts: Vec<WireCounts>,
    },
    Added {
        load: u64,
        added: u64,
    },
    Recalled {
        device: u32,
        knowledge: Knowledge,
    },
    Gone {
        file: u32,
    },
    Unwatched {
        path: Vec<u8>,
    },
    Changed {
        file: u32,
    },
    Pause {
        until: Option<u64>,
    },
    Resume,
    Battery(bool),
    Ceiling(u64),
    Memory(MachineMemory),
    Learned(Vec<Row>),
    Users(Vec<WireUser>),
    Found {
        path: Vec<u8>,
        description: Option<WireDescription>,
    },
    Ordered {
        order: u64,
        command: Command,
        items: Vec<WireItem>,
    },
    Withdrawn {
        order: u64,
    },
    Unheld {
        pins: Vec<u64>,
    },
    Forget {
        path: Option<Vec<u8>>,
    },
    Tick,

    // What only people want to know.
    Brought {
        thread: u32,
        file: u32,
        span: Span,
    },
    Call {
        thread: u32,
        file: u32,
        span: Span,
        kind: CallKind,
        direct: bool,
    },
    ProcessCounts {
        process: u32,
        counts: WireCounts,
    },
    /// As JSON: it has no secrets of form, and changes more often than all else.
    Receipt(String),
    Path {
        file: u32,
        path: Vec<u8>,
        size: u64,
    },
    Process {
        process: u32,
        name: String,
    },
    Lost(Loss),
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct WireFile {
    pub device: u32,
    pub inode: u64,
}

impl From<FileId> for WireFile {
    fn from(FileId { device, inode }: FileId) -> Self {
        Self { device, inode }
    }
}

impl From<WireFile> for FileId {
    fn from(WireFile { device, inode }: WireFile) -> Self {
        Self { device, inode }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WireDescription {
    pub file: u32,
    pub model: u32,
    pub position: u64,
    pub written: Option<u64>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WireCounts {
    pub file: Option<u32>,
    pub calls: u64,
    pub bytes: u64,
    pub added: u64,
    pub missed: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WireUser {
    pub process: u32,
    pub maps: Vec<u32>,
    pub accelerator: bool,
    pub anonymous: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WireItem {
    pub model: u32,
    pub parts: Vec<u64>,
}

/// Times are told by their distance to that of the record.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WireOutcome {
    pub load: u64,
    pub part: u64,
    pub file: u32,
    pub device: u32,
    pub start: u64,
    pub length: u64,
    pub end: StepEnd,
    pub before: u64,
    pub after: u64,
    pub beyond: u64,
    pub held: u64,
    pub submitted: i64,
    pub completed: i64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WireModel {
    name: String,
    layout: LayoutKind,
    parts: Vec<WirePart>,
    observe_only: bool,
    lent: bool,
    changes_unseen: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct WirePart {
    file: WireFile,
    size: u64,
    header: u64,
    generation: u32,
    place: WirePlace,
    layer: Option<WirePlace>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct WirePlace {
    /// In the mount namespace it belongs to.
    root: Vec<u8>,
    /// Process and number of that namespace, where it is not the agent's.
    elsewhere: Option<(u32, u64)>,
    below: Vec<u8>,
}

/// The bytes of a path.
pub fn bytes_of(path: &Path) -> Vec<u8> {
    path.as_os_str().as_bytes().to_vec()
}

/// The path of such bytes.
pub fn path_of(bytes: Vec<u8>) -> OsString {
    OsString::from_vec(bytes)
}

impl From<&Place> for WirePlace {
    fn from(place: &Place) -> Self {
        Self {
            root: bytes_of(&place.root.native()),
            elsewhere: place.root.namespace().map(|there| (there.process, there.namespace)),
            below: bytes_of(&place.below),
        }
    }
}

impl From<WirePlace> for Place {
    fn from(place: WirePlace) -> Self {
        let root = path_of(place.root);
        let root = match place.elsewhere {
            Some((process, namespace)) => Top::elsewhere(Elsewhere { process, namespace }, Path::new(&root)),
            None => Path::new(&root).into(),
        };
        Self {
            root,
            below: path_of(place.below).into(),
        }
    }
}

impl From<&Model> for WireModel {
    fn from(model: &Model) -> Self {
        let part = |part: &Part| WirePart {
            file: part.file.into(),
            size: part.size,
            header: part.header,
            generation: part.generation,
            place: (&part.place).into(),
            layer: part.layer.as_ref().map(Into::into),
        };
        Self {
            name: model.name.clone(),
            layout: model.layout,
            parts: model.parts.iter().map(part).collect(),
            observe_only: model.observe_only,
            lent: model.lent,
            changes_unseen: model.changes_unseen,
        }
    }
}

impl From<WireModel> for Model {
    fn from(model: WireModel) -> Self {
        let part = |part: WirePart| Part {
            file: part.file.into(),
            size: part.size,
            header: part.header,
            generation: part.generation,
            place: part.place.into(),
            layer: part.layer.map(Into::into),
        };
        Self {
            name: model.name,
            layout: model.layout,
            parts: model.parts.into_iter().map(part).collect(),
            observe_only: model.observe_only,
            lent: model.lent,
            changes_unseen: model.changes_unseen,
        }
    }
}
