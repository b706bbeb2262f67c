//! What waits for the thread of a file system.

use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::{Mutex, MutexGuard, PoisonError},
};

use nix::sys::eventfd::{EfdFlags, EventFd};

use super::Opener;
use crate::units::{ByteRange, PinId};

/// Requests that may wait for one file system.
const MOST: usize = 4096;

/// Something to be done.
pub(super) enum Job {
    /// A pin of a file.
    Open { pin: PinId, size: u64, opener: Opener },
    /// Hold a range.
    Hold { pin: PinId, range: ByteRange },
}

impl Job {
    const fn pin(&self) -> PinId {
        match self {
            Self::Open { pin, .. } | Self::Hold { pin, .. } => *pin,
        }
    }
}

/// Why something was not put in.
pub(super) enum Unplaced {
    /// Too much waits.
    Full,
    /// The thread has ended. What was to be put in comes back.
    Ended(Job),
}

/// A pin that is to be let go of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Letting {
    pub(super) pin: PinId,
    /// It has not been opened, and will not be.
    pub(super) unopened: bool,
}

/// What comes next.
pub(super) enum Next {
    /// Let go of these.
    Release(Vec<Letting>),
    /// Do this.
    Do(Job),
    /// Nothing waits.
    Nothing,
    /// End.
    End,
}

#[derive(Default)]
struct Waiting {
    jobs: VecDeque<Job>,
    releases: Vec<Letting>,
    closed: bool,
    ended: bool,
}

/// The queue. Nobody who puts something in waits.
pub(super) struct Jobs {
    waiting: Mutex<Waiting>,
    bell: EventFd,
}

impl std::fmt::Debug for Jobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Jobs {{ {} wait }}", self.lock().jobs.len())
    }
}

impl Jobs {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            waiting: Mutex::default(),
            bell: EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ring(&self) {
        // Full it rings already.
        let _ = self.bell.write(1);
    }

    pub(super) fn push(&self, job: Job) -> Result<(), Unplaced> {
        {
            let mut waiting = self.lock();
            if waiting.ended {
                return Err(Unplaced::Ended(job));
            }
            if waiting.jobs.len() >= MOST {
                return Err(Unplaced::Full);
            }
            waiting.jobs.push_back(job);
        }
        self.ring();
        Ok(())
    }

    /// What waits for the pin does not any more; what is put in from here on does.
    pub(super) fn release(&self, pin: PinId) {
        {
            let mut waiting = self.lock();
            let unopened = |job: &Job| matches!(job, Job::Open { pin: opened, .. } if *opened == pin);
            let unopened = waiting.jobs.iter().any(unopened);
            // A file is opened by its job: none is closed here.
            waiting.jobs.retain(|job| job.pin() != pin);
            waiting.releases.push(Letting { pin, unopened });
        }
        self.ring();
    }

    /// The thread is to end.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.ring();
    }

    /// Whether the thread takes nothing any more.
    pub(super) fn have_ended(&self) -> bool {
        self.lock().ended
    }

    /// For the thread: what comes next. With `idle` it ends if that is nothing.
    pub(super) fn next(&self, idle: bool) -> Next {
        let mut waiting = self.lock();
        if waiting.closed {
            waiting.ended = true;
            return Next::End;
        }
        if !waiting.releases.is_empty() {
            return Next::Release(std::mem::take(&mut waiting.releases));
        }
        match waiting.jobs.pop_front() {
            Some(job) => Next::Do(job),
            None if idle => {
                waiting.ended = true;
                Next::End
            }
            None => Next::Nothing,
        }
    }

    /// For the thread: whether what it does for `pin` is of no use any more.
    pub(super) fn is_off(&self, pin: PinId) -> bool {
        let waiting = self.lock();
        waiting.closed || waiting.releases.iter().any(|letting| letting.pin == pin)
    }

    /// For the thread: whether something is to be let go of before it goes on.
    pub(super) fn is_urgent(&self) -> bool {
        let waiting = self.lock();
        waiting.closed || !waiting.releases.is_empty()
    }

    /// For the thread: drops what waits for pins that are lost.
    pub(super) fn drop_holds(&self, pins: &[PinId]) {
        let mut waiting = self.lock();
        let mut opened = Vec::new();
        waiting.jobs.retain(|job| match job {
            Job::Open { pin, .. } => {
                opened.push(*pin);
                true
            }
            // Of a pin that was made anew meanwhile what comes after that stays.
            Job::Hold { pin, .. } => !pins.contains(pin) || opened.contains(pin),
        });
    }

    /// Readable when something was put in.
    pub(super) fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// It was heard.
    pub(super) fn silence(&self) {
        let _ = self.bell.read();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hold(jobs: &Jobs, pin: u64) {
        let range = ByteRange::new(0, 1);
        assert!(jobs.push(Job::Hold { pin: PinId(pin), range }).is_ok());
    }

    fn open(jobs: &Jobs, pin: u64) {
        let opener: Opener = Box::new(|| Err(io::ErrorKind::NotFound.into()));
        let (pin, size) = (PinId(pin), 1);
        assert!(jobs.push(Job::Open { pin, size, opener }).is_ok());
    }

    fn is_full(jobs: &Jobs) -> bool {
        let (pin, range) = (PinId(0), ByteRange::new(0, 1));
        matches!(jobs.push(Job::Hold { pin, range }), Err(Unplaced::Full))
    }

    fn comes_back(jobs: &Jobs) -> bool {
        let (pin, range) = (PinId(7), ByteRange::new(0, 1));
        matches!(jobs.push(Job::Hold { pin, range }), Err(Unplaced::Ended(job)) if job.pin() == pin)
    }

    fn order(jobs: &Jobs) -> Vec<String> {
        let mut order = Vec::new();
        loop {
            order.push(match jobs.next(false) {
                Next::Release(pins) => {
                    let pins: Vec<String> = pins
                        .iter()
                        .map(|letting| format!("{}{}", letting.pin.0, if letting.unopened { "?" } else { "" }))
                        .collect();
                    format!("release {}", pins.join(" "))
                }
                Next::Do(Job::Hold { pin, .. }) => format!("hold {}", pin.0),
                Next::Do(Job::Open { pin, .. }) => format!("open {}", pin.0),
                Next::Nothing | Next::End => return order,
            });
        }
    }

    #[test]
    fn letting_go_comes_first_and_what_waited_for_it_never() {
        let jobs = Jobs::new().unwrap();
        for pin in [1, 2, 1, 3] {
            hold(&jobs, pin);
        }
        jobs.release(PinId(1));
        assert!(jobs.is_urgent() && jobs.is_off(PinId(1)) && !jobs.is_off(PinId(2)));
        open(&jobs, 1);
        hold(&jobs, 1);
        assert_eq!(order(&jobs), ["release 1", "hold 2", "hold 3", "open 1", "hold 1"]);
        assert!(!jobs.is_urgent());
        open(&jobs, 1);
        jobs.release(PinId(1));
        jobs.release(PinId(2));
        assert_eq!(order(&jobs), ["release 1? 2"]);
    }

    #[test]
    fn of_what_is_lost_only_what_comes_after_another_opening_is_done() {
        let jobs = Jobs::new().unwrap();
        hold(&jobs, 1);
        hold(&jobs, 2);
        open(&jobs, 1);
        hold(&jobs, 1);
        jobs.drop_holds(&[PinId(1)]);
        assert_eq!(order(&jobs), ["hold 2", "open 1", "hold 1"]);
    }

    #[test]
    fn it_is_bounded_and_who_has_ended_takes_nothing() {
        let jobs = Jobs::new().unwrap();
        (0..MOST as u64).for_each(|pin| hold(&jobs, pin));
        assert!(is_full(&jobs));
        assert_eq!(order(&jobs).len(), MOST);
        assert!(matches!(jobs.next(true), Next::End));
        assert!(jobs.have_ended());
        assert!(comes_back(&jobs));
        let jobs = Jobs::new().unwrap();
        hold(&jobs, 1);
        jobs.close();
        assert!(jobs.is_off(PinId(1)));
        assert!(matches!(jobs.next(false), Next::End));
    }
}
