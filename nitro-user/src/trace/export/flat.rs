//! A record as one flat thing, whatever it is of.

use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    engine::input::{AccessKind, Input},
    trace::{CallKind, Record},
    units::{ByteRange, FileId},
};

/// A record.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Flat {
    /// What it is.
    pub event: &'static str,
    /// Whose it is.
    pub process: Option<u32>,
    /// Of which thread.
    pub thread: Option<u32>,
    /// About which file.
    pub file: Option<FileId>,
    /// Which bytes.
    pub range: Option<ByteRange>,
    /// More exactly what.
    pub kind: Option<&'static str>,
    /// Whether an access does not continue the one before.
    pub jump: Option<bool>,
    /// All else.
    pub detail: Option<Value>,
}

/// The name of a kind of access.
pub const fn kind_of(kind: AccessKind) -> &'static str {
    match kind {
        AccessKind::Read => "read",
        AccessKind::MapTouch => "map-touch",
        AccessKind::MapPopulate => "map-populate",
        AccessKind::Map => "map",
        AccessKind::Open => "open",
        AccessKind::Brought => "brought",
    }
}

/// The name of a kind of call.
pub const fn call_of(kind: CallKind, direct: bool) -> &'static str {
    match (kind, direct) {
        (CallKind::Open, false) => "open",
        (CallKind::Open, true) => "open-direct",
        (CallKind::Read, false) => "read",
        (CallKind::Read, true) => "read-direct",
        (CallKind::Map, _) => "map",
    }
}

fn detail(value: &impl Serialize) -> Option<Value> {
    serde_json::to_value(value).ok()
}

impl Flat {
    /// A record, flat.
    pub fn of(record: &Record) -> Self {
        let none = Self::default();
        match record {
            Record::Input { input, .. } => Self::input(input),
            Record::Brought {
                process,
                thread,
                file,
                range,
                ..
            } => Self {
                event: "brought",
                process: Some(*process),
                thread: Some(*thread),
                file: Some(*file),
                range: Some(*range),
                ..none
            },
            Record::Call {
                process,
                thread,
                file,
                kind,
                direct,
                range,
                ..
            } => Self {
                event: "call",
                process: Some(*process),
                thread: Some(*thread),
                file: Some(*file),
                range: (*kind != CallKind::Open).then_some(*range),
                kind: Some(call_of(*kind, *direct)),
                ..none
            },
            Record::Counts {
                process,
                file,
                calls,
                bytes,
                added,
                missed,
                ..
            } => Self {
                event: "counts",
                process: Some(*process),
                file: Some(*file),
                detail: Some(json!({ "calls": calls, "bytes": bytes, "added": added, "missed": missed })),
                ..none
            },
            Record::Receipt { receipt, .. } => Self {
                event: "receipt",
                process: receipt.pids.first().copied(),
                detail: detail(receipt),
                ..none
            },
            Record::File { file, path, size, .. } => Self {
                event: "file",
                file: Some(*file),
                detail: Some(json!({ "path": path.to_string_lossy(), "size": size })),
                ..none
            },
            Record::Process { process, name, .. } => Self {
                event: "process",
                process: Some(*process),
                detail: Some(json!({ "name": name })),
                ..none
            },
            Record::Lost { loss, .. } => Self {
                event: "lost",
                detail: detail(loss),
                ..none
            },
        }
    }

    fn input(input: &Input) -> Self {
        let none = Self::default();
        match input {
            Input::Access(access) => Self {
                event: "access",
                process: Some(access.process),
                thread: Some(access.thread),
                file: Some(access.file),
                range: Some(access.range),
                kind: Some(kind_of(access.kind)),
                jump: Some(access.jump),
                ..none
            },
            Input::Described { file, description } => Self {
                event: "described",
                file: Some(*file),
                detail: description.as_ref().map(|description| {
                    let model = &description.model;
                    let sizes: Vec<u64> = model.parts.iter().map(|part| part.size).collect();
                    json!({
                        "model": model.name, "layout": model.layout.name(), "position": description.position,
                        "part_bytes": sizes,
                    })
                }),
                ..none
            },
            Input::Named { process, description } => Self {
                event: "named",
                process: Some(*process),
                file: Some(description.file),
                ..none
            },
            Input::Program { process, name, user } => Self {
                event: "program",
                process: Some(*process),
                detail: Some(json!({ "name": name, "user": user })),
                ..none
            },
            Input::Direct { process, file } => Self {
                event: "direct",
                process: Some(*process),
                file: Some(*file),
                ..none
            },
            Input::Outcome(outcome) => Self {
                event: "warmed",
                file: Some(outcome.file),
                range: Some(outcome.range),
                detail: detail(outcome),
                ..none
            },
            Input::Removed { file, range } => Self {
                event: "removed",
                file: Some(*file),
                range: Some(*range),
                ..none
            },
            Input::Ended { process } => Self {
                event: "ended",
                process: Some(*process),
                ..none
            },
            Input::Counted { load, counts } => Self {
                event: "counted",
                detail: Some(json!({ "load": load.0, "counts": counts })),
                ..none
            },
            Input::Added { load, added } => Self {
                event: "added",
                detail: Some(json!({ "load": load.0, "added": added })),
                ..none
            },
            Input::Recalled { device, knowledge } => Self {
                event: "recalled",
                detail: Some(json!({ "device": device, "knowledge": knowledge })),
                ..none
            },
            Input::Gone { file } => Self {
                event: "gone",
                file: Some(*file),
                ..none
            },
            Input::Unwatched { path } => Self {
                event: "unwatched",
                detail: Some(json!({ "path": path.to_string_lossy() })),
                ..none
            },
            Input::Changed { file } => Self {
                event: "changed",
                file: Some(*file),
                ..none
            },
            Input::Pause { .. } => Self { event: "pause", ..none },
            Input::Resume => Self {
                event: "resume",
                ..none
            },
            Input::Battery(on_battery) => Self {
                event: "battery",
                detail: Some(json!({ "on_battery": on_battery })),
                ..none
            },
            Input::Ceiling(ceiling) => Self {
                event: "ceiling",
                detail: Some(json!({ "bytes": ceiling })),
                ..none
            },
            Input::Memory(memory) => Self {
                event: "memory",
                detail: detail(memory),
                ..none
            },
            Input::Learned(rows) => Self {
                event: "learned",
                detail: Some(json!({ "rows": rows.len() })),
                ..none
            },
            Input::Users(users) => Self {
                event: "users",
                detail: detail(users),
                ..none
            },
            Input::Found { path, description } => Self {
                event: "found",
                file: description.as_ref().map(|description| description.file),
                detail: Some(json!({ "path": path.to_string_lossy() })),
                ..none
            },
            Input::Ordered { order, command, items } => {
                let models: Vec<&str> = items.iter().map(|item| item.model.name.as_str()).collect();
                Self {
                    event: "ordered",
                    detail: Some(json!({ "order": order.0, "command": command, "models": models })),
                    ..none
                }
            }
            Input::Withdrawn { order } => Self {
                event: "withdrawn",
                detail: Some(json!({ "order": order.0 })),
                ..none
            },
            Input::Unheld { pins } => Self {
                event: "unheld",
                detail: detail(pins),
                ..none
            },
            Input::Forget { path } => Self {
                event: "forget",
                detail: path.as_deref().map(|path| json!(path.to_string_lossy())),
                ..none
            },
            Input::Tick => Self { event: "tick", ..none },
        }
    }
}
