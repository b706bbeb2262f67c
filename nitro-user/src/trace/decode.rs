//! From lines to records: fills the same tables as the writer did, in the same order.
//!
//! Whatever is read comes from a file that anybody may have written: a number that is in no table is an error, and a table has a size that the writer keeps to.

use std::sync::Arc;

use super::{
    record::Record,
    wire::{
        IN_ORDER, JUMP, KINDS, Line, MOST_ENTRIES, Span, WRITTEN, WireCounts, WireDescription, WireItem, WireUser,
        path_of,
    },
};
use crate::{
    catalog::model::{Description, Model},
    engine::{
        action::{LoadId, ModelPin},
        input::{Access, FileCounts, Input, Item, OrderId, Outcome, User},
    },
    units::{ByteCount, ByteRange, FileId, Moment},
};

/// Why a line cannot be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// It is none of this version.
    #[error("it holds a line that this version does not know")]
    Unknown,
    /// It refers to something that was not introduced.
    #[error("it refers to a {0} that it has not introduced")]
    NotInTable(&'static str),
    /// No kernel and no agent tells of such a number.
    #[error("it holds a {0} that is impossible")]
    Impossible(&'static str),
    /// More entries than a table has.
    #[error("it introduces too many {0}")]
    TooMany(&'static str),
}

/// Longest place in a file: events carry lengths of 32 bits.
const MOST_LENGTH: u64 = u32::MAX as u64;

/// Largest offset in a file, and largest sum of bytes.
const MOST_BYTES: u64 = 1 << 62;

/// A place in a file.
fn place(start: u64, length: u64) -> Result<ByteRange, LineError> {
    if start > MOST_BYTES || length > MOST_LENGTH {
        return Err(LineError::Impossible("place in a file"));
    }
    Ok(ByteRange::new(start, length))
}

/// A sum of bytes or calls.
fn sum(value: u64) -> Result<u64, LineError> {
    if value > MOST_BYTES {
        return Err(LineError::Impossible("count"));
    }
    Ok(value)
}

/// Reads records.
#[derive(Debug, Default)]
pub struct Decoder {
    last: u64,
    files: Vec<(FileId, u32)>,
    threads: Vec<(u32, u32)>,
    models: Vec<Arc<Model>>,
    ends: Vec<u64>,
}

impl Decoder {
    /// The records of a frame, to the end of `records`.
    ///
    /// # Errors
    /// [`LineError`]; what came before it is in `records`.
    pub fn read(&mut self, mut bytes: &[u8], records: &mut Vec<Record>) -> Result<(), LineError> {
        while !bytes.is_empty() {
            let (line, rest) = postcard::take_from_bytes::<Line>(bytes).map_err(|_| LineError::Unknown)?;
            bytes = rest;
            records.extend(self.line(line)?);
        }
        Ok(())
    }

    fn file(&self, number: u32) -> Result<FileId, LineError> {
        self.generated(number).map(|(file, _)| file)
    }

    fn generated(&self, number: u32) -> Result<(FileId, u32), LineError> {
        self.files
            .get(number as usize)
            .copied()
            .ok_or(LineError::NotInTable("file"))
    }

    fn thread(&self, number: u32) -> Result<(u32, u32), LineError> {
        self.threads
            .get(number as usize)
            .copied()
            .ok_or(LineError::NotInTable("thread"))
    }

    fn range(&mut self, thread: u32, span: Span) -> Result<ByteRange, LineError> {
        let end = self
            .ends
            .get_mut(thread as usize)
            .ok_or(LineError::NotInTable("thread"))?;
        let range = place(end.wrapping_add_signed(span.start), span.length)?;
        *end = range.end;
        Ok(range)
    }

    fn description(&self, wire: &WireDescription) -> Result<Description, LineError> {
        let model = self
            .models
            .get(wire.model as usize)
            .ok_or(LineError::NotInTable("model"))?;
        Ok(Description {
            file: self.file(wire.file)?,
            model: model.clone(),
            position: usize::try_from(wire.position).unwrap_or(usize::MAX),
            written: wire.written.map(Moment),
        })
    }

    fn user(&self, wire: WireUser) -> Result<User, LineError> {
        let maps: Result<Vec<FileId>, LineError> = wire.maps.into_iter().map(|file| self.file(file)).collect();
        Ok(User {
            process: wire.process,
            maps: maps?,
            accelerator: wire.accelerator,
            anonymous: ByteCount(wire.anonymous),
        })
    }

    fn item(&self, wire: WireItem) -> Result<Item, LineError> {
        let model = self.models.get(wire.model as usize);
        let model = model.ok_or(LineError::NotInTable("model"))?.clone();
        let parts = wire
            .parts
            .into_iter()
            .map(|part| usize::try_from(part).unwrap_or(usize::MAX));
        Ok(Item {
            model,
            parts: parts.collect(),
        })
    }

    fn counts(&self, wire: &WireCounts) -> Result<FileCounts, LineError> {
        Ok(FileCounts {
            file: wire.file.map(|file| self.file(file)).transpose()?,
            calls: sum(wire.calls)?,
            bytes: sum(wire.bytes)?,
            added: sum(wire.added)?,
            missed: sum(wire.missed)?,
        })
    }

    fn line(&mut self, line: Line) -> Result<Option<Record>, LineError> {
        let room = |length: usize, what: &'static str| {
            if length < MOST_ENTRIES {
                Ok(())
            } else {
                Err(LineError::TooMany(what))
            }
        };
        let at = Moment(self.last);
        let told = |input: Input| Ok(Some(Record::Input { at, input }));
        match line {
            Line::File { file, generation } => {
                room(self.files.len(), "files")?;
                self.files.push((file.into(), generation));
                Ok(None)
            }
            Line::Thread { process, thread } => {
                room(self.threads.len(), "threads")?;
                self.threads.push((process, thread));
                self.ends.push(0);
                Ok(None)
            }
            Line::Model(model) => {
                room(self.models.len(), "models")?;
                self.models.push(Arc::new(model.into()));
                Ok(None)
            }
            Line::Reset => {
                self.files.clear();
                self.threads.clear();
                self.models.clear();
                self.ends.clear();
                Ok(None)
            }
            Line::Time(later) => {
                self.last = self.last.wrapping_add_signed(later);
                Ok(None)
            }
            Line::Access {
                thread,
                file,
                span,
                how,
            } => {
                let (process, thread_id) = self.thread(thread)?;
                let (file, generation) = self.generated(file)?;
                let kind = KINDS.get(usize::from(how & 7)).copied().ok_or(LineError::Unknown)?;
                told(Input::Access(Access {
                    at,
                    process,
                    thread: thread_id,
                    file,
                    generation,
                    range: self.range(thread, span)?,
                    kind,
                    jump: how & JUMP != 0,
                    in_order: how & IN_ORDER != 0,
                    written: how & WRITTEN != 0,
                }))
            }
            Line::Described { file, description } => told(Input::Described {
                file: self.file(file)?,
                description: description.map(|wire| self.description(&wire)).transpose()?,
            }),
            Line::Named { process, description } => told(Input::Named {
                process,
                description: self.description(&description)?,
            }),
            Line::Program { process, name, user } => told(Input::Program { process, name, user }),
            Line::Direct { process, file } => told(Input::Direct {
                process,
                file: self.file(file)?,
            }),
            Line::Outcome(wire) => told(Input::Outcome(Outcome {
                load: LoadId(wire.load),
                part: usize::try_from(wire.part).unwrap_or(usize::MAX),
                file: self.file(wire.file)?,
                device: wire.device,
                range: place(wire.start, wire.length)?,
                end: wire.end,
                before: sum(wire.before)?,
                after: sum(wire.after)?,
                beyond: sum(wire.beyond)?,
                held: sum(wire.held)?,
                submitted: Moment(at.0.wrapping_add_signed(wire.submitted)),
                completed: Moment(at.0.wrapping_add_signed(wire.completed)),
            })),
            Line::Removed { file, start, length } => told(Input::Removed {
                file: self.file(file)?,
                range: place(start, length)?,
            }),
            Line::Ended { process } => told(Input::Ended { process }),
            Line::Counted { load, counts } => {
                let counts: Result<Vec<FileCounts>, LineError> = counts.iter().map(|wire| self.counts(wire)).collect();
                told(Input::Counted {
                    load: LoadId(load),
                    counts: counts?,
                })
            }
            Line::Added { load, added } => told(Input::Added {
                load: LoadId(load),
                added: sum(added)?,
            }),
            Line::Recalled { device, knowledge } => told(Input::Recalled { device, knowledge }),
            Line::Gone { file } => told(Input::Gone { file: self.file(file)? }),
            Line::Unwatched { path } => told(Input::Unwatched {
                path: path_of(path).into(),
            }),
            Line::Changed { file } => told(Input::Changed { file: self.file(file)? }),
            Line::Pause { until } => told(Input::Pause {
                until: until.map(Moment),
            }),
            Line::Resume => told(Input::Resume),
            Line::Battery(on_battery) => told(Input::Battery(on_battery)),
            Line::Ceiling(ceiling) => told(Input::Ceiling(ByteCount(ceiling))),
            Line::Memory(memory) => told(Input::Memory(memory)),
            Line::Learned(rows) => told(Input::Learned(rows)),
            Line::Users(users) => {
                let users: Result<Vec<User>, LineError> = users.into_iter().map(|wire| self.user(wire)).collect();
                told(Input::Users(users?))
            }
            Line::Found { path, description } => told(Input::Found {
                path: path_of(path).into(),
                description: description.map(|wire| self.description(&wire)).transpose()?,
            }),
            Line::Ordered { order, command, items } => {
                let items: Result<Vec<Item>, LineError> = items.into_iter().map(|wire| self.item(wire)).collect();
                told(Input::Ordered {
                    order: OrderId(order),
                    command,
                    items: items?,
                })
            }
            Line::Withdrawn { order } => told(Input::Withdrawn { order: OrderId(order) }),
            Line::Unheld { pins } => told(Input::Unheld {
                pins: pins.into_iter().map(ModelPin).collect(),
            }),
            Line::Forget { path } => told(Input::Forget {
                path: path.map(|path| path_of(path).into()),
            }),
            Line::Tick => told(Input::Tick),
            Line::Brought { thread, file, span } => {
                let (process, thread_id) = self.thread(thread)?;
                Ok(Some(Record::Brought {
                    at,
                    process,
                    thread: thread_id,
                    file: self.file(file)?,
                    range: self.range(thread, span)?,
                }))
            }
            Line::Call {
                thread,
                file,
                span,
                kind,
                direct,
            } => {
                let (process, thread_id) = self.thread(thread)?;
                Ok(Some(Record::Call {
                    at,
                    process,
                    thread: thread_id,
                    file: self.file(file)?,
                    kind,
                    direct,
                    range: self.range(thread, span)?,
                }))
            }
            Line::ProcessCounts { process, counts } => {
                let counts = self.counts(&counts)?;
                Ok(Some(Record::Counts {
                    at,
                    process,
                    file: counts.file.ok_or(LineError::NotInTable("file"))?,
                    calls: counts.calls,
                    bytes: counts.bytes,
                    added: counts.added,
                    missed: counts.missed,
                }))
            }
            Line::Receipt(json) => {
                let receipt = serde_json::from_str(&json).map_err(|_| LineError::Unknown)?;
                Ok(Some(Record::Receipt { at, receipt }))
            }
            Line::Path { file, path, size } => Ok(Some(Record::File {
                at,
                file: self.file(file)?,
                path: path_of(path).into(),
                size,
            })),
            Line::Process { process, name } => Ok(Some(Record::Process { at, process, name })),
            Line::Lost(loss) => Ok(Some(Record::Lost { at, loss })),
        }
    }
}
