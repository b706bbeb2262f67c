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
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, TryRecvError},
    },
};

use tokio::sync::mpsc::Sender;

use super::{
    Warmer,
    account::{Accountant, Helper, OnAccount},
    quiet::Quiet,
    read::Read,
};
use crate::{
    catalog::model::{AT_REST, Model, Part},
    engine::{
        action::LoadId,
        input::{Outcome, StepEnd},
    },
    sys::{
        block,
        cgroup::{self, MemoryGroup},
        clock, holds,
        lent::Lenders,
        open, page_cache, page_size,
    },
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
    /// The process it is done for.
    pub reader: u32,
    /// On that process's account; the agent's without.
    pub charged: bool,
    /// The stream's epoch when it was queued: a cancelled one is older than the stream's.
    pub epoch: u64,
}

/// Steps in a row of which nothing stays in the page cache, after which the file system is given up.
const VAIN: u32 = 4;

/// Bytes that stay free in a consumer's memory cgroup.
const RESERVE: u64 = 32 << 20;

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
pub(super) enum Trouble {
    /// What the catalog said of the file no longer holds.
    #[error("another file has this name now, or none, or it has another size")]
    Stale,
    /// It is being written, or was a moment ago.
    #[error("it is being written")]
    Written,
    /// It can be had of its readers alone, and none has it open.
    #[error("nobody lends it: {0}")]
    NotLent(io::Error),
    /// Its reader has another file open that the page cache knows by the same number.
    #[error("its reader has another file of this number")]
    Namesake,
    /// The consumer's memory cgroup cannot be joined.
    #[error("cannot warm on its reader's account: {0}")]
    Account(io::Error),
    /// The consumer's memory cgroup has no room left.
    #[error("the memory cgroup of its reader is full")]
    NoRoom,
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
    /// Who warms on others' account.
    pub accountant: Option<Arc<Accountant>>,
    /// Who has files open that the agent may not open.
    pub lenders: Lenders,
}

/// What a stream has open.
#[derive(Default)]
struct Files {
    parts: HashMap<usize, Opened>,
    /// In the consumer's memory cgroup, and which that is.
    helper: Option<(Rc<Helper>, MemoryGroup)>,
}

impl Stream {
    /// Runs until the other end of `commands` is dropped; every command gets its outcome.
    pub fn run(self) {
        let mut files = Files::default();
        let mut pending: VecDeque<Pending> = VecDeque::new();
        loop {
            let next = if pending.is_empty() {
                self.commands.recv().map_err(|_| TryRecvError::Disconnected)
            } else {
                self.commands.try_recv()
            };
            match next {
                Ok(command) => {
                    if let Some(step) = self.start(&command, &mut files) {
                        pending.push_back(step);
                    }
                }
                Err(end) => {
                    if let Some(step) = pending.pop_front() {
                        self.finish(step, &mut files.parts);
                    } else if end == TryRecvError::Disconnected {
                        return;
                    }
                }
            }
        }
    }

    /// Submits a step; `None` when its outcome is known at once.
    fn start(&self, command: &Command, files: &mut Files) -> Option<Pending> {
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
            held: 0,
            submitted: now,
            completed: now,
        };
        if command.epoch < self.epoch.load(Ordering::Acquire) {
            self.send(outcome);
            return None;
        }
        let started = self.open(command, part, files).and_then(|()| {
            let Some(opened) = files.parts.get_mut(&command.part) else {
                return Ok(false);
            };
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
            if let Some((_, group)) = &files.helper
                && group.left().is_some_and(|left| left.0 < command.range.len() + RESERVE)
            {
                return Err(Trouble::NoRoom);
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
            // The device counts what has come. Where a part was there, the wait can be over before that: it looks at the last page of a call.
            if page_cache::tells_presence() {
                page_cache::arrived(&opened.file, reach)?;
            }
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

    fn open(&self, command: &Command, part: &Part, files: &mut Files) -> Result<(), Trouble> {
        use std::collections::hash_map::Entry;
        match files.parts.entry(command.part) {
            Entry::Occupied(_) => Ok(()),
            Entry::Vacant(entry) => {
                let lent = command.model.lent;
                let file = if lent { self.borrow(part)? } else { open_part(part)? };
                // Where subvolumes have numbers of their own a snapshot's file has the same as the original's.
                if part.generation != 0 && holds::has(command.reader, part.file, &file) == Some(false) {
                    return Err(Trouble::Namesake);
                }
                let limits = block::request_limits(part.file.device);
                // Without a block device the kernel's readahead alone bounds a call, and it is twice as much for who says that he reads in order: half as many
                // requests. Of a borrowed descriptor it is its owner's to say.
                let times = if limits.request == 0 && !lent && page_cache::read_in_order(&file).is_ok() {
                    2
                } else {
                    1
                };
                let chunk = chunk_of(limits.readahead_call() * times);
                let warmer: Box<dyn Warmer> = if command.charged {
                    let helper = match &files.helper {
                        Some((helper, _)) => helper.clone(),
                        None => files.helper.insert(self.helper(command.reader)?).0.clone(),
                    };
                    let opened = OnAccount::open(helper, command.part, &file, limits, chunk, lent);
                    Box::new(opened.map_err(Trouble::Account)?)
                } else {
                    super::best(limits, chunk, lent)
                };
                entry.insert(Opened {
                    file,
                    warmer,
                    plain_reads: false,
                    vain: 0,
                    size: part.size,
                    request: chunk,
                });
                Ok(())
            }
        }
    }

    /// The part through a descriptor of one of its readers, which is the very file that was described. Its size and its times nobody tells us; that it is being written, its pages may.
    fn borrow(&self, part: &Part) -> Result<File, Trouble> {
        let file = self.lenders.borrow(part.file).map_err(Trouble::NotLent)?.file;
        if page_cache::is_dirty(&file)? {
            return Err(Trouble::Written);
        }
        Ok(file)
    }

    fn helper(&self, consumer: u32) -> Result<(Rc<Helper>, MemoryGroup), Trouble> {
        let missing = |what: &str| Trouble::Account(io::Error::new(io::ErrorKind::NotFound, what));
        let accountant = self.accountant.as_ref();
        let accountant = accountant.ok_or_else(|| missing("nobody warms on others' account"))?;
        let group = cgroup::of_process(consumer);
        let group = group.ok_or_else(|| missing("it has ended, or its memory cgroup is not to be seen"))?;
        let helper = accountant.helper(&group).map_err(Trouble::Account)?;
        Ok((Rc::new(helper), group))
    }

    fn fail(&self, mut outcome: Outcome, trouble: &Trouble) {
        tracing::debug!(file = ?outcome.file, range = ?outcome.range, %trouble, "a step was not warmed");
        outcome.end = match trouble {
            Trouble::Stale => StepEnd::Stale,
            Trouble::Written => StepEnd::Written,
            Trouble::NotLent(_) => StepEnd::NotLent,
            Trouble::Namesake => StepEnd::Namesake,
            Trouble::Account(_) => StepEnd::NoAccount,
            Trouble::NoRoom => StepEnd::NoRoom,
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

/// Opens a part by its place, if it is what the catalog said.
pub(super) fn open_part(part: &Part) -> Result<File, Trouble> {
    let source = part.source();
    let opened = open::open_beneath(&source.root, &source.below);
    let file = opened.map_err(|error| match error.kind() {
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
    Ok(file)
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
            let before = std::mem::replace(&mut opened.warmer, Box::new(Read::default()));
            opened.warmer = before.plainly()?;
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
