//! What tests of the engine with one model of one file have in common.

#![allow(dead_code, reason = "every test takes what it needs")]

use std::{path::Path, sync::Arc};

use nitro_user::{
    catalog::model::{Description, LayoutKind, Model, Part, Place},
    engine::{Access, AccessKind, LoadId, Outcome, Policy, input::StepEnd},
    units::{ByteCount, ByteRange, FileId, Moment},
};

/// The file.
pub const FILE: FileId = FileId { device: 1, inode: 1 };

/// Help within `ceiling`.
pub fn policy(ceiling: u64) -> Policy {
    Policy {
        ceiling: ByteCount(ceiling),
        ..Policy::default()
    }
}

/// What the catalog says of the file.
pub fn description(size: u64) -> Description {
    let place = Place {
        root: Path::new("/r").into(),
        below: "f".into(),
    };
    let part = Part {
        file: FILE,
        size,
        header: 4096,
        place,
        generation: 0,
        layer: None,
    };
    let model = Model {
        name: "m".into(),
        layout: LayoutKind::Single,
        observe_only: false,
        lent: false,
        changes_unseen: false,
        parts: vec![part],
    };
    Description {
        file: FILE,
        model: Arc::new(model),
        position: 0,
        written: None,
    }
}

/// A read in order by a process of one thread.
pub fn access(at: Moment, process: u32, generation: u32, range: ByteRange) -> Access {
    Access {
        at,
        process,
        thread: process,
        file: FILE,
        generation,
        range,
        kind: AccessKind::Read,
        jump: false,
        in_order: true,
        written: false,
    }
}

/// A step that ended so, with `gained` bytes.
pub fn outcome(
    load: LoadId,
    range: ByteRange,
    end: StepEnd,
    gained: u64,
    submitted: Moment,
    completed: Moment,
) -> Outcome {
    Outcome {
        load,
        part: 0,
        file: FILE,
        device: FILE.device,
        range,
        end,
        before: 0,
        after: gained,
        beyond: 0,
        held: 0,
        submitted,
        completed,
    }
}
