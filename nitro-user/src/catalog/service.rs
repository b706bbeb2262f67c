//! The thread that owns the catalog.
//!
//! In: requests and the kernel's change notifications. Out: [`CatalogEvent`]s. It sleeps in one `poll` and is woken
//! by nothing else. Overflow policies: requests that find the queue full are refused to the caller, who asks again; events are
//! never dropped: while the receiver is behind, the thread waits, and what happens meanwhile queues up in the kernel,
//! whose own overflow leads to a full rescan.

mod outbox;

use std::{
    collections::VecDeque,
    io,
    os::fd::AsFd,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::{Builder, JoinHandle},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        eventfd::{EfdFlags, EventFd},
        inotify::{InitFlags, Inotify},
    },
};
use tokio::sync::mpsc::Sender;

use self::outbox::Outbox;
use super::{
    BATCH, Catalog, CatalogError, CatalogEvent, CatalogRequest, SMALLEST_WATCHED, WatchRoot,
    changes::Pending,
    delta::Delta,
    describe::Whereabouts,
    exclude::Exclude,
    identity::Devices,
    presence::Presence,
    scan::{Means, Reach},
};
use crate::units::FileId;

/// Requests that may wait.
const MOST_WAITING: usize = 1024;

/// How often directories that have no inotify watch are looked at.
const UNCOVERED: Duration = Duration::from_secs(60);

/// Why a request was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestRefused {
    /// The catalog is behind, for example scanning: ask again later.
    #[error("the catalog is busy")]
    Busy,
    /// The service has ended.
    #[error("the catalog has stopped")]
    Stopped,
}

/// The running service. Dropping it stops it as [`CatalogService::stop`] does.
#[derive(Debug)]
pub struct CatalogService {
    requests: mpsc::SyncSender<CatalogRequest>,
    wake: Arc<EventFd>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl CatalogService {
    /// Starts the thread: it scans `roots`, tells what it found, and then follows the changes.
    ///
    /// # Errors
    ///
    /// No eventfd, inotify instance or thread to be had.
    pub fn start(
        roots: Vec<WatchRoot>,
        devices: Arc<Devices>,
        exclude: Exclude,
        events: Sender<CatalogEvent>,
    ) -> Result<Self, CatalogError> {
        Self::start_part(0, roots, devices, exclude, events)
    }

    /// The same as one of several parts (see `parts`), whose number its reports carry.
    ///
    /// # Errors
    ///
    /// As [`Self::start`].
    pub(super) fn start_part(
        part: usize,
        roots: Vec<WatchRoot>,
        devices: Arc<Devices>,
        exclude: Exclude,
        events: Sender<CatalogEvent>,
    ) -> Result<Self, CatalogError> {
        let failed = |operation: &'static str| {
            move |source: io::Error| CatalogError::Service {
                operation,
                source,
                remedy: "raise the limit on open files",
            }
        };
        let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK);
        let wake = Arc::new(wake.map_err(io::Error::from).map_err(failed("create an eventfd"))?);
        let (requests, waiting) = mpsc::sync_channel(MOST_WAITING);
        let stop = Arc::new(AtomicBool::new(false));
        let instances = |source: io::Error| CatalogError::Service {
            operation: "watch for changes with inotify",
            source,
            remedy: "raise fs.inotify.max_user_instances",
        };
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).map_err(io::Error::from);
        let mut service = Service {
            catalog: Catalog::new(&roots, devices, exclude),
            inotify: inotify.map_err(instances)?,
            presence: Presence::new().map_err(instances)?,
            pending: Pending::default(),
            waiting,
            wake: wake.clone(),
            outbox: Outbox {
                events,
                stop: stop.clone(),
            },
            unverified: VecDeque::new(),
            next_look: None,
            report_when_done: false,
        };
        service.catalog.part = part;
        let thread = Builder::new().name("catalog".into()).spawn(move || service.run());
        let thread = thread.map_err(failed("start the catalog's thread"))?;
        Ok(Self {
            requests,
            wake,
            stop,
            thread: Some(thread),
        })
    }

    /// Asks something; never blocks.
    ///
    /// # Errors
    ///
    /// Too much is waiting already, or the service has ended.
    pub fn ask(&self, request: CatalogRequest) -> Result<(), RequestRefused> {
        self.requests.try_send(request).map_err(|refused| match refused {
            mpsc::TrySendError::Full(_) => RequestRefused::Busy,
            mpsc::TrySendError::Disconnected(_) => RequestRefused::Stopped,
        })?;
        // A full counter still wakes; nothing is lost.
        let _ = self.wake.write(1);
        Ok(())
    }

    /// Stops the thread and waits for it: at most one system call on a directory, whether events are received or not.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Release);
        let _ = self.wake.write(1);
        if let Some(thread) = self.thread.take() {
            // A panic in it was already reported by the panic hook.
            let _ = thread.join();
        }
    }
}

impl Drop for CatalogService {
    fn drop(&mut self) {
        self.end();
    }
}

/// The thread's own state.
struct Service {
    catalog: Catalog,
    inotify: Inotify,
    presence: Presence,
    pending: Pending,
    waiting: mpsc::Receiver<CatalogRequest>,
    wake: Arc<EventFd>,
    outbox: Outbox,
    /// Files whose answers rest on more than was looked at again, and the next turn of each.
    unverified: VecDeque<(FileId, usize)>,
    /// When directories without a watch are looked at next.
    next_look: Option<Instant>,
    /// A root was taken up: what is in it is told when nothing is left to be looked at.
    report_when_done: bool,
}

impl Service {
    fn run(mut self) {
        self.presence.watch(self.catalog.anchors(), &self.catalog.devices);
        if !self.scan() {
            return;
        }
        while !self.outbox.stopping() && self.wait() {
            let _ = self.wake.read();
            if !(self.answer() && self.act()) {
                return;
            }
        }
    }

    /// Sleeps until there is something to do, and collects what the kernel tells. False when it cannot.
    fn wait(&mut self) -> bool {
        let due = [self.pending.due(), self.next_look, self.catalog.growing.due()];
        let timeout = match due.into_iter().flatten().min() {
            // Rounded up: a wait that ends a little early would spin.
            Some(due) => PollTimeout::try_from(due.saturating_duration_since(Instant::now()).as_millis() + 1),
            None => Ok(PollTimeout::NONE),
        };
        let mut fds = vec![
            PollFd::new(self.wake.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.inotify.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.presence.above.as_fd(), PollFlags::POLLIN),
        ];
        fds.extend(
            self.presence
                .mounts
                .as_ref()
                .map(|mounts| PollFd::new(mounts.as_fd(), PollFlags::POLLPRI)),
        );
        let first_end = fds.len();
        let ends = self.presence.ends.iter();
        fds.extend(ends.map(|end| PollFd::new(end.as_fd(), PollFlags::POLLIN)));
        match poll(&mut fds, timeout.unwrap_or(PollTimeout::MAX)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return false,
        }
        let ready = |at: usize| fds.get(at).and_then(PollFd::any).unwrap_or(false);
        let has_mounts = self.presence.mounts.is_some();
        let (changes, above, mounts) = (ready(1), ready(2), has_mounts && ready(3));
        let ended: Vec<bool> = (first_end..fds.len()).map(ready).collect();
        let now = Instant::now();
        if changes {
            self.catalog.collect(&self.inotify, &mut self.pending, now);
        }
        let mut number = 0..;
        // Each is heard once: it stays readable.
        self.presence
            .ends
            .retain(|_| number.next().and_then(|number| ended.get(number)) != Some(&true));
        if above && self.presence.drain() || mounts || ended.contains(&true) {
            self.pending.begin(now);
            self.pending.roots = true;
        }
        if mounts {
            self.catalog.devices.forget();
            self.catalog.recheck_refused();
            let changed = self.presence.changed_mounts();
            for dir in self.catalog.directories_at(&changed) {
                self.pending.dir(dir, now);
            }
        }
        true
    }

    /// Answers the requests that wait. False when the service is to end.
    fn answer(&mut self) -> bool {
        loop {
            if !self.answer_waiting() {
                return false;
            }
            // What else the answers rest on is looked at when nobody waits.
            let Some((file, turn)) = self.unverified.pop_front() else {
                return true;
            };
            if let Some(next) = self.catalog.verify(file, turn) {
                self.unverified.push_front((file, next));
            }
            if !self.tell_noticed() {
                return false;
            }
        }
    }

    fn answer_waiting(&mut self) -> bool {
        while let Ok(request) = self.waiting.try_recv() {
            let told = match request {
                CatalogRequest::Describe(file) => {
                    let description = match self.catalog.whereabouts(file) {
                        Whereabouts::There { written } => self.catalog.describe_here(file, written),
                        Whereabouts::Moved if !self.catch_up() => return false,
                        Whereabouts::Moved => self.catalog.describe(file),
                    };
                    if description.is_some() && self.unverified.iter().all(|(other, _)| *other != file) {
                        self.unverified.push_back((file, 1));
                    }
                    // What changed first: the answer is about the file as it is now.
                    self.tell_noticed() && self.outbox.send(CatalogEvent::Described(description, file))
                }
                CatalogRequest::Places(files) => {
                    let place = |file: FileId| Some((file, self.catalog.place(file)?));
                    let places = files.into_iter().filter_map(place).collect();
                    self.outbox.send(CatalogEvent::Places(places))
                }
                CatalogRequest::Match { process, arguments } => {
                    let mut files: Vec<_> = arguments
                        .iter()
                        .filter_map(|argument| self.catalog.match_argument(argument))
                        .collect();
                    files.sort_unstable();
                    files.dedup();
                    files
                        .into_iter()
                        .all(|file| self.outbox.send(CatalogEvent::Matched { process, file }))
                }
                CatalogRequest::Below(number, paths) => {
                    let found = self.catalog.models_at(&paths);
                    self.tell_noticed() && self.outbox.send(CatalogEvent::Below(number, found))
                }
                CatalogRequest::Find(path) => {
                    let description = self.catalog.describe_at(&path);
                    self.tell_noticed() && self.outbox.send(CatalogEvent::Found(path, description))
                }
                CatalogRequest::Unwatch(path) => self.unwatch(&path),
                CatalogRequest::Watch(root) => {
                    self.suggest(root);
                    true
                }
            };
            if !told || self.outbox.stopping() {
                return false;
            }
        }
        true
    }

    /// Takes up a root; it is looked through in slices, since others may wait.
    fn suggest(&mut self, root: WatchRoot) {
        if let Some(dir) = self.catalog.suggest(root) {
            self.presence.watch(self.catalog.anchors(), &self.catalog.devices);
            let now = Instant::now();
            self.pending.go_on([dir], now);
            self.report_when_done = true;
        }
    }

    /// Lets go of everything at or below `path`. False when the service is to end.
    fn unwatch(&mut self, path: &Path) -> bool {
        let mut delta = Delta::recording();
        let left = self.catalog.unwatch(path, &mut delta);
        self.presence.watch(self.catalog.anchors(), &self.catalog.devices);
        // The same directory under another path that is still watched.
        self.pending.go_on(self.catalog.take_single(), Instant::now());
        let report = self.catalog.report();
        self.tell(delta)
            && self.outbox.send(CatalogEvent::Left(path.to_owned(), left))
            && self.outbox.send(CatalogEvent::Scanned(report))
    }

    /// Acts at once on all that has happened so far, as a file was renamed before it was read. False when the service is to end.
    fn catch_up(&mut self) -> bool {
        self.catalog.collect(&self.inotify, &mut self.pending, Instant::now());
        self.pending.hurry();
        self.act()
    }

    fn tell_noticed(&mut self) -> bool {
        let noticed = std::mem::replace(&mut self.catalog.noticed, Delta::recording());
        self.tell(noticed)
    }

    /// Acts on what was collected, once the burst is over. False when the service is to end.
    fn act(&mut self) -> bool {
        let now = Instant::now();
        let mut delta = Delta::recording();
        let means = Means {
            inotify: Some(&self.inotify),
            stop: &self.outbox.stop,
        };
        if self.pending.due().is_some_and(|due| due <= now) {
            let pending = std::mem::take(&mut self.pending);
            // Events were lost, perhaps those of the roots, too.
            let everything = pending.everything;
            let roots = pending.roots || everything;
            let others = roots && self.catalog.check_roots(means, &mut delta);
            if others || roots && self.presence.is_stale(self.catalog.anchors()) {
                self.presence.watch(self.catalog.anchors(), &self.catalog.devices);
                // A root may have come before the new watch was there.
                self.pending.begin(now);
                self.pending.roots = true;
            }
            let rest = self.catalog.apply(pending, means, &mut delta);
            let done = self.report_when_done && rest.is_empty();
            self.pending.go_on(rest, now);
            // Its old place has gone in this batch, and it was listed in an earlier one.
            self.pending.go_on(self.catalog.take_single(), now);
            if everything || others || done {
                self.report_when_done &= !done;
                self.catalog.drop_empty_roots(&mut delta);
                let report = self.catalog.report();
                return self.tell(delta) && self.outbox.send(CatalogEvent::Scanned(report)) && self.plan_look(now);
            }
        }
        if self.catalog.growing.due().is_some_and(|due| due <= now) {
            self.catalog.look_at_growing(now, &mut delta);
            let dirs = self.catalog.growing.take_crowded(now);
            let began = Instant::now();
            let rest = self.catalog.look_through(&dirs, Reach::New, means, &mut delta);
            self.pending.go_on(rest, now);
            self.catalog.growing.rest(began.elapsed());
        }
        if self.next_look.is_some_and(|due| due <= now) {
            let dirs: Vec<_> = self.catalog.uncovered.iter().copied().collect();
            let rest = self.catalog.look_through(&dirs, Reach::New, means, &mut delta);
            self.pending.go_on(rest, now);
            self.next_look = None;
        }
        self.tell(delta) && self.plan_look(now)
    }

    /// Sets when uncovered directories are looked at, given that the last look began at `began`.
    fn plan_look(&mut self, began: Instant) -> bool {
        if self.catalog.uncovered.is_empty() {
            self.next_look = None;
        } else if self.next_look.is_none() {
            // At most one twentieth of the time is spent on looking.
            self.next_look = Some(Instant::now() + UNCOVERED.max(began.elapsed() * 20));
        }
        true
    }

    /// The first scan: everything is new.
    fn scan(&mut self) -> bool {
        let means = Means {
            inotify: Some(&self.inotify),
            stop: &self.outbox.stop,
        };
        let began = Instant::now();
        let mut delta = Delta::default();
        if self.catalog.part == 0 {
            self.catalog.look_through_roots(means, &mut delta);
        } else {
            // Nobody has looked at them yet: see `parts`.
            self.catalog.check_roots(means, &mut delta);
        }
        self.catalog.settle(delta, means);
        let mut batch = Vec::new();
        for (file, size) in self.catalog.files().filter(|(_, size)| *size >= SMALLEST_WATCHED) {
            batch.push((file, size));
            if batch.len() == BATCH && !self.outbox.send(CatalogEvent::Watched(std::mem::take(&mut batch))) {
                return false;
            }
        }
        if !batch.is_empty() && !self.outbox.send(CatalogEvent::Watched(batch)) {
            return false;
        }
        if !self.tell_refused() {
            return false;
        }
        let report = self.catalog.report();
        // A root that appeared during the scan, before it was known to be missing, is found by this.
        self.pending.begin(began);
        self.pending.roots = true;
        self.outbox.send(CatalogEvent::Scanned(report)) && self.plan_look(began)
    }

    /// Tells the net effect of a batch, and what is to be warned of. False when the service is to end.
    fn tell(&mut self, delta: Delta) -> bool {
        let means = Means {
            inotify: Some(&self.inotify),
            stop: &self.outbox.stop,
        };
        let net = self.catalog.settle(delta, means);
        let gone = net
            .unwatched
            .chunks(BATCH)
            .map(|batch| CatalogEvent::Unwatched(batch.to_vec()));
        let come = net
            .watched
            .chunks(BATCH)
            .map(|batch| CatalogEvent::Watched(batch.to_vec()));
        let changed = net.changed.iter().map(|file| CatalogEvent::Changed(*file));
        let warnings = self.catalog.take_warnings().into_iter().map(CatalogEvent::Warning);
        gone.chain(come)
            .chain(changed)
            .chain(warnings)
            .all(|event| self.outbox.send(event))
            && self.tell_refused()
    }

    /// Tells what may not be looked into, if that is news. False when the service is to end.
    fn tell_refused(&mut self) -> bool {
        let news = self.catalog.take_refusals();
        news.is_none_or(|refusals| self.outbox.send(CatalogEvent::Refused(refusals)))
    }
}
