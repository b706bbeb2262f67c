//! The fanotify mode: who opens watched files, and how far they come in them, without an eBPF program.
//!
//! Inputs: files with their places, to be marked. Outputs: wire events as the eBPF side has them, made of what the kernel and /proc tell. fanotify tells of
//! opens and closes; no event tells which bytes are read, so that the readers are looked at (`reader`) for as long as they have a watched file open.
//! The work is done on a thread of its own (`watcher`); no call here blocks.
//!
//! What others pay: opening and closing a watched file queues an event each. Reads pay nothing, and neither does who opens other files, beyond what
//! any watch on a file system costs.

mod cursor;
mod files;
mod mapped;
mod outlet;
mod proc;
mod reader;
mod watcher;

use std::{
    collections::HashMap,
    os::fd::{AsFd, BorrowedFd},
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
};

use nitro_common::{AccessEvent, Counters};
use nix::{
    errno::Errno,
    sys::{
        eventfd::{EfdFlags, EventFd},
        fanotify::{EventFFlags, Fanotify, InitFlags},
    },
};

use self::{
    files::Files,
    outlet::{Outlet, Shared},
    watcher::{Command, Watcher},
};
use super::{
    attach::ProgramReport,
    ebpf::{ThreadCounts, Usage},
};
use crate::{
    sys::{confine::confine, top::Top},
    units::FileId,
};

/// Events that may wait to be taken; what comes then is dropped and counted.
const MOST_EVENTS: usize = 1 << 16;

/// Commands that may wait. The one who gives them waits for each before the next, but for those to forget files.
const MOST_COMMANDS: usize = 1024;

/// Why there is no fanotify mode.
#[derive(Debug, thiserror::Error)]
pub enum FanotifyError {
    /// No fanotify group.
    #[error("cannot listen with fanotify: {0}: {remedy}", remedy = remedy(*.0))]
    Init(Errno),
    /// Out of descriptors or threads.
    #[error("cannot start the fanotify thread: {0}: raise the limit on open files")]
    Thread(std::io::Error),
}

fn remedy(error: Errno) -> &'static str {
    match error {
        Errno::EPERM => "run as root, or with CAP_SYS_ADMIN",
        Errno::ENOSYS => "use a kernel built with CONFIG_FANOTIFY",
        Errno::EMFILE => "raise fs.fanotify.max_user_groups or the limit on open files",
        _ => "see fanotify_init(2)",
    }
}

/// A file and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Which file.
    pub file: FileId,
    /// Its watch root.
    pub root: Top,
    /// Path below the root.
    pub below: PathBuf,
}

/// The running mode. Dropping it ends the thread, and with that all marks.
#[derive(Debug)]
pub struct FanotifySource {
    events: Receiver<AccessEvent>,
    /// Readable when there are events, and when a command was carried out.
    ready: Arc<EventFd>,
    commands: SyncSender<Command>,
    wake: Arc<EventFd>,
    stop: Arc<AtomicBool>,
    asked: u64,
    done: Arc<AtomicU64>,
    shared: Arc<Mutex<Shared>>,
    received: u64,
}

impl FanotifySource {
    /// Starts listening; nothing is watched yet.
    ///
    /// # Errors
    /// [`FanotifyError`], each with its remedy.
    pub fn open() -> Result<(Self, Vec<ProgramReport>), FanotifyError> {
        let flags = InitFlags::FAN_CLASS_NOTIF
            | InitFlags::FAN_CLOEXEC
            | InitFlags::FAN_NONBLOCK
            | InitFlags::FAN_UNLIMITED_MARKS;
        let of_events = EventFFlags::O_RDONLY
            | EventFFlags::O_CLOEXEC
            | EventFFlags::O_LARGEFILE
            | EventFFlags::O_NOATIME
            // A file with a lease is not waited for.
            | EventFFlags::O_NONBLOCK;
        let fan = Fanotify::init(flags, of_events).map_err(FanotifyError::Init)?;
        let signal = || {
            let made = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK);
            made.map(Arc::new).map_err(|error| FanotifyError::Thread(error.into()))
        };
        let (ready, wake) = (signal()?, signal()?);
        let (tell, events) = sync_channel(MOST_EVENTS);
        let (commands, waiting) = sync_channel(MOST_COMMANDS);
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let shared = Arc::new(Mutex::new(Shared::default()));
        let watcher = Watcher {
            fan,
            commands: waiting,
            wake: wake.clone(),
            stop: stop.clone(),
            done: done.clone(),
            out: Outlet::new(tell, ready.clone(), shared.clone()),
            files: Files::default(),
            readers: HashMap::new(),
        };
        let thread = std::thread::Builder::new().name("nitro-fanotify".into());
        // Not waited for at the end: it may hang in a dead file system.
        let watch = move || {
            // Whoever starts it may have every right; what it was refused to give up, the agent tells of itself.
            let _ = confine(&[]);
            watcher.run();
        };
        thread.spawn(watch).map_err(FanotifyError::Thread)?;
        let source = Self {
            events,
            ready,
            commands,
            wake,
            stop,
            asked: 0,
            done,
            shared,
            received: 0,
        };
        let reports = watcher::sources().map(|(program, hook, refused)| ProgramReport { program, hook, refused });
        Ok((source, reports.into()))
    }

    /// Starts watching files, soon; see [`Self::is_settled`].
    pub fn watch(&mut self, files: Vec<Named>) {
        self.command(Command::Mark(files));
    }

    /// Stops watching files. What else is heard of them says nothing.
    pub fn unwatch(&mut self, files: Vec<FileId>) {
        self.command(Command::Unmark(files));
    }

    /// Looks who has watched files open already.
    pub fn look_around(&mut self) {
        self.command(Command::LookAround);
    }

    /// Whether all that was asked for has been carried out. It becomes so together with the descriptor's becoming readable.
    pub fn is_settled(&self) -> bool {
        self.done.load(Ordering::Acquire) >= self.asked
    }

    fn command(&mut self, command: Command) {
        match self.commands.try_send(command) {
            Ok(()) => self.asked += 1,
            // Only files to forget come faster than they are taken: an event of theirs will say nothing to the engine either.
            Err(refused) => tracing::debug!(%refused, "the fanotify thread is behind"),
        }
        // A full counter wakes as well.
        let _ = self.wake.write(1);
    }

    /// Hands over at most `most` events; returns how many. Fewer than `most` means that there are none left.
    pub fn drain(&mut self, most: usize, take: impl FnMut(AccessEvent)) -> usize {
        // First, so that what comes meanwhile makes it readable again.
        let _ = self.ready.read();
        let count = self.events.try_iter().take(most).map(take).count();
        self.received += count as u64;
        count
    }

    /// Takes what a process did in some files since the last time.
    pub fn take_counts(&mut self, process: u32, concerns: impl Fn(FileId) -> bool) -> Vec<ThreadCounts> {
        let mut shared = self.shared();
        let taken = shared
            .accounts
            .extract_if(|(of, file), _| *of == process && concerns(*file));
        let counts = taken.map(|((thread, file), state)| ThreadCounts { file, thread, state });
        counts.collect()
    }

    /// Bytes that devices were asked for on behalf of a process, put down to the files that `concerns` wants.
    pub fn added_by(&self, process: u32, concerns: impl Fn(FileId) -> bool) -> u64 {
        let shared = self.shared();
        let accounts = shared.accounts.iter();
        let concerned = accounts.filter(|((of, file), _)| *of == process && concerns(*file));
        concerned.map(|(_, state)| state.added_bytes).sum()
    }

    /// Forgets what was counted of processes that have ended without anybody asking.
    pub fn sweep(&mut self, lives: impl Fn(u32) -> bool) {
        self.shared().accounts.retain(|(process, _), _| lives(*process));
    }

    /// As the eBPF programs count: what the kernel told is filtered or coalesced, what follows from it delivered; and events received.
    pub fn counters(&self) -> (Counters, u64) {
        (self.shared().counters, self.received)
    }

    /// How many files are watched.
    pub fn usage(&self) -> Usage {
        let shared = self.shared();
        Usage {
            watched: shared.watched,
            capacity: watcher::MOST_MARKS as u64,
            without_room: shared.without_room,
        }
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for FanotifySource {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        let _ = self.wake.write(1);
    }
}

impl AsFd for FanotifySource {
    /// Readable when there are events.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ready.as_fd()
    }
}
