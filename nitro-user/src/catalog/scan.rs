//! Looking through the roots, and through parts of them again.
//!
//! In: directories to list. Out: an up-to-date table. A full scan lists on several threads, while the thread that owns the
//! table puts in what they find; a directory that changed is listed on that thread. Looking again at a directory that
//! is known removes what is no longer there.
//!
//! It follows no link, enters no pseudo file system, and goes at most [`MOST_DEPTH`] levels down.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    io,
    sync::{
        Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use nix::{errno::Errno, sys::inotify::Inotify};

use super::{
    Catalog,
    delta::Delta,
    identity::Devices,
    listing::{Job, Listing, Names, Watching, list},
    refused::is_refusal,
    table::{DirNumber, Found, MOST_NAMES, NONE, NodeNumber},
};
use crate::units::FileId;

/// Levels below a root that are looked at.
pub(super) const MOST_DEPTH: u32 = 64;

/// Listings on their way to the table. Two for each thread keep it from waiting; each holds at most 2048 names.
const MOST_ON_THEIR_WAY: usize = 16;

/// Longest that the thread lists directories without hearing of anything else: a large tree that is moved in must not make deletions wait.
const SLICE: Duration = Duration::from_millis(100);

/// How far a scan goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// Everything below, again where it is known already.
    Everything,
    /// The directories that are asked for, and everything below directories that are new.
    New,
}

/// What a scan needs besides the catalog.
#[derive(Clone, Copy)]
pub(super) struct Means<'a> {
    /// Adds watches, when changes are followed.
    pub inotify: Option<&'a Inotify>,
    /// Ends the scan early.
    pub stop: &'a AtomicBool,
}

/// A scan under way: the owner's side.
struct Scan<'a> {
    catalog: &'a mut Catalog,
    delta: &'a mut Delta,
    reach: Reach,
    /// Directories to list next.
    jobs: Vec<Job>,
    /// For directories that were known: the nodes that were not seen again so far.
    unseen: HashMap<DirNumber, HashSet<NodeNumber>>,
    /// Directories that turned out to be known under another path; their names are ignored.
    ignored: HashMap<DirNumber, (u32, u64)>,
    /// When the slice is over.
    until: Option<Instant>,
}

impl Catalog {
    /// Lists `dirs` and, depending on `reach`, what is below them; see [`Catalog::look_at`].
    pub(super) fn look_through(
        &mut self,
        dirs: &[DirNumber],
        reach: Reach,
        means: Means<'_>,
        delta: &mut Delta,
    ) -> Vec<DirNumber> {
        self.look_at(&[], dirs, reach, means, delta)
    }

    /// Puts in what was found at single names, and lists `dirs` and the directories among those names that are new. With
    /// [`Reach::New`] it stops after [`SLICE`], and returns the directories that are still to be listed.
    pub(super) fn look_at(
        &mut self,
        names: &[(DirNumber, Names)],
        dirs: &[DirNumber],
        reach: Reach,
        means: Means<'_>,
        delta: &mut Delta,
    ) -> Vec<DirNumber> {
        let mut scan = Scan {
            catalog: self,
            delta,
            reach,
            jobs: Vec::new(),
            unseen: HashMap::new(),
            ignored: HashMap::new(),
            until: (reach == Reach::New).then(|| Instant::now() + SLICE),
        };
        for (dir, names) in names {
            names.iter().for_each(|(name, found)| scan.name(*dir, name, found));
            // Their names have just come: whatever the times say, they may still be written to.
            scan.enter(*dir, names.files(false));
        }
        dirs.iter().for_each(|dir| scan.want(*dir));
        match reach {
            Reach::Everything => scan.run_on_threads(means),
            Reach::New => scan.run_here(means),
        }
        scan.look_again_at_moved(means);
        scan.jobs.into_iter().map(|job| job.dir).collect()
    }
}

impl Catalog {
    /// Directories that were ignored since they were known under another path, and are not any more.
    pub(super) fn take_single(&mut self) -> Vec<DirNumber> {
        let table = &self.table;
        let mut single = Vec::new();
        self.doubles.retain(|dir, identity| {
            let is_other = table.dir(*dir).is_some_and(|known| known.identity != Some(*identity));
            let known_elsewhere = table.dir_by_identity(*identity).is_some();
            if is_other && !known_elsewhere {
                single.push(*dir);
            }
            is_other && known_elsewhere
        });
        single
    }
}

impl Scan<'_> {
    /// Asks for a directory to be listed.
    fn want(&mut self, dir: DirNumber) {
        let Some(job) = self.catalog.job(dir) else { return };
        let known: HashSet<_> = self.catalog.table.children(dir).collect();
        if !known.is_empty() {
            self.unseen.insert(dir, known);
        }
        self.jobs.push(job);
    }

    fn run_here(&mut self, means: Means<'_>) {
        let devices = self.catalog.devices.clone();
        while self.until.is_none_or(|until| until > Instant::now()) {
            let Some(job) = self.jobs.pop() else { return };
            if means.stop.load(Ordering::Relaxed) {
                return;
            }
            list(&job, &devices, means.inotify, &mut |listing| {
                self.take(listing);
                !means.stop.load(Ordering::Relaxed)
            });
        }
    }

    /// A directory was taken for one that is known elsewhere, but that one went away meanwhile: it was moved here.
    fn look_again_at_moved(&mut self, means: Means<'_>) {
        let ignored = std::mem::take(&mut self.ignored);
        for (dir, identity) in ignored {
            if self.catalog.table.dir_by_identity(identity).is_none() {
                self.want(dir);
            }
        }
        self.run_here(means);
    }

    fn run_on_threads(&mut self, means: Means<'_>) {
        // More threads than processors: on a disk they wait most of the time.
        let threads = thread::available_parallelism().map_or(2, |count| (count.get() * 2).clamp(2, 8));
        let (queue, devices) = (Queue::default(), self.catalog.devices.clone());
        let (sender, listings) = sync_channel(MOST_ON_THEIR_WAY);
        thread::scope(|scope| {
            for _ in 0..threads {
                let (queue, devices, sender) = (&queue, &*devices, sender.clone());
                scope.spawn(move || work(queue, devices, means, &sender));
            }
            drop(sender);
            let mut open = self.hand_out(&queue);
            while open > 0 && !means.stop.load(Ordering::Relaxed) {
                let Ok(message) = listings.recv() else { break };
                match message {
                    Message::Listing(listing) => self.take(listing),
                    Message::Done => open -= 1,
                }
                open += self.hand_out(&queue);
            }
            queue.close();
            // Unblocks threads that still want to hand something over.
            drop(listings);
        });
    }

    fn hand_out(&mut self, queue: &Queue) -> usize {
        let count = self.jobs.len();
        if count > 0 {
            queue.add(self.jobs.drain(..));
        }
        count
    }

    fn take(&mut self, listing: Listing) {
        match listing {
            Listing::Opened {
                dir,
                identity,
                watching,
            } => self.opened(dir, identity, watching),
            Listing::Names { dir, names } if !self.ignored.contains_key(&dir) => {
                for (name, found) in names.iter() {
                    self.name(dir, name, found);
                }
                self.enter(dir, names.files(true));
            }
            Listing::Names { .. } => {}
            Listing::Complete { dir } => self.sweep(dir),
            Listing::Failed { dir, error } => self.failed(dir, &error),
            Listing::Veiled { dir } => {
                let path = self.catalog.path_of_dir(dir);
                self.catalog.warnings.once("overlay", || {
                    format!(
                        "{path:?} is on an overlay whose layers cannot be reached from here: nobody is seen to read its files; \
                         --watch the directory of the layer that holds them"
                    )
                });
            }
            Listing::Pseudo { dir } => {
                self.unseen.remove(&dir);
                self.catalog.table.empty(dir, self.delta);
                if self.catalog.table.dir(dir).is_some_and(|dir| dir.node == NONE) {
                    let path = self.catalog.path_of_dir(dir);
                    let text = || format!("{path:?} is a pseudo file system: nothing in it can be watched");
                    self.catalog.warnings.once(&path.to_string_lossy(), text);
                }
            }
        }
    }

    fn opened(&mut self, dir: DirNumber, identity: (u32, u64), watching: Watching) {
        let Some(known) = self.catalog.table.dir(dir).map(|known| (known.identity, known.watch)) else {
            self.ignored.insert(dir, identity);
            return;
        };
        if self.catalog.is_exchanged(dir, identity) {
            self.ignored.insert(dir, identity);
            return;
        }
        if self
            .catalog
            .table
            .dir_by_identity(identity)
            .is_some_and(|other| other != dir)
        {
            // The same directory under another path (a bind mount, a root inside a root): its files are known.
            self.ignored.insert(dir, identity);
            self.catalog.doubles.insert(dir, identity);
            self.unseen.remove(&dir);
            self.catalog.table.empty(dir, self.delta);
            self.catalog.table.set_unknown(dir, self.delta);
            return;
        }
        if known.0.is_some_and(|before| before != identity) {
            // Another directory, or another file system, stands here now.
            self.unseen.remove(&dir);
            self.catalog.table.empty(dir, self.delta);
        }
        let watch = match watching {
            Watching::By(watch) | Watching::InPart(watch) => Some(watch),
            Watching::Unasked => known.1,
            Watching::Exhausted | Watching::Refused => None,
        };
        self.catalog.watching(dir, watching);
        if !self.catalog.refused.is_empty() {
            self.catalog.admit(&self.catalog.path_of_dir(dir));
        }
        self.catalog.table.set_opened(dir, identity, watch, self.delta);
    }

    fn name(&mut self, dir: DirNumber, name: &[u8], found: Found<'_>) {
        let depth = self.catalog.table.dir(dir).map_or(MOST_DEPTH, |dir| dir.depth);
        if matches!(found, Found::Directory) && depth >= MOST_DEPTH {
            self.catalog.warnings.once("depth", || {
                format!("directories more than {MOST_DEPTH} levels below a root are not watched: give one of them as --watch")
            });
            return;
        }
        let known = self.catalog.table.child(dir, name);
        if known.is_none() && self.catalog.is_crowded(dir) {
            return;
        }
        let Some(node) = self.catalog.table.put(dir, name, found, self.delta) else {
            self.catalog.warnings.once("names", || {
                format!("more than {MOST_NAMES} names below the roots: the rest is not watched; give narrower roots")
            });
            return;
        };
        if let Some(unseen) = self.unseen.get_mut(&dir) {
            unseen.remove(&node);
            // The slot of what stood there is free again and may be somebody else's.
            if known != Some(node) {
                known.map(|known| unseen.remove(&known));
            }
        }
        if let Some(below) = self.catalog.table.as_dir(node)
            && (self.reach == Reach::Everything || known != Some(node))
        {
            self.want(below);
        }
    }

    /// Follows files that may still be written to.
    fn enter(&mut self, dir: DirNumber, files: impl Iterator<Item = FileId>) {
        let now = Instant::now();
        for file in files {
            if let Some(seen) = self.catalog.table.state(file) {
                self.catalog.growing.enter(file, dir, seen, now);
            }
        }
    }

    /// All names of `dir` were told: what was known and not seen is gone.
    fn sweep(&mut self, dir: DirNumber) {
        for node in self.unseen.remove(&dir).unwrap_or_default() {
            self.catalog.table.remove(node, self.delta);
        }
    }

    fn failed(&mut self, dir: DirNumber, error: &io::Error) {
        self.unseen.remove(&dir);
        let gone = [
            Errno::ENOENT,
            Errno::ENOTDIR,
            Errno::ELOOP,
            Errno::ESTALE,
            Errno::ENODEV,
        ]
        .map(|errno| errno as i32);
        if error.raw_os_error().is_some_and(|errno| gone.contains(&errno)) {
            self.catalog.table.empty(dir, self.delta);
            if let Some(node) = self
                .catalog
                .table
                .dir(dir)
                .map(|dir| dir.node)
                .filter(|node| *node != NONE)
            {
                self.catalog.table.remove(node, self.delta);
            }
            return;
        }
        if is_refusal(error) && self.catalog.refuse_dir(dir, self.delta) {
            return;
        }
        let path = self.catalog.path_of_dir(dir);
        self.catalog
            .warnings
            .say(|| format!("cannot list {path:?}: {error}; its files are not watched"));
    }
}

enum Message {
    Listing(Listing),
    Done,
}

/// Directories waiting for a thread.
#[derive(Default)]
struct Queue {
    jobs: Mutex<(VecDeque<Job>, bool)>,
    more: Condvar,
}

impl Queue {
    fn add(&self, jobs: impl Iterator<Item = Job>) {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).0.extend(jobs);
        self.more.notify_all();
    }
    fn close(&self) {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).1 = true;
        self.more.notify_all();
    }
    /// The next job, or `None` when there will be none.
    fn next(&self) -> Option<Job> {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if jobs.1 {
                return None;
            }
            if let Some(job) = jobs.0.pop_front() {
                return Some(job);
            }
            jobs = self.more.wait(jobs).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

fn work(queue: &Queue, devices: &Devices, means: Means<'_>, sender: &SyncSender<Message>) {
    while let Some(job) = queue.next() {
        list(&job, devices, means.inotify, &mut |listing| {
            !means.stop.load(Ordering::Relaxed) && sender.send(Message::Listing(listing)).is_ok()
        });
        if sender.send(Message::Done).is_err() {
            return;
        }
    }
}
