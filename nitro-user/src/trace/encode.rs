//! From records to lines: fills the tables of files, threads and models as it goes.

use std::{collections::HashMap, sync::Arc};

use super::{
    record::Record,
    wire::{
        IN_ORDER, JUMP, Line, MOST_ENTRIES, Span, WRITTEN, WireCounts, WireDescription, WireItem, WireOutcome,
        WireUser, bytes_of, number_of,
    },
};
use crate::{
    catalog::model::{Description, Model},
    engine::input::Input,
    units::{ByteRange, FileId, Moment},
};

/// Writes records.
#[derive(Debug, Default)]
pub struct Encoder {
    bytes: Vec<u8>,
    last: u64,
    files: HashMap<(FileId, u32), u32>,
    threads: HashMap<(u32, u32), u32>,
    /// By the first file of the model, which is its name; what is known of a model may change.
    models: HashMap<FileId, (Arc<Model>, u32)>,
    numbered: u32,
    /// By thread: where its last place ended.
    ends: Vec<u64>,
}

impl Encoder {
    /// Bytes that were not taken yet.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Takes what was written since the last time.
    pub fn take(&mut self) -> Vec<u8> {
        let size = self.bytes.len();
        std::mem::replace(&mut self.bytes, Vec::with_capacity(size))
    }

    /// Writes a record.
    pub fn write(&mut self, record: &Record) {
        if self
            .files
            .len()
            .max(self.threads.len())
            .max(self.models.len())
            .max(self.numbered as usize)
            >= MOST_ENTRIES
        {
            self.files.clear();
            self.threads.clear();
            self.models.clear();
            self.ends.clear();
            self.numbered = 0;
            self.line(&Line::Reset);
        }
        let at = record.at().0;
        if at != self.last {
            self.line(&Line::Time(at.wrapping_sub(self.last).cast_signed()));
            self.last = at;
        }
        let line = match record {
            Record::Input { input, .. } => self.input(at, input),
            Record::Brought {
                process,
                thread,
                file,
                range,
                ..
            } => Line::Brought {
                file: self.file(*file, 0),
                thread: self.thread(*process, *thread),
                span: self.span(*process, *thread, *range),
            },
            Record::Call {
                process,
                thread,
                file,
                kind,
                direct,
                range,
                ..
            } => Line::Call {
                file: self.file(*file, 0),
                thread: self.thread(*process, *thread),
                span: self.span(*process, *thread, *range),
                kind: *kind,
                direct: *direct,
            },
            Record::Counts {
                process,
                file,
                calls,
                bytes,
                added,
                missed,
                ..
            } => Line::ProcessCounts {
                process: *process,
                counts: WireCounts {
                    file: Some(self.file(*file, 0)),
                    calls: *calls,
                    bytes: *bytes,
                    added: *added,
                    missed: *missed,
                },
            },
            // A receipt is made of numbers and texts: there is nothing that JSON refuses.
            Record::Receipt { receipt, .. } => Line::Receipt(serde_json::to_string(receipt).unwrap_or_default()),
            Record::File { file, path, size, .. } => Line::Path {
                file: self.file(*file, 0),
                path: bytes_of(path),
                size: *size,
            },
            Record::Process { process, name, .. } => Line::Process {
                process: *process,
                name: name.clone(),
            },
            Record::Lost { loss, .. } => Line::Lost(*loss),
        };
        self.line(&line);
    }

    fn line(&mut self, line: &Line) {
        let bytes = std::mem::take(&mut self.bytes);
        // Into memory, and no sequence is of unknown length: there is nothing that could fail.
        self.bytes = postcard::to_extend(line, bytes).unwrap_or_default();
    }

    fn file(&mut self, file: FileId, generation: u32) -> u32 {
        if let Some(number) = self.files.get(&(file, generation)) {
            return *number;
        }
        let number = self.files.len() as u32;
        self.files.insert((file, generation), number);
        self.line(&Line::File {
            file: file.into(),
            generation,
        });
        number
    }

    fn thread(&mut self, process: u32, thread: u32) -> u32 {
        if let Some(number) = self.threads.get(&(process, thread)) {
            return *number;
        }
        let number = self.threads.len() as u32;
        self.threads.insert((process, thread), number);
        self.ends.push(0);
        self.line(&Line::Thread { process, thread });
        number
    }

    fn model(&mut self, model: &Arc<Model>) -> u32 {
        let key = model
            .parts
            .first()
            .map_or(FileId { device: 0, inode: 0 }, |part| part.file);
        if let Some((known, number)) = self.models.get(&key)
            && (Arc::ptr_eq(known, model) || known == model)
        {
            return *number;
        }
        let number = self.numbered;
        self.numbered += 1;
        self.models.insert(key, (model.clone(), number));
        self.line(&Line::Model((&**model).into()));
        number
    }

    fn span(&mut self, process: u32, thread: u32, range: ByteRange) -> Span {
        let thread = self.thread(process, thread) as usize;
        let end = self.ends.get_mut(thread);
        let last = end.map_or(0, |end| std::mem::replace(end, range.end));
        Span {
            start: range.start.wrapping_sub(last).cast_signed(),
            length: range.end.wrapping_sub(range.start),
        }
    }

    fn description(&mut self, description: &Description) -> WireDescription {
        WireDescription {
            file: self.file(description.file, 0),
            model: self.model(&description.model),
            position: description.position as u64,
            written: description.written.map(|at| at.0),
        }
    }

    fn input(&mut self, at: u64, input: &Input) -> Line {
        match input {
            Input::Access(access) => {
                let bit = |set: bool, bit: u8| if set { bit } else { 0 };
                let flags = bit(access.jump, JUMP) | bit(access.in_order, IN_ORDER) | bit(access.written, WRITTEN);
                Line::Access {
                    file: self.file(access.file, access.generation),
                    thread: self.thread(access.process, access.thread),
                    span: self.span(access.process, access.thread, access.range),
                    how: number_of(access.kind) | flags,
                }
            }
            Input::Described { file, description } => Line::Described {
                file: self.file(*file, 0),
                description: description.as_ref().map(|description| self.description(description)),
            },
            Input::Named { process, description } => Line::Named {
                process: *process,
                description: self.description(description),
            },
            Input::Program { process, name, user } => Line::Program {
                process: *process,
                name: name.clone(),
                user: *user,
            },
            Input::Direct { process, file } => Line::Direct {
                process: *process,
                file: self.file(*file, 0),
            },
            Input::Outcome(outcome) => {
                let since = |time: Moment| time.0.wrapping_sub(at).cast_signed();
                Line::Outcome(WireOutcome {
                    load: outcome.load.0,
                    part: outcome.part as u64,
                    file: self.file(outcome.file, 0),
                    device: outcome.device,
                    start: outcome.range.start,
                    length: outcome.range.end.wrapping_sub(outcome.range.start),
                    end: outcome.end,
                    before: outcome.before,
                    after: outcome.after,
                    beyond: outcome.beyond,
                    held: outcome.held,
                    submitted: since(outcome.submitted),
                    completed: since(outcome.completed),
                })
            }
            Input::Removed { file, range } => Line::Removed {
                file: self.file(*file, 0),
                start: range.start,
                length: range.end.wrapping_sub(range.start),
            },
            Input::Ended { process } => Line::Ended { process: *process },
            Input::Counted { load, counts } => {
                let counts = counts.iter().map(|count| WireCounts {
                    file: count.file.map(|file| self.file(file, 0)),
                    calls: count.calls,
                    bytes: count.bytes,
                    added: count.added,
                    missed: count.missed,
                });
                let counts = counts.collect();
                Line::Counted { load: load.0, counts }
            }
            Input::Added { load, added } => Line::Added {
                load: load.0,
                added: *added,
            },
            Input::Recalled { device, knowledge } => Line::Recalled {
                device: *device,
                knowledge: *knowledge,
            },
            Input::Gone { file } => Line::Gone {
                file: self.file(*file, 0),
            },
            Input::Unwatched { path } => Line::Unwatched { path: bytes_of(path) },
            Input::Changed { file } => Line::Changed {
                file: self.file(*file, 0),
            },
            Input::Pause { until } => Line::Pause {
                until: until.map(|until| until.0),
            },
            Input::Resume => Line::Resume,
            Input::Battery(on_battery) => Line::Battery(*on_battery),
            Input::Ceiling(ceiling) => Line::Ceiling(ceiling.0),
            Input::Memory(memory) => Line::Memory(*memory),
            Input::Learned(rows) => Line::Learned(rows.clone()),
            Input::Users(users) => {
                let users = users.iter().map(|user| WireUser {
                    process: user.process,
                    maps: user.maps.iter().map(|file| self.file(*file, 0)).collect(),
                    accelerator: user.accelerator,
                    anonymous: user.anonymous.0,
                });
                Line::Users(users.collect())
            }
            Input::Found { path, description } => Line::Found {
                path: bytes_of(path),
                description: description.as_ref().map(|description| self.description(description)),
            },
            Input::Ordered { order, command, items } => {
                let items = items.iter().map(|item| WireItem {
                    model: self.model(&item.model),
                    parts: item.parts.iter().map(|part| *part as u64).collect(),
                });
                let items = items.collect();
                Line::Ordered {
                    order: order.0,
                    command: *command,
                    items,
                }
            }
            Input::Withdrawn { order } => Line::Withdrawn { order: order.0 },
            Input::Unheld { pins } => Line::Unheld {
                pins: pins.iter().map(|pin| pin.0).collect(),
            },
            Input::Forget { path } => Line::Forget {
                path: path.as_deref().map(bytes_of),
            },
            Input::Tick => Line::Tick,
        }
    }
}
