//! What processes did in files, by a trace: how much, in which order, what they waited for.
//!
//! The kernel tells of an access once in 2 MiB, or when it jumps; how many there were it counts, and the counts are taken when a load ends. Where they are missing, as for a process that was still
//! reading when the recording ended, figures are concluded from the events and marked as such. Exact calls, where they were recorded, go first.

mod order;
mod row;

use std::collections::HashMap;

use serde::Serialize;

use self::row::Work;
pub use self::{
    order::Order,
    row::{Reused, Row},
};
use super::{
    Record,
    names::Names,
    record::{Header, Loss},
    reuse::Reuse,
};
use crate::{
    engine::{
        input::{Access, Input},
        receipt::Receipt,
    },
    units::{ByteCount, FileId, Moment, STEP},
};

/// Receipts that are kept for people; of more, the last.
const MOST_RECEIPTS: usize = 1000;

/// What a trace comes to.
#[derive(Debug, Serialize)]
pub struct Summary {
    /// What holds for all of it.
    pub header: Header,
    /// Seconds from its beginning to its last record.
    pub seconds: f64,
    /// Records.
    pub records: u64,
    /// What is missing.
    pub loss: Loss,
    /// By process and file, in the order in which they began.
    pub rows: Vec<Row>,
    /// By file: what the agent brought in.
    pub warmed: Vec<Warmed>,
    /// Loads that ended in it.
    pub receipts: Vec<Receipt>,
}

/// What the agent brought in of a file.
#[derive(Clone, Debug, Serialize)]
pub struct Warmed {
    /// The file.
    pub file: String,
    /// Bytes that its steps brought in.
    pub bytes: ByteCount,
    /// Steps.
    pub steps: u64,
}

/// Collects records.
#[derive(Debug, Default)]
pub struct Summing {
    names: Names,
    work: HashMap<(u32, FileId), Work>,
    numbers: HashMap<FileId, u32>,
    reuse: Reuse,
    warmed: HashMap<FileId, (u64, u64)>,
    receipts: Vec<Receipt>,
    loss: Loss,
    records: u64,
    last: Moment,
    /// When a process named a file on its command line.
    named: HashMap<(u32, FileId), Moment>,
}

impl Summing {
    /// Takes a record.
    pub fn add(&mut self, record: &Record) {
        self.records += 1;
        self.last = self.last.max(record.at());
        self.names.learn(record);
        match record {
            Record::Input { input, at } => match input {
                Input::Access(access) => self.access(access),
                Input::Named { process, description } => {
                    self.named.entry((*process, description.file)).or_insert(*at);
                }
                Input::Outcome(outcome) if outcome.gained() > 0 => {
                    let (bytes, steps) = self.warmed.entry(outcome.file).or_default();
                    *bytes += outcome.gained();
                    *steps += 1;
                }
                Input::Direct { process, file } => self.of(*process, *file, *at).direct = true,
                _ => {}
            },
            Record::Brought {
                at,
                process,
                file,
                range,
                ..
            } => self.of(*process, *file, *at).brought(*range),
            Record::Call {
                at,
                process,
                thread,
                file,
                kind,
                range,
                ..
            } => self.of(*process, *file, *at).call(*at, *thread, *kind, *range),
            Record::Counts {
                at,
                process,
                file,
                calls,
                bytes,
                added,
                missed,
            } => self.of(*process, *file, *at).count([*calls, *bytes, *added, *missed]),
            Record::Receipt { receipt, .. } => {
                if self.receipts.len() >= MOST_RECEIPTS {
                    self.receipts.remove(0);
                }
                self.receipts.push((**receipt).clone());
            }
            Record::Lost { loss, .. } => self.loss = *loss,
            Record::File { .. } | Record::Process { .. } => {}
        }
    }

    fn of(&mut self, process: u32, file: FileId, at: Moment) -> &mut Work {
        self.work.entry((process, file)).or_insert_with(|| Work::begun(at))
    }

    fn access(&mut self, access: &Access) {
        let count = self.numbers.len() as u32;
        let number = *self.numbers.entry(access.file).or_insert(count);
        let work = self
            .work
            .entry((access.process, access.file))
            .or_insert_with(|| Work::begun(access.at));
        if let Some(step) = work.access(access)
            && access.kind.is_demand()
            && let Some(distance) = self.reuse.touch((number, step))
            && distance > STEP
        {
            work.reused(distance);
        }
    }

    /// What it comes to.
    pub fn end(self, header: &Header) -> Summary {
        let agent = header.process;
        let names = &self.names;
        // What only the agent did in a file is told by its outcomes.
        let mut rows: Vec<Row> = self
            .work
            .into_iter()
            .filter(|((process, _), _)| *process != agent)
            .map(|((process, file), work)| {
                let named = self.named.get(&(process, file)).copied();
                work.row(process, file, names, named, header.began)
            })
            .filter(Row::is_worth)
            .collect();
        rows.sort_by(|one, other| one.began.total_cmp(&other.began).then(one.file.cmp(&other.file)));
        let mut warmed: Vec<Warmed> = self
            .warmed
            .into_iter()
            .map(|(file, (bytes, steps))| Warmed {
                file: names.path(file),
                bytes: ByteCount(bytes),
                steps,
            })
            .collect();
        warmed.sort_by(|one, other| one.file.cmp(&other.file));
        Summary {
            header: header.clone(),
            seconds: self.last.since(header.began).as_secs_f64(),
            records: self.records,
            loss: self.loss,
            rows,
            warmed,
            receipts: self.receipts,
        }
    }
}
