//! The watching thread: hears of opens and closes, follows the processes behind them, and tells what they read.
//!
//! In: files to mark, the kernel's fanotify events, /proc. Out: see [`super::outlet`]. It sleeps in one `poll`. The marks ask for opens and closes of the
//! watched files alone and never for a permission, so that nobody waits for this thread: what it is too slow for, the kernel drops and says so.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::MetadataExt,
    },
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::Receiver,
    },
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        eventfd::EventFd,
        fanotify::{Fanotify, FanotifyEvent, MarkFlags, MaskFlags},
        stat::fstat,
    },
};

use super::{Named, files::Files, outlet::Outlet, proc, reader::Reader};
use crate::{sys::open::open_beneath, units::FileId};

/// What is heard of a watched file.
const HEARD: MaskFlags = MaskFlags::FAN_OPEN
    .union(MaskFlags::FAN_CLOSE_WRITE)
    .union(MaskFlags::FAN_CLOSE_NOWRITE);

/// Files with a mark. A mark keeps its inode in memory, a kilobyte each.
pub const MOST_MARKS: usize = 1 << 18;

/// Processes that are followed.
const MOST_READERS: usize = 512;

/// Reads of the queue before anything else gets its turn.
const BATCHES: usize = 64;

/// A turn that took longer is followed by a rest as long as it, up to the second.
const REST: [Duration; 2] = [Duration::from_millis(2), Duration::from_millis(20)];

/// What the thread is told.
#[derive(Debug)]
pub enum Command {
    /// Watch these.
    Mark(Vec<Named>),
    /// Watch these no longer.
    Unmark(Vec<FileId>),
    /// Look who has watched files open already.
    LookAround,
}

/// The thread's own state.
#[derive(Debug)]
pub struct Watcher {
    pub fan: Fanotify,
    pub commands: Receiver<Command>,
    /// Wakes this thread.
    pub wake: Arc<EventFd>,
    pub stop: Arc<AtomicBool>,
    /// Commands carried out.
    pub done: Arc<AtomicU64>,
    pub out: Outlet,
    pub files: Files,
    pub readers: HashMap<u32, Reader>,
}

impl Watcher {
    /// Until it is told to stop.
    pub fn run(mut self) {
        while !self.stop.load(Ordering::Acquire) {
            let (told, heard, ended) = self.wait();
            let began = Instant::now();
            if told {
                let _ = self.wake.read();
            }
            if heard {
                self.hear();
            }
            for process in ended {
                self.readers.remove(&process);
                self.out.ended(process);
            }
            let obeyed = told && self.obey();
            self.turn(began);
            self.out.flush(obeyed);
            let worked = began.elapsed();
            if worked > REST[0] {
                std::thread::sleep(worked.min(REST[1]));
            }
        }
    }

    /// Sleeps until there is something to do: a command, an event, processes that have ended.
    fn wait(&self) -> (bool, bool, Vec<u32>) {
        let due = self.readers.values().filter_map(Reader::due).min();
        let timeout = match due {
            // Rounded up: a wait that ends a little early would spin.
            Some(due) => PollTimeout::try_from(due.saturating_duration_since(Instant::now()).as_millis() + 1),
            None => Ok(PollTimeout::NONE),
        };
        let watch = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let own: [BorrowedFd<'_>; 2] = [self.wake.as_fd(), self.fan.as_fd()];
        let ends = self.readers.values().map(Reader::end);
        let mut fds: Vec<PollFd<'_>> = own.into_iter().chain(ends).map(watch).collect();
        if poll(&mut fds, timeout.unwrap_or(PollTimeout::MAX)).is_err() {
            // A signal to the process: all comes again.
            return (false, false, Vec::new());
        }
        let ready = |at: usize| fds.get(at).and_then(PollFd::any).unwrap_or(false);
        let ended = self
            .readers
            .keys()
            .enumerate()
            .filter(|(index, _)| ready(index + own.len()));
        (ready(0), ready(1), ended.map(|(_, process)| *process).collect())
    }

    /// Takes what the kernel tells.
    fn hear(&mut self) {
        for _ in 0..BATCHES {
            match self.fan.read_events() {
                Ok(events) if events.is_empty() => return,
                Ok(events) => events.iter().for_each(|event| self.heard(event)),
                Err(Errno::EAGAIN) => return,
                // The file of an event could not be opened: deleted on another machine, or locked by a lease.
                Err(error) => {
                    tracing::debug!("an event about a watched file could not be read: {error}");
                    self.out.lost();
                }
            }
        }
    }

    fn heard(&mut self, event: &FanotifyEvent) {
        if event.mask().contains(MaskFlags::FAN_Q_OVERFLOW) {
            self.out.lost();
            self.look_around();
            return;
        }
        let process = u32::try_from(event.pid()).unwrap_or(0);
        let status = event.fd().and_then(|fd| fstat(fd).ok());
        let file = status.and_then(|status| self.files.name(status.st_dev, status.st_ino));
        if file.is_none()
            && let Some(fd) = event.fd()
        {
            // It is watched no longer.
            let _ = self.mark(MarkFlags::FAN_MARK_REMOVE, fd);
        }
        // The agent's own opens, and those of processes in another PID namespace, which have no number here.
        let of_interest = file.is_some() && process != 0 && process != std::process::id();
        self.out.heard(of_interest);
        if of_interest {
            self.meet(process);
        }
    }

    /// A process has opened or closed a watched file.
    fn meet(&mut self, process: u32) {
        let now = Instant::now();
        if let Some(reader) = self.readers.get_mut(&process) {
            return reader.stirred(now);
        }
        if self.readers.len() >= MOST_READERS {
            self.readers.retain(|_, reader| !reader.is_idle());
        }
        if self.readers.len() >= MOST_READERS {
            return self.out.lost();
        }
        // Who has ended by now has nothing left to be helped with.
        if let Ok(reader) = Reader::meet(process) {
            self.readers.insert(process, reader);
            self.turn_of(process, now);
            self.out.met(process);
        }
    }

    /// Meets whoever has a watched file open: before the agent came, or while the kernel had no room for events.
    fn look_around(&mut self) {
        let own = std::process::id();
        for process in proc::processes() {
            if process == own || self.stop.load(Ordering::Acquire) {
                continue;
            }
            let files = &self.files;
            let has_open = !proc::descriptors(process, files).is_empty() || !proc::mappings(process, files).is_empty();
            if has_open {
                self.meet(process);
            }
        }
    }

    /// Carries out what waits; whether there was anything.
    fn obey(&mut self) -> bool {
        let mut any = false;
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Mark(files) => self.watch(files),
                Command::Unmark(files) => {
                    files.into_iter().for_each(|file| self.files.remove(file));
                }
                Command::LookAround => self.look_around(),
            }
            self.out.shared().watched = self.files.len() as u64;
            self.done.fetch_add(1, Ordering::Release);
            any = true;
            if self.stop.load(Ordering::Acquire) {
                break;
            }
        }
        any
    }

    fn watch(&mut self, files: Vec<Named>) {
        let mut refused = None;
        for named in files {
            // One that is not there any more, or is another one, the catalog will tell of.
            let Ok(file) = open_beneath(&named.root, &named.below) else {
                continue;
            };
            let Ok(status) = file.metadata() else { continue };
            if status.ino() != named.file.inode {
                continue;
            }
            let marked = if self.files.len() < MOST_MARKS {
                self.mark(MarkFlags::FAN_MARK_ADD, file.as_fd())
            } else {
                Err(Errno::ENOSPC)
            };
            match marked {
                Ok(()) => self.files.insert(named.file, (status.dev(), status.ino())),
                Err(error) => {
                    self.out.shared().without_room += 1;
                    refused = Some(error);
                }
            }
            if self.stop.load(Ordering::Acquire) {
                return;
            }
        }
        if let Some(error) = refused {
            tracing::warn!("files could not be marked and are not watched: {error}: watch fewer files");
        }
    }

    fn mark(&self, what: MarkFlags, file: BorrowedFd<'_>) -> Result<(), Errno> {
        self.fan.mark(what, HEARD, file, None::<&str>)
    }

    /// Looks at the processes that are due.
    fn turn(&mut self, now: Instant) {
        let due = self
            .readers
            .iter()
            .filter(|(_, reader)| reader.due().is_some_and(|due| due <= now));
        let due: Vec<u32> = due.map(|(process, _)| *process).collect();
        for process in due {
            self.turn_of(process, now);
        }
    }

    fn turn_of(&mut self, process: u32, now: Instant) {
        let Self {
            files, readers, out, ..
        } = self;
        let written: HashSet<FileId> = readers.values().flat_map(Reader::writes).collect();
        if let Some(reader) = readers.get_mut(&process) {
            reader.turn(now, files, &written, out);
        }
    }
}

/// Whether /proc tells what this mode lives by, and by which name; in words where it does not.
pub fn sources() -> [(&'static str, &'static str, Option<String>); 3] {
    let places = [
        ("descriptors", "/proc/self/io"),
        ("mappings", "/proc/self/pagemap"),
        ("calls", "/proc/self/syscall"),
    ];
    places.map(|(name, path)| {
        let refused = File::open(path)
            .err()
            .map(|error| format!("{error}: this kernel was built without it"));
        (name, path, refused)
    })
}
