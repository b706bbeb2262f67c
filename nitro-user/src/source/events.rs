//! The event source, whichever mode it works in.
//!
//! Inputs: which mode is asked for. Outputs: the first that works, and why it is that one. The daemon knows no other difference than that one mode is told where
//! the files are.

use std::{
    collections::{BTreeSet, HashMap},
    os::fd::{AsFd, BorrowedFd},
};

use nitro_common::{AccessEvent, Counters};

use super::{
    attach::{Attachment, EventChoice, EventMode},
    ebpf::{EbpfSource, Options, SourceError, ThreadCounts, Usage},
    fanotify::{FanotifySource, Named},
};
use crate::units::FileId;

/// What the fanotify mode costs others, for the start-up line.
const FANOTIFY_PRICE: &str = "opens and closes of watched files are told, and their readers are looked at in /proc";

/// Where events come from. Dropping it ends them.
pub enum EventSource {
    /// eBPF programs.
    Ebpf(Box<EbpfSource>),
    /// fanotify and /proc.
    Fanotify(FanotifySource),
}

impl EventSource {
    /// Opens the first mode that works: those of eBPF programs, cheapest first, then fanotify.
    ///
    /// # Errors
    /// [`SourceError`], with the remedy; where no mode works at all, that of the eBPF programs and that of fanotify.
    pub fn open(options: Options) -> Result<(Self, Attachment), SourceError> {
        let ebpf = |options| EbpfSource::open(options).map(|(source, how)| (Self::Ebpf(Box::new(source)), how));
        match options.events {
            EventChoice::Only(EventMode::Fanotify) => Self::fanotify("as asked").map_err(SourceError::Fanotify),
            EventChoice::Only(_) => ebpf(options),
            EventChoice::Auto | EventChoice::Classic => ebpf(options).or_else(|error| {
                let refusal = match &error {
                    SourceError::NoMode(reasons) => reasons.clone(),
                    other => other.to_string(),
                };
                Self::fanotify(&refusal).map_err(|also| SourceError::NoMode(format!("{refusal}; fanotify: {also}")))
            }),
        }
    }

    fn fanotify(reason: &str) -> Result<(Self, Attachment), super::fanotify::FanotifyError> {
        let (source, programs) = FanotifySource::open()?;
        let attachment = Attachment {
            mode: EventMode::Fanotify,
            why: format!("{reason}; {FANOTIFY_PRICE}"),
            price: None,
            programs,
        };
        Ok((Self::Fanotify(source), attachment))
    }

    /// Starts watching files, and tells how many found no room. Of those that it must be told the places of, none is watched by this: see [`Self::watch_at`].
    ///
    /// # Errors
    /// [`SourceError::MapAccess`].
    pub fn watch(&mut self, files: impl IntoIterator<Item = FileId>) -> Result<usize, SourceError> {
        match self {
            Self::Ebpf(source) => source.watch(files),
            Self::Fanotify(_) => Ok(0),
        }
    }

    /// Watches all files of these devices from now on, and of no other device; their readers are told first (`Hook::Met`). False where that cannot be, and is asked for.
    ///
    /// # Errors
    /// [`SourceError::MapAccess`].
    pub fn watch_devices(&mut self, devices: &BTreeSet<u32>) -> Result<bool, SourceError> {
        match self {
            Self::Ebpf(source) => source.watch_devices(devices).map(|()| true),
            // A mark on a mount would make every open on it an event, and takes a right that is given up.
            Self::Fanotify(_) => Ok(devices.is_empty()),
        }
    }

    /// Whether it must be told where files are.
    pub const fn needs_places(&self) -> bool {
        matches!(self, Self::Fanotify(_))
    }

    /// Starts watching files at their places, soon; see [`Self::is_settled`].
    pub fn watch_at(&mut self, files: Vec<Named>) {
        if let Self::Fanotify(source) = self {
            source.watch(files);
        }
    }

    /// Whether it is done with all that it was asked for.
    pub fn is_settled(&self) -> bool {
        match self {
            Self::Ebpf(_) => true,
            Self::Fanotify(source) => source.is_settled(),
        }
    }

    /// Looks who has watched files open already, where that is not seen by itself with their next access.
    pub fn look_around(&mut self) {
        if let Self::Fanotify(source) = self {
            source.look_around();
        }
    }

    /// Stops watching files.
    ///
    /// # Errors
    /// [`SourceError::MapAccess`].
    pub fn unwatch(&mut self, files: Vec<FileId>) -> Result<(), SourceError> {
        match self {
            Self::Ebpf(source) => source.unwatch(files),
            Self::Fanotify(source) => {
                source.unwatch(files);
                Ok(())
            }
        }
    }

    /// Hands over at most `most` events; returns how many. Fewer than `most` means that there are none left.
    pub fn drain(&mut self, most: usize, take: impl FnMut(AccessEvent)) -> usize {
        match self {
            Self::Ebpf(source) => source.drain(most, take),
            Self::Fanotify(source) => source.drain(most, take),
        }
    }

    /// Takes what a process did in some files since the last time.
    pub fn take_counts(&mut self, process: u32, concerns: impl Fn(FileId) -> bool) -> Vec<ThreadCounts> {
        match self {
            Self::Ebpf(source) => source.take_counts(process, concerns),
            Self::Fanotify(source) => source.take_counts(process, concerns),
        }
    }

    /// Bytes that a process has brought into the page cache of the files that `concerns` wants, the kernel's readahead for it included.
    pub fn added_by(&self, process: u32, concerns: impl Fn(FileId) -> bool) -> u64 {
        match self {
            Self::Ebpf(source) => source.added_by(process, concerns),
            Self::Fanotify(source) => source.added_by(process, concerns),
        }
    }

    /// Forgets what was counted of threads that have ended without our hearing of it.
    pub fn sweep(&mut self, lives: impl Fn(u32) -> bool) {
        match self {
            Self::Ebpf(source) => source.sweep(lives),
            Self::Fanotify(source) => source.sweep(lives),
        }
    }

    /// The counters, and events received.
    ///
    /// # Errors
    /// [`SourceError::MapAccess`].
    pub fn counters(&self) -> Result<(Counters, u64), SourceError> {
        match self {
            Self::Ebpf(source) => source.counters(),
            Self::Fanotify(source) => Ok(source.counters()),
        }
    }

    /// How many files are watched, and how many could be.
    pub fn usage(&self) -> Usage {
        match self {
            Self::Ebpf(source) => source.usage(),
            Self::Fanotify(source) => source.usage(),
        }
    }

    /// By eBPF program: hits that the kernel refused to it.
    pub fn recursion_misses(&self) -> HashMap<String, u64> {
        match self {
            Self::Ebpf(source) => source.recursion_misses(),
            Self::Fanotify(_) => HashMap::new(),
        }
    }
}

impl AsFd for EventSource {
    /// Readable when there are events.
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Ebpf(source) => source.as_fd(),
            Self::Fanotify(source) => source.as_fd(),
        }
    }
}
