//! How far the axes reach, and which files and processes are worth drawing.

use std::collections::HashMap;

use super::{MOST_FILES, MOST_PROCESSES, PlotError};
use crate::{
    engine::input::Input,
    trace::{Header, Record, names::Names},
    units::{FileId, Moment},
};

/// The first reading of a trace.
#[derive(Debug, Default)]
pub struct Extent {
    pub(super) names: Names,
    files: HashMap<FileId, Reach>,
    processes: HashMap<u32, u64>,
    first: Option<Moment>,
    last: Moment,
    agent: u32,
}

/// Of one file.
#[derive(Clone, Copy, Debug, Default)]
struct Reach {
    /// Accesses and pages brought in.
    events: u64,
    /// Byte after the last that was told of.
    end: u64,
}

/// A file that is drawn.
#[derive(Clone, Debug)]
pub struct Panel {
    /// The file.
    pub file: FileId,
    /// Its path.
    pub path: String,
    /// Bytes of the axis.
    pub size: u64,
}

/// What is drawn.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Files, in the order of their paths.
    pub panels: Vec<Panel>,
    /// Files that are not drawn.
    pub left_out: usize,
    /// Processes with a colour of their own, the busiest first, with their programs.
    pub processes: Vec<(u32, Option<String>)>,
    /// Whether there are others.
    pub others: bool,
    /// Where the axis of time begins.
    pub from: Moment,
    /// Where it ends.
    pub to: Moment,
    /// The agent's process.
    pub agent: u32,
}

impl Extent {
    /// Nothing read yet.
    pub fn new(header: &Header) -> Self {
        Self {
            agent: header.process,
            ..Self::default()
        }
    }

    /// Takes a record.
    pub fn add(&mut self, record: &Record) {
        self.names.learn(record);
        let (file, end, process) = match record {
            Record::Input {
                input: Input::Access(access),
                ..
            } => (access.file, access.range.end, Some(access.process)),
            Record::Input {
                input: Input::Outcome(outcome),
                ..
            } => (outcome.file, outcome.range.end, None),
            Record::Brought {
                file, range, process, ..
            } => (
                *file,
                range.end,
                Some(*process).filter(|process| *process != self.agent),
            ),
            Record::Call {
                file, range, process, ..
            } => (*file, range.end, Some(*process)),
            _ => return,
        };
        let reach = self.files.entry(file).or_default();
        reach.events += u64::from(process.is_some());
        reach.end = reach.end.max(end);
        if let Some(process) = process {
            *self.processes.entry(process).or_default() += 1;
        }
        let at = record.at();
        self.first = Some(self.first.map_or(at, |first| first.min(at)));
        self.last = self.last.max(at);
    }

    /// What is to be drawn.
    ///
    /// # Errors
    /// [`PlotError::Empty`].
    pub fn plan(&self) -> Result<Plan, PlotError> {
        let first = self.first.ok_or(PlotError::Empty)?;
        let mut files: Vec<_> = self.files.iter().filter(|(_, reach)| reach.events > 0).collect();
        if files.is_empty() {
            return Err(PlotError::Empty);
        }
        files.sort_by_key(|(file, reach)| (std::cmp::Reverse(reach.events), **file));
        let left_out = files.len().saturating_sub(MOST_FILES);
        let mut panels: Vec<Panel> = files
            .into_iter()
            .take(MOST_FILES)
            .map(|(file, reach)| {
                let size = self.names.file(*file).map_or(0, |known| known.size);
                Panel {
                    file: *file,
                    path: self.names.path(*file),
                    size: size.max(reach.end).max(1),
                }
            })
            .collect();
        panels.sort_by(|one, other| one.path.cmp(&other.path));
        let mut processes: Vec<_> = self
            .processes
            .iter()
            .map(|(process, events)| (*events, *process))
            .collect();
        processes.sort_by_key(|(events, process)| (std::cmp::Reverse(*events), *process));
        let others = processes.len() > MOST_PROCESSES;
        processes.truncate(MOST_PROCESSES);
        Ok(Plan {
            panels,
            left_out,
            processes: processes
                .into_iter()
                .map(|(_, process)| (process, self.names.program(process).map(str::to_owned)))
                .collect(),
            others,
            from: first,
            // A single moment is drawn as a millisecond.
            to: self.last.max(Moment(first.0.saturating_add(1_000_000))),
            agent: self.agent,
        })
    }
}
