//! Where a recording goes: a thread that writes what comes, all of it as it is or what is wanted of it.

use std::{
    collections::HashSet,
    path::PathBuf,
    thread::{self, JoinHandle},
};

use anyhow::{Context, anyhow};
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::filter::{Filter, concerns, program_of};
use crate::{
    engine::Input,
    trace::{Decoder, Frame, Header, Loss, Record, TraceError, TraceWriter, header_of},
};

/// What waits to be written.
const WAITING: usize = 64;

/// Processes whose programs are looked up.
const MOST_NAMES: usize = 1 << 16;

/// Something to be written.
#[derive(Debug)]
pub enum Piece {
    /// What the agent sent.
    Frame(Frame),
    /// System calls.
    Calls(Vec<Record>),
}

/// What is to become of it.
#[derive(Debug)]
pub struct Plan {
    /// The file, which must not exist.
    pub out: PathBuf,
    /// What is wanted.
    pub filter: Filter,
    /// Directories that are wanted, for people.
    pub directories: Vec<String>,
    /// System calls are recorded as well.
    pub calls: bool,
    /// Longest file.
    pub most: u64,
}

/// What was written.
#[derive(Clone, Copy, Debug, Default)]
pub struct Written {
    /// Bytes.
    pub bytes: u64,
    /// Records; 0 where they were not looked at.
    pub records: u64,
    /// System calls of these.
    pub calls: u64,
    /// What is missing.
    pub loss: Loss,
    /// It became as long as it may.
    pub is_full: bool,
    /// All processes that were asked for have ended.
    pub is_over: bool,
}

/// The thread. When it takes no more, it has ended.
pub struct Sink {
    thread: JoinHandle<Result<Written, TraceError>>,
}

impl Sink {
    /// Starts it; what is to be written goes into the channel.
    ///
    /// # Errors
    /// No thread to be had.
    pub fn start(plan: Plan) -> anyhow::Result<(Self, Sender<Piece>)> {
        let (give, pieces) = channel(WAITING);
        let thread = thread::Builder::new().name("trace".into());
        let thread = thread
            .spawn(move || write(plan, pieces))
            .context("cannot start a thread")?;
        Ok((Self { thread }, give))
    }

    /// What was written, once it has all; the channel must be closed.
    ///
    /// # Errors
    /// The file cannot be made or written; what was written stays.
    pub fn end(self) -> anyhow::Result<Written> {
        let done = self
            .thread
            .join()
            .map_err(|_| anyhow!("the thread that writes the trace has failed"))?;
        Ok(done?)
    }
}

/// Writes until the channel is closed, the file is full, or what is recorded is over.
fn write(mut plan: Plan, mut pieces: Receiver<Piece>) -> Result<Written, TraceError> {
    let mut written = Written::default();
    let (mut decoder, mut records) = (Decoder::default(), Vec::new());
    let mut file: Option<TraceWriter> = None;
    // Calls that come before the header.
    let mut early = Vec::new();
    let mut seen = HashSet::new();
    let mut left = plan.filter.processes().to_vec();
    while let Some(piece) = pieces.blocking_recv() {
        let Some(file) = &mut file else {
            match piece {
                Piece::Frame(frame) => {
                    let mut made = TraceWriter::create(&plan.out, &plan.header(&frame))?;
                    for record in early.drain(..) {
                        made.record(&record)?;
                    }
                    file = Some(made);
                }
                Piece::Calls(calls) => early.extend(calls),
            }
            continue;
        };
        match piece {
            Piece::Frame(frame) => {
                records.clear();
                if let Ok(bytes) = frame.unpack()
                    && let Err(error) = decoder.read(&bytes, &mut records)
                {
                    tracing::warn!("what the agent sent cannot be read: {error}");
                }
            }
            Piece::Calls(calls) => records = calls,
        }
        for record in &records {
            match record {
                Record::Lost { loss, .. } => written.loss = *loss,
                Record::Input {
                    input: Input::Ended { process },
                    ..
                } => left.retain(|waiting| waiting != process),
                _ => {}
            }
            if plan.filter.wants(record) {
                if let (Some(process), _) = concerns(record)
                    && seen.len() < MOST_NAMES
                    && seen.insert(process)
                    && let Some(name) = program_of(process)
                {
                    let at = record.at();
                    file.record(&Record::Process { at, process, name })?;
                }
                written.records += 1;
                written.calls += u64::from(matches!(record, Record::Call { .. }));
                file.record(record)?;
            }
        }
        file.flush()?;
        written.is_full = file.written() >= plan.most;
        written.is_over = left.is_empty() && !plan.filter.processes().is_empty();
        if written.is_full || written.is_over {
            break;
        }
    }
    if let Some(file) = file {
        written.bytes = file.finish()?;
    }
    Ok(written)
}

impl Plan {
    /// What holds for the trace that is written, from that of the agent.
    fn header(&self, frame: &Frame) -> Header {
        let sent = header_of(frame).unwrap_or_default();
        Header {
            filter: self.filter.words(&self.directories),
            calls: self.calls,
            ..sent
        }
    }
}
