//! One ordered stream of steps for one load, on a thread of its own.
//!
//! It submits what it is given and waits for the oldest step when nothing new is queued; the engine bounds the bytes in flight. Descriptors are
//! opened on first use and closed when the stream ends.

#[cfg(test)]
// In tests a failed unwrap is a failed test; the build without tests still refuses it.
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;

use std::{
    collections::{HashMap, VecDeque},
    fs::{File, Metadata},
    io,
    os::unix::fs::MetadataExt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, TryRecvError},
    },
};

use tokio::sync::mpsc::Sender;

use super::{Warmer, chain::Chain, quiet::Quiet, read::Read, readahead::Readahead};
use crate::{
    catalog::model::{AT_REST, Model, Part},
    engine::{
        action::LoadId,
        input::{Outcome, StepEnd},
    },
    sys::{block, clock, open, page_cache, page_size},
    units::{ByteRange, STEP},
};

/// One step to do.
pub struct Command {
    /// The model that holds the part.
    pub model: Arc<Model>,
    /// Index of the part.
    pub part: usize,
    /// Its bytes.
    pub range: ByteRange,
    /// Look first whether the whole part is resident.
    pub survey: bool,
    /// Its reader is not there yet: one request at a time, and only while nobody else uses the device.
    pub speculative: bool,
    /// The stream's epoch when it was queued: a cancelled one is older than the stream's.
    pub epoch: u64,
}

/// Steps in a row of which nothing stays in the page cache, after which the file system is given up.
const VAIN: u32 = 4;

/// An opened part.
struct Opened {
    file: File,
    warmer: Box<dyn Warmer>,
    plain_reads: bool,
    /// Steps in a row of which nothing was found afterwards.
    vain: u32,
    /// Its size when it was opened.
    size: u64,
    /// Bytes of one request.
    request: u64,
}

/// Why a step was not warmed.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    /// What the catalog said of the file no longer holds.
    #[error("another file has this name now, or none, or it has another size")]
    Stale,
    /// It is being written, or was a moment ago.
    #[error("it is being written")]
    Written,
    /// It cannot be opened or read.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Opened {
    /// Whether it has been truncated since it was opened. One that has grown is as good as before: nothing beyond is asked for.
    fn is_truncated(&self) -> bool {
        self.file.metadata().is_ok_and(|now| now.size() < self.size)
    }
}

/// A step that was submitted and not waited for.
struct Pending {
    part: usize,
    outcome: Outcome,
}

/// The thread's state.
pub struct Stream {
    /// For which load.
    pub load: LoadId,
    /// Steps, in order.
    pub commands: Receiver<Command>,
    /// Raised to cancel what is queued.
    pub epoch: Arc<AtomicU64>,
    /// Where outcomes go.
    pub outcomes: Sender<Outcome>,
    /// What the devices do.
    pub quiet: Arc<Quiet>,
}

impl Stream {
    /// Runs until the other end of `commands` is dropped; every command gets its outcome.
    pub fn run(self) {
        let mut opened: HashMap<usize, Opened> = HashMap::new();
        let mut pending: VecDeque<Pending> = VecDeque::new();
        loop {
            let next = if pending.is_empty() {
                self.commands.recv().map_err(|_| TryRecvError::Disconnected)
            } else {
                self.commands.try_recv()
            };
            match next {
                Ok(command) => {
                    if let Some(step) = self.start(&command, &mut opened) {
                        pending.push_back(step);
                    }
                }
                Err(end) => {
                    if let Some(step) = pending.pop_front() {
                        self.finish(step, &mut opened);
                    } else if end == TryRecvError::Disconnected {
                        return;
                    }
                }
            }
        }
    }

    /// Submits a step; `None` when its outcome is known at once.
    fn start(&self, command: &Command, opened: &mut HashMap<usize, Opened>) -> Option<Pending> {
        let part = command.model.parts.get(command.part)?;
        let now = clock::now();
        let mut outcome = Outcome {
            load: self.load,
            part: command.part,
            file: part.file,
            device: part.file.device,
            range: command.range,
            end: StepEnd::Cancelled,
            before: 0,
            after: 0,
            beyond: 0,
            submitted: now,
            completed: now,
        };
        if command.epoch < self.epoch.load(Ordering::Acquire) {
            self.send(outcome);
            return None;
        }
        let started = self.open(command.part, part, opened).and_then(|opened| {
            // Asked every time: a large folio across the new end still counts as present beyond it.
            if opened.is_truncated() {
                return Err(Trouble::Stale);
            }
            let found = present(&opened.file, command.range)?;
            let ours = opened.warmer.brought_before(command.range).min(found);
            outcome.before = found - ours;
            if command.survey
                && found >= command.range.len()
                && present(&opened.file, ByteRange::new(0, part.size))? >= part.size
            {
                outcome.end = StepEnd::WholePartResident;
                outcome.after = outcome.before;
                return Ok(false);
            }
            if found >= command.range.len() && ours == 0 {
                outcome.end = StepEnd::Done;
                outcome.after = outcome.before;
                return Ok(false);
            }
            outcome.submitted = clock::now();
            if command.speculative && !self.step_gently(command, opened)? {
                outcome.end = StepEnd::Yielded;
                outcome.after = page_cache::resident(&opened.file, command.range)?.max(outcome.before);
                outcome.beyond = opened.warmer.beyond(command.range.end);
                return Ok(false);
            }
            opened.warmer.submit(&opened.file, command.range)?;
            outcome.beyond = opened.warmer.beyond(command.range.end);
            Ok(true)
        });
        match started {
            Ok(true) => Some(Pending {
                part: command.part,
                outcome,
            }),
            Ok(false) => {
                self.send(outcome);
                None
            }
            Err(trouble) => {
                self.fail(outcome, &trouble);
                None
            }
        }
    }

    /// Brings a step in request by request while nobody else uses the device. False when somebody does: then nothing more is begun.
    fn step_gently(&self, command: &Command, opened: &mut Opened) -> io::Result<bool> {
        let Some(device) = command.model.parts.get(command.part).map(|part| part.file.device) else {
            return Ok(true);
        };
        let mut start = command.range.start;
        while start < command.range.end {
            if command.epoch < self.epoch.load(Ordering::Acquire) || !self.quiet.is_quiet(device) {
                return Ok(false);
            }
            let request = ByteRange {
                start,
                end: (start + opened.request).min(command.range.end),
            };
            // As far as one request can reach.
            let reach = ByteRange::new(start, 2 * opened.request.max(STEP));
            let before = present(&opened.file, reach)?;
            opened.warmer.submit(&opened.file, request)?;
            opened.warmer.wait(&opened.file, request)?;
            let own = present(&opened.file, reach)?.saturating_sub(before);
            // What a request brought in beyond itself within the step is this step's.
            opened.warmer.brought_before(ByteRange {
                start: request.end,
                end: command.range.end,
            });
            if !self.quiet.was_quiet(device, own) {
                return Ok(false);
            }
            start = request.end;
        }
        Ok(true)
    }

    /// Waits for a step, verifies it, and reports.
    fn finish(&self, step: Pending, opened: &mut HashMap<usize, Opened>) {
        let mut outcome = step.outcome;
        let Some(opened) = opened.get_mut(&step.part) else {
            return self.send(outcome);
        };
        let settled = settle(opened, outcome.range);
        // A step that stays incomplete has many causes, and this one has a remedy.
        if !matches!(settled, Ok(after) if after >= outcome.range.len()) && opened.is_truncated() {
            return self.fail(outcome, &Trouble::Stale);
        }
        match settled {
            Ok(after) => {
                outcome.after = after.max(outcome.before);
                outcome.completed = clock::now();
                // Reclaim can take a step as soon as it is there; steps in a row of which nothing stays are the file system's doing.
                opened.vain = if after == 0 { opened.vain + 1 } else { 0 };
                outcome.end = if opened.vain >= VAIN {
                    StepEnd::Unverified
                } else {
                    StepEnd::Done
                };
                self.send(outcome);
            }
            Err(error) => self.fail(outcome, &error.into()),
        }
    }

    fn open<'a>(
        &self,
        index: usize,
        part: &Part,
        opened: &'a mut HashMap<usize, Opened>,
    ) -> Result<&'a mut Opened, Trouble> {
        use std::collections::hash_map::Entry;
        match opened.entry(index) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(entry) => {
                let file =
                    open::open_beneath(&part.place.root, &part.place.below).map_err(|error| match error.kind() {
                        io::ErrorKind::NotFound => Trouble::Stale,
                        _ => Trouble::Io(error),
                    })?;
                let status = file.metadata()?;
                // Inode numbers are reused and names replaced: what we open must be what was asked for.
                if status.ino() != part.file.inode || status.size() != part.size {
                    return Err(Trouble::Stale);
                }
                if is_being_written(&file, &status)? {
                    return Err(Trouble::Written);
                }
                let limits = block::request_limits(part.file.device);
                let chunk = chunk_of(limits.readahead_call());
                let warmer: Box<dyn Warmer> = match Chain::new(limits, Readahead { chunk }) {
                    Some(chain) => Box::new(chain),
                    None => Box::new(Readahead { chunk }),
                };
                Ok(entry.insert(Opened {
                    file,
                    warmer,
                    plain_reads: false,
                    vain: 0,
                    size: part.size,
                    request: chunk,
                }))
            }
        }
    }

    fn fail(&self, mut outcome: Outcome, trouble: &Trouble) {
        tracing::debug!(file = ?outcome.file, range = ?outcome.range, %trouble, "a step was not warmed");
        outcome.end = match trouble {
            Trouble::Stale => StepEnd::Stale,
            Trouble::Written => StepEnd::Written,
            Trouble::Io(_) => StepEnd::Failed,
        };
        outcome.completed = clock::now();
        self.send(outcome);
    }

    /// Overflow policy: the thread waits; the engine, which bounds the steps in flight, is what it waits for.
    fn send(&self, outcome: Outcome) {
        // The receiver is gone only when the agent ends.
        let _ = self.outcomes.blocking_send(outcome);
    }
}

/// Bytes per readahead call: as many as the kernel takes at once, in whole MiB so that the calls divide a step evenly. A smaller call costs a
/// device that counts requests twice as many.
fn chunk_of(limit: u64) -> u64 {
    const MIB: u64 = 1 << 20;
    if limit >= MIB {
        (limit / MIB * MIB).min(STEP)
    } else {
        limit.max(page_size())
    }
}

/// Whether a file was written a moment ago, or is not on the device yet. What was complete before the agent began may still be on its way there.
fn is_being_written(file: &File, status: &Metadata) -> io::Result<bool> {
    let nanoseconds = |seconds: i64, rest: i64| seconds.saturating_mul(1_000_000_000).saturating_add(rest);
    let modified = nanoseconds(status.mtime(), status.mtime_nsec());
    let changed = nanoseconds(status.ctime(), status.ctime_nsec());
    Ok(clock::written_at(modified, changed, AT_REST).is_some()
        || clock::is_written_since_begin(modified, changed) && page_cache::is_dirty(file)?)
}

/// Bytes of `range` that are in the cache or on their way, at most its length.
fn present(file: &File, range: ByteRange) -> io::Result<u64> {
    let found = match page_cache::present(file, range) {
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::ENOSYS | libc::EPERM | libc::EOPNOTSUPP)
            ) =>
        {
            page_cache::resident(file, range)
        }
        other => other,
    }?;
    Ok(found.min(range.len()))
}

/// Waits until a submitted step is resident; changes to plain reads where readahead brought in nothing but what the waiting itself read.
fn settle(opened: &mut Opened, range: ByteRange) -> io::Result<u64> {
    opened.warmer.wait(&opened.file, range)?;
    let mut after = page_cache::resident(&opened.file, range)?;
    if after < range.len() {
        // Chunks complete in any order where a device has several queues: what is still on its way is waited for once more, page by page
        // of the gaps being too fine. What reclaim took meanwhile stays away.
        let touched_by_waiting = 4 * page_size();
        if after <= touched_by_waiting && !opened.plain_reads {
            opened.plain_reads = true;
            opened.warmer = Box::new(Read::default());
            opened.warmer.submit(&opened.file, range)?;
        } else {
            wait_for_gaps(&opened.file, range)?;
        }
        after = page_cache::resident(&opened.file, range)?;
    }
    Ok(after)
}

/// Waits for pages that are present and not yet up to date, at a grain of 64 KiB.
fn wait_for_gaps(file: &File, range: ByteRange) -> io::Result<()> {
    const GRAIN: usize = 64 << 10;
    for start in (range.start..range.end).step_by(GRAIN) {
        let piece = ByteRange {
            start,
            end: (start + GRAIN as u64).min(range.end),
        };
        if page_cache::resident(file, piece)? < piece.len() && present(file, piece)? == piece.len() {
            page_cache::wait(file, piece.end - 1)?;
        }
    }
    Ok(())
}
