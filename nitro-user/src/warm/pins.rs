//! Pins: which files are held in memory, and telling the processes that hold them.
//!
//! In: files to hold, ranges of them, and what is to be let go. Out: one [`PinEvent`] for each request. It does not choose what is held or when it goes. No call blocks: all work is done
//! by a thread for each file system that has pins (`nitro-pin`), so that a server that hangs stalls its own alone. Letting go comes before everything that waits, and cuts short what is
//! under way.
//!
//! What is locked is in memory, on an account that its lock can do no harm to, and no more than was allowed in all. Nothing is read for it: who wants a file held warms it first.

mod jobs;
mod post;
mod refusal;

use std::{
    collections::HashMap,
    fs::File,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::mpsc::Sender;

pub use self::refusal::{Refusal, Refused};
use self::{
    jobs::{Job, Jobs, Unplaced},
    post::Post,
};
use super::{
    account::Helpers,
    keeper::{End, Keeper},
    stream,
};
use crate::{
    catalog::model::Part,
    units::{ByteCount, ByteRange, FileId, PinId},
};

/// The threads need little: what is looked at is on the heap.
const STACK: usize = 128 << 10;

/// File systems with pins at once.
const MOST_POSTS: usize = 64;

/// Opens a file. It may block, and holds nothing that blocks when it is dropped unused.
pub type Opener = Box<dyn FnOnce() -> io::Result<File> + Send>;

/// Opens a part by its place, if it is what the catalog said. One that can be had of its readers alone cannot.
pub fn opener(part: &Part) -> Opener {
    let part = part.clone();
    Box::new(move || stream::open_part(&part).map_err(io::Error::other))
}

/// What has become of a request, or of what was held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PinEvent {
    /// A range was gone through, by [`Pins::hold`].
    Held {
        /// Of this pin.
        pin: PinId,
        /// The range that was asked for.
        range: ByteRange,
        /// Bytes of it that are locked now, those before included.
        locked: ByteCount,
        /// Bytes of it that were not in memory.
        missing: ByteCount,
        /// Bytes of it that were in memory and are not locked, and why.
        refused: Option<Refused>,
    },
    /// All of a pin was let go of, as was asked for: the memory can be taken, and of a file without a name the space is free.
    Released {
        /// This pin; it is not known any more.
        pin: PinId,
        /// So much was locked.
        bytes: ByteCount,
    },
    /// All of a pin was let go of unasked: a cgroup that is charged for some of it has been given a limit.
    Withdrawn {
        /// This pin; it is not known any more.
        pin: PinId,
        /// So much was locked.
        bytes: ByteCount,
        /// Why.
        why: Refusal,
    },
    /// A process that held pins has ended: nothing of them is held, and what waited for them, or was under way, is not told of. The next [`Pins::open`] has another one made.
    Lost {
        /// These pins; they are not known any more.
        pins: Vec<PinId>,
        /// So much was locked.
        bytes: ByteCount,
        /// How it ended; by SIGKILL when the kernel took it for want of memory.
        end: End,
    },
}

/// A request that was not taken, since too many wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many pins are waiting to be looked at")]
pub struct Busy;

/// What all threads share.
#[derive(Debug)]
struct Shared {
    keeper: Arc<Keeper>,
    events: Sender<PinEvent>,
    /// Bytes locked, in all.
    held: AtomicU64,
}

impl Shared {
    /// Counts `bytes` if no more is held with them than may be.
    fn take(&self, bytes: u64) -> bool {
        let most = self.keeper.most().0;
        let add = |held: u64| held.checked_add(bytes).filter(|held| *held <= most);
        self.held.fetch_update(Ordering::AcqRel, Ordering::Acquire, add).is_ok()
    }

    fn give_back(&self, bytes: u64) {
        self.held.fetch_sub(bytes, Ordering::AcqRel);
    }
}

/// All pins. Owned by the daemon; no call blocks. Dropped, everything is let go of.
#[derive(Debug)]
pub struct Pins {
    shared: Arc<Shared>,
    posts: HashMap<u32, Arc<Jobs>>,
    /// Which file system each pin is on.
    devices: HashMap<PinId, u32>,
}

impl Pins {
    /// No pins yet; what becomes of them goes to `events`, which the threads wait for when it is full.
    pub fn new(keeper: Keeper, events: Sender<PinEvent>) -> Self {
        let shared = Shared {
            keeper: Arc::new(keeper),
            events,
            held: AtomicU64::new(0),
        };
        Self {
            shared: Arc::new(shared),
            posts: HashMap::new(),
            devices: HashMap::new(),
        }
    }

    /// The processes that hold: the agent's own.
    pub fn processes(&self) -> Helpers {
        self.shared.keeper.processes()
    }

    /// Bytes that are locked.
    pub fn held(&self) -> ByteCount {
        ByteCount(self.shared.held.load(Ordering::Acquire))
    }

    /// Makes a pin of a file, which is opened on the thread of its file system. No process and no memory is taken for it before something of it is held. One that exists is
    /// let go of first, as by [`Pins::release`].
    ///
    /// # Errors
    /// [`Busy`]: there is no such pin then.
    pub fn open(&mut self, pin: PinId, file: FileId, size: u64, opener: Opener) -> Result<(), Busy> {
        self.release(pin);
        let mut job = Job::Open { pin, size, opener };
        if let Some(jobs) = self.posts.get(&file.device) {
            match jobs.push(job) {
                Ok(()) => {
                    self.devices.insert(pin, file.device);
                    return Ok(());
                }
                Err(Unplaced::Full) => return Err(Busy),
                // It had nothing to do.
                Err(Unplaced::Ended(back)) => job = back,
            }
        }
        self.post(file.device, job)?;
        self.devices.insert(pin, file.device);
        Ok(())
    }

    /// Holds a range of a pin's file, as far as it is in memory.
    ///
    /// # Errors
    /// [`Busy`]: there will be no event.
    pub fn hold(&mut self, pin: PinId, range: ByteRange) -> Result<(), Busy> {
        let jobs = self.devices.get(&pin).and_then(|device| self.posts.get(device));
        jobs.ok_or(Busy)?.push(Job::Hold { pin, range }).map_err(|_| Busy)
    }

    /// Lets go of a pin, before anything else that waits: what waits for it is dropped without an event.
    pub fn release(&mut self, pin: PinId) {
        let device = self.devices.remove(&pin);
        if let Some(jobs) = device.and_then(|device| self.posts.get(&device)) {
            jobs.release(pin);
        }
    }

    /// Lets go of all pins.
    pub fn release_all(&mut self) {
        let pins: Vec<PinId> = self.devices.keys().copied().collect();
        pins.into_iter().for_each(|pin| self.release(pin));
    }

    /// Starts the thread of a file system, with something to do: without that it would end.
    fn post(&mut self, device: u32, first: Job) -> Result<(), Busy> {
        self.posts.retain(|_, jobs| !jobs.have_ended());
        if self.posts.len() >= MOST_POSTS {
            return Err(Busy);
        }
        let jobs = Arc::new(Jobs::new().map_err(|_| Busy)?);
        jobs.push(first).map_err(|_| Busy)?;
        let post = Post::new(self.shared.clone(), jobs.clone());
        let thread = std::thread::Builder::new().name("nitro-pin".into()).stack_size(STACK);
        thread.spawn(move || post.run()).map_err(|_| Busy)?;
        self.posts.insert(device, jobs);
        Ok(())
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        // Not waited for: one may hang in a dead file system. Their processes end with them, or with this one.
        self.posts.values().for_each(|jobs| jobs.close());
    }
}
