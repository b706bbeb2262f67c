//! What the watching thread tells: events, their counters, and what each process did in each file.
//!
//! Events go through a bounded channel, accounts through a lock that nobody holds for longer than it takes to change a number.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{SyncSender, TrySendError},
    },
};

use nitro_common::{AccessEvent, Counters, CursorState, Hook, flags};
use nix::sys::eventfd::EventFd;

use super::cursor::Piece;
use crate::{
    sys::clock,
    units::{ByteRange, FileId},
};

/// What both sides see.
#[derive(Debug, Default)]
pub struct Shared {
    /// As the eBPF programs count.
    pub counters: Counters,
    /// By process and file: accesses, their bytes, and bytes that devices were asked for.
    pub accounts: HashMap<(u32, FileId), CursorState>,
    /// Files with a mark.
    pub watched: u64,
    /// Files that got none, since the start.
    pub without_room: u64,
}

/// The watching thread's way out.
#[derive(Debug)]
pub struct Outlet {
    events: SyncSender<AccessEvent>,
    wake: Arc<EventFd>,
    shared: Arc<Mutex<Shared>>,
    /// Something was told since the other side was woken.
    told: bool,
}

impl Outlet {
    /// An outlet into `events`, which wakes by `wake`.
    pub fn new(events: SyncSender<AccessEvent>, wake: Arc<EventFd>, shared: Arc<Mutex<Shared>>) -> Self {
        Self {
            events,
            wake,
            shared,
            told: false,
        }
    }

    /// What both sides see.
    pub fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A process has read or touched a piece of a file.
    pub fn access(&mut self, hook: Hook, process: u32, thread: u32, file: FileId, piece: Piece, flags: u16) {
        let (range, found) = piece;
        let mut shared = self.shared();
        let account = shared.accounts.entry((process, file)).or_default();
        account.calls += 1;
        account.bytes += range.len();
        drop(shared);
        self.file_event(hook, process, thread, file, range, found | flags);
    }

    /// Something else happened to a file.
    pub fn file_event(&mut self, hook: Hook, process: u32, thread: u32, file: FileId, range: ByteRange, flags: u16) {
        self.event(AccessEvent {
            inode: file.inode,
            device: file.device,
            offset: range.start,
            length: u32::try_from(range.len()).unwrap_or(u32::MAX),
            flags,
            ..Self::of(hook, process, thread)
        });
    }

    /// A process was met for the first time: who it is may be looked up.
    pub fn met(&mut self, process: u32) {
        self.event(Self::of(Hook::Exec, process, process));
    }

    /// A process has ended.
    pub fn ended(&mut self, process: u32) {
        let flags = flags::LAST_THREAD;
        self.event(AccessEvent {
            flags,
            ..Self::of(Hook::Exit, process, process)
        });
    }

    /// Devices were asked for `bytes` of a file on behalf of a process.
    pub fn fetched(&mut self, process: u32, file: FileId, bytes: u64) {
        if bytes > 0 {
            self.shared().accounts.entry((process, file)).or_default().added_bytes += bytes;
        }
    }

    /// The kernel told of something: whether it is of interest.
    pub fn heard(&mut self, of_interest: bool) {
        let counters = &mut self.shared().counters;
        counters.seen += 1;
        *(if of_interest {
            &mut counters.coalesced
        } else {
            &mut counters.filtered
        }) += 1;
    }

    /// The kernel dropped something.
    pub fn lost(&mut self) {
        let counters = &mut self.shared().counters;
        counters.seen += 1;
        counters.dropped += 1;
    }

    /// Wakes the other side if there is something for it, or `anyway`.
    pub fn flush(&mut self, anyway: bool) {
        if std::mem::take(&mut self.told) || anyway {
            // A full counter wakes as well.
            let _ = self.wake.write(1);
        }
    }

    fn of(hook: Hook, process: u32, thread: u32) -> AccessEvent {
        AccessEvent {
            time_ns: clock::now().0,
            process,
            thread,
            hook: hook as u16,
            ..AccessEvent::default()
        }
    }

    fn event(&mut self, event: AccessEvent) {
        let sent = self.events.try_send(event);
        self.told = true;
        let counters = &mut self.shared().counters;
        counters.seen += 1;
        *(match sent {
            Ok(()) => &mut counters.delivered,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => &mut counters.dropped,
        }) += 1;
    }
}
