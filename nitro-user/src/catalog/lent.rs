//! Files that are known by their readers alone: below directories that root is refused.
//!
//! In: the directories ([`Refusals`]), and readers of files on their devices. Out: [`CatalogEvent::Described`], as from the catalog. A file is borrowed of its reader, looked at, and let
//! go of; what lies beside it cannot be listed, so that a description is of one file. Asking the server can take for ever: each device has a thread of its own, which nobody waits for.

mod one;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    time::{Duration, Instant},
};

use tokio::sync::mpsc::{Sender, WeakSender};

use super::{
    CatalogEvent,
    exclude::Exclude,
    identity::Devices,
    layout::Refusal as Disbelief,
    model::{Description, Model, Place},
    refused::{Refusal, Refusals},
    service::RequestRefused,
    warning::Warnings,
};
use crate::{
    sys::{
        lent::{Lenders, Lent},
        mounts::{self, Mounts},
    },
    units::FileId,
};

/// Questions that may wait for one device; one that finds no room comes again with the next reader.
const MOST_WAITING: usize = 1024;

/// Files remembered of one device; with one more all are forgotten.
const MOST_FILES: usize = 4096;

/// Devices at once. Whoever may mount FUSE below a watched directory could start a thread with each mount.
const MOST_DEVICES: usize = 64;

/// How long what was borrowed of a new reader is kept: loaders that map a file close it once they have read the header, before they read on.
const KEPT: Duration = Duration::from_secs(5);

/// Descriptors kept so at most.
const MOST_KEPT: usize = 64;

/// How often it is looked whether the lender has ended: the file system is its user's to unmount.
const LOOKED: Duration = Duration::from_millis(200);

/// What a device's thread is asked.
#[derive(Debug)]
enum Ask {
    /// These are the directories now.
    Places(Vec<(Refusal, Exclude)>),
    /// A thread has come to a file of this size in bytes; whether the file is worth holding open for a while.
    Met {
        file: FileId,
        process: u32,
        size: u64,
        keep: bool,
    },
    /// What is it part of?
    Describe(FileId),
    /// Nothing is to be held open.
    LetGo,
    /// Too many files are known.
    Forget,
}

/// A device's thread; it ends when this is dropped, and is not waited for.
#[derive(Debug)]
struct Lane {
    asks: SyncSender<Ask>,
    met: HashSet<FileId>,
}

/// All files that are known by their readers alone.
#[derive(Debug)]
pub struct LentFiles {
    refusals: BTreeMap<usize, Refusals>,
    lanes: BTreeMap<u32, Lane>,
    devices: Arc<Devices>,
    lenders: Lenders,
    events: WeakSender<CatalogEvent>,
}

impl LentFiles {
    /// None yet; answers go to `events`.
    pub fn new(devices: Arc<Devices>, events: &Sender<CatalogEvent>) -> Self {
        Self {
            refusals: BTreeMap::new(),
            lanes: BTreeMap::new(),
            devices,
            lenders: Lenders::default(),
            events: events.downgrade(),
        }
    }

    /// Who lends them.
    pub fn lenders(&self) -> Lenders {
        self.lenders.clone()
    }

    /// The devices that are to be watched as a whole.
    pub fn devices(&self) -> BTreeSet<u32> {
        self.lanes.keys().copied().collect()
    }

    /// What a part of the catalog is refused now. Returns the files that were known on devices on which nothing is refused any more.
    ///
    /// # Errors
    /// Beside them: no thread to be had for some device, or too many devices.
    pub fn refuse(&mut self, refusals: Refusals) -> (Vec<FileId>, io::Result<()>) {
        self.refusals.insert(refusals.part, refusals);
        let mut places: BTreeMap<u32, Vec<(Refusal, Exclude)>> = BTreeMap::new();
        for refusals in self.refusals.values() {
            for place in &refusals.places {
                let place = (place.clone(), refusals.exclude.clone());
                places.entry(place.0.device).or_default().push(place);
            }
        }
        let mut gone = Vec::new();
        self.lanes.retain(|device, lane| {
            let stays = places.contains_key(device);
            if !stays {
                gone.extend(lane.met.drain());
            }
            stays
        });
        self.lenders.forget(&gone);
        let mut done = Ok(());
        for (device, places) in places {
            if !self.lanes.contains_key(&device) {
                match self.start() {
                    Ok(lane) => drop(self.lanes.insert(device, lane)),
                    Err(error) => done = Err(error),
                }
            }
            if let Some(lane) = self.lanes.get(&device) {
                // Full: its server does not answer, and what was refused before stays so for it.
                let _ = lane.asks.try_send(Ask::Places(places));
            }
        }
        (gone, done)
    }

    fn start(&self) -> io::Result<Lane> {
        if self.lanes.len() >= MOST_DEVICES {
            return Err(io::Error::other("root is refused on too many file systems"));
        }
        let (asks, inbox) = sync_channel(MOST_WAITING);
        let readers = Readers {
            places: Vec::new(),
            known: HashMap::new(),
            kept: Vec::new(),
            forgot: false,
            devices: self.devices.clone(),
            lenders: self.lenders.clone(),
            warnings: Warnings::default(),
            events: self.events.clone(),
        };
        let thread = std::thread::Builder::new().name("nitro-lent".into());
        thread.spawn(move || readers.run(&inbox))?;
        let met = HashSet::new();
        Ok(Lane { asks, met })
    }

    /// A thread of `process` has come to a file of `size` bytes; `keep` while files may be held open.
    pub fn met(&mut self, file: FileId, process: u32, size: u64, keep: bool) {
        let Some(lane) = self.lanes.get_mut(&file.device) else {
            return;
        };
        if lane.met.len() >= MOST_FILES && lane.asks.try_send(Ask::Forget).is_ok() {
            lane.met.clear();
        }
        lane.met.insert(file);
        self.lenders.add(file, process);
        let ask = Ask::Met {
            file,
            process,
            size,
            keep,
        };
        let _ = lane.asks.try_send(ask);
    }

    /// Asks what a file is part of; `None` for one that the catalog is to be asked about. Never blocks.
    pub fn describe(&self, file: FileId) -> Option<Result<(), RequestRefused>> {
        let lane = self.lanes.get(&file.device).filter(|lane| lane.met.contains(&file))?;
        Some(
            lane.asks
                .try_send(Ask::Describe(file))
                .map_err(|_| RequestRefused::Busy),
        )
    }

    /// Closes what is kept open.
    pub fn let_go(&self) {
        for lane in self.lanes.values() {
            // Full: it is busy with a server, and lets go in time.
            let _ = lane.asks.try_send(Ask::LetGo);
        }
    }
}

/// What is known of a file.
#[derive(Debug)]
struct Known {
    size: u64,
    /// Who came to it last.
    process: u32,
    answer: Answer,
}

#[derive(Debug)]
enum Answer {
    /// Nobody has asked.
    Open,
    /// Nobody lends it.
    Nothing,
    /// It is none of ours.
    Elsewhere,
    Model(Arc<Model>),
}

/// A file that was borrowed a moment ago.
struct Kept {
    file: FileId,
    lent: Arc<Lent>,
    since: Instant,
}

/// A thread's own state.
struct Readers {
    places: Vec<(Refusal, Exclude)>,
    known: HashMap<FileId, Known>,
    /// What was borrowed a moment ago. Closing asks the server: nobody but this thread does.
    kept: Vec<Kept>,
    /// Files were known of which nothing is known any more.
    forgot: bool,
    devices: Arc<Devices>,
    lenders: Lenders,
    warnings: Warnings,
    events: WeakSender<CatalogEvent>,
}

impl Readers {
    fn run(mut self, inbox: &Receiver<Ask>) {
        loop {
            let ask = if self.kept.is_empty() {
                inbox.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                self.kept
                    .retain(|kept| kept.since.elapsed() < KEPT && !kept.lent.is_orphaned());
                inbox.recv_timeout(LOOKED)
            };
            let ask = match ask {
                Ok(ask) => ask,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let told = match ask {
                Ask::LetGo => {
                    self.kept.clear();
                    true
                }
                Ask::Places(places) => {
                    self.places = places;
                    self.kept.clear();
                    // What was said of files was said of other directories.
                    let told = self.known.iter_mut().filter_map(|(file, known)| {
                        let before = std::mem::replace(&mut known.answer, Answer::Open);
                        (!matches!(before, Answer::Open)).then_some(*file)
                    });
                    let told: Vec<FileId> = told.collect();
                    told.into_iter().all(|file| self.send(CatalogEvent::Changed(file)))
                }
                Ask::Forget => {
                    self.known.clear();
                    self.forgot = true;
                    true
                }
                Ask::Met {
                    file,
                    process,
                    size,
                    keep,
                } => self.met(file, process, size, keep),
                Ask::Describe(file) => {
                    let description = self.describe(file);
                    self.send(CatalogEvent::Described(description, file))
                }
            };
            let warnings = self.warnings.take();
            if !(told && warnings.into_iter().all(|line| self.send(CatalogEvent::Warning(line)))) {
                return;
            }
        }
    }

    /// Tells, and waits while the receiver is behind. False when the agent ends.
    fn send(&self, event: CatalogEvent) -> bool {
        self.events
            .upgrade()
            .is_some_and(|events| events.blocking_send(event).is_ok())
    }

    fn met(&mut self, file: FileId, process: u32, size: u64, keep: bool) -> bool {
        let known = self.known.get(&file).filter(|known| known.size == size);
        if known.is_some_and(|known| matches!(known.answer, Answer::Elsewhere)) {
            return true;
        }
        // While its first page is on its way: some loaders close the file right after their first read.
        if keep && self.kept.iter().all(|kept| kept.file != file) {
            self.keep(file);
        }
        let answer = Answer::Open;
        let Some(before) = self.known.insert(file, Known { size, process, answer }) else {
            return !self.forgot || self.send(CatalogEvent::Changed(file));
        };
        let is_model = matches!(before.answer, Answer::Model(_));
        let (same_file, same_reader) = (before.size == size, before.process == process);
        let asked = !matches!(before.answer, Answer::Open);
        // What was said holds for whoever it was said for; the next load asks again, since changes on a server are not told.
        if is_model
            && same_file
            && same_reader
            && let Some(known) = self.known.get_mut(&file)
        {
            known.answer = before.answer;
        }
        // Another reader may lend what the last one did not; another size is another file.
        is_model && same_file || !asked || self.send(CatalogEvent::Changed(file))
    }

    /// Borrows a file for a while, if it is one that will be described.
    fn keep(&mut self, file: FileId) {
        let Ok(lent) = self.lenders.borrow(file) else { return };
        let Some(place) = self.place_of(file.device, &lent) else {
            return;
        };
        if self.devices.observes_only(file.device, &place.root.join(&place.below)) {
            return;
        }
        if self.kept.len() == MOST_KEPT {
            self.kept.remove(0);
        }
        let (lent, since) = (Arc::new(lent), Instant::now());
        self.lenders.share(file, &lent);
        self.kept.push(Kept { file, lent, since });
    }

    fn describe(&mut self, file: FileId) -> Option<Description> {
        let known = self.known.get(&file)?;
        let (size, process) = (known.size, known.process);
        if matches!(known.answer, Answer::Open) {
            let answer = self.look(file, size, process);
            self.known.get_mut(&file)?.answer = answer;
        }
        let Answer::Model(model) = &self.known.get(&file)?.answer else {
            return None;
        };
        let model = model.clone();
        let position = model.parts.iter().position(|part| part.file == file)?;
        Some(Description {
            file,
            model,
            position,
            written: None,
        })
    }

    /// Borrows a file, and looks what it is.
    fn look(&mut self, file: FileId, size: u64, process: u32) -> Answer {
        let lent = match self.lenders.borrow(file) {
            Ok(lent) => lent,
            Err(error) => {
                self.warnings.once(&format!("{process}"), || {
                    format!("process {process} reads a file where root is refused, and it cannot be borrowed ({error}): it is read without help")
                });
                return Answer::Nothing;
            }
        };
        let Some(place) = self.place_of(file.device, &lent) else {
            return Answer::Elsewhere;
        };
        let path = place.root.join(&place.below);
        let observe_only = self.devices.observes_only(file.device, &path);
        let (model, disbelieved) = one::describe(file, size, place, (!observe_only).then_some(&lent.file));
        for Disbelief { path, reason } in disbelieved {
            self.warnings
                .once(&path.to_string_lossy(), || format!("{path:?} refused: {reason}"));
        }
        Answer::Model(Arc::new(model))
    }

    /// Where a borrowed file is below the directories that were refused; `None` when it is elsewhere, or left out.
    fn place_of(&self, device: u32, lent: &Lent) -> Option<Place> {
        let mounts = Mounts::read(Path::new(mounts::OWN)).ok()?;
        let paths = mounts.places_of(device, &lent.path);
        self.places
            .iter()
            .filter(|(refusal, _)| refusal.device == device)
            .find_map(|(refusal, exclude)| {
                let path = paths.iter().find(|path| path.starts_with(refusal.path()))?;
                place_below(refusal, exclude, path)
            })
    }
}

/// `path` as a place below the root of `refusal`; `None` when it is left out.
fn place_below(refusal: &Refusal, exclude: &Exclude, path: &Path) -> Option<Place> {
    let below = path.strip_prefix(&refusal.root).ok()?;
    let mut above = PathBuf::new();
    for name in below {
        if exclude.covers(&refusal.root, &above, name) {
            return None;
        }
        above.push(name);
    }
    (!exclude.is_unwatched(path)).then(|| Place {
        root: refusal.root.clone(),
        below: below.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal() -> Refusal {
        Refusal {
            device: 44,
            root: Path::new("/home/u").into(),
            below: "store/models".into(),
        }
    }

    #[test]
    fn only_what_is_below_a_refused_directory_and_not_left_out_has_a_place() {
        let patterns = ["*.tmp", "cache/"].map(|text| text.parse().unwrap());
        let exclude = Exclude::new(&patterns).unwrap();
        let exclude = exclude.without(Path::new("/home/u/store/models/old")).unwrap();
        let below = |path: &str| place_below(&refusal(), &exclude, Path::new(path)).map(|place| place.below);
        assert_eq!(below("/home/u/store/models/m.gguf"), Some("store/models/m.gguf".into()));
        for out in [
            "/home/u/store/models/m.tmp",
            "/home/u/store/models/cache/m",
            "/home/u/store/models/old/m",
            "/home/v/m",
        ] {
            assert_eq!(below(out), None, "{out}");
        }
    }

    #[test]
    fn devices_come_and_go_with_what_is_refused() {
        let (tell, mut heard) = tokio::sync::mpsc::channel(16);
        let mut lent = LentFiles::new(Arc::default(), &tell);
        let file = FileId { device: 44, inode: 7 };
        assert!(lent.describe(file).is_none());
        let refusals = |part, places| Refusals {
            part,
            places,
            exclude: Exclude::default(),
        };
        assert!(lent.refuse(refusals(1, vec![refusal()])).0.is_empty());
        assert_eq!(lent.devices(), BTreeSet::from([44]));
        assert!(lent.describe(file).is_none());
        // Nobody can lend it: no process has this number.
        lent.met(file, u32::MAX >> 1, 1 << 30, true);
        assert_eq!(lent.describe(file), Some(Ok(())));
        assert!(matches!(heard.blocking_recv(), Some(CatalogEvent::Described(None, of)) if of == file));
        assert!(matches!(heard.blocking_recv(), Some(CatalogEvent::Warning(_))));
        // Somebody else comes: it is worth asking again.
        lent.met(file, 1, 1 << 30, false);
        assert!(matches!(heard.blocking_recv(), Some(CatalogEvent::Changed(of)) if of == file));
        assert!(lent.refuse(refusals(0, vec![])).0.is_empty());
        assert_eq!(lent.refuse(refusals(1, vec![])).0, [file]);
        assert!(lent.devices().is_empty() && lent.describe(file).is_none());
        // Whoever may mount may mount much.
        let many = (0..=MOST_DEVICES as u32).map(|device| Refusal { device, ..refusal() });
        assert!(lent.refuse(refusals(1, many.collect())).1.is_err());
        assert_eq!(lent.devices().len(), MOST_DEVICES);
    }
}
