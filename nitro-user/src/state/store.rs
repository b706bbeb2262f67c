//! What the daemon has of the state: all that was kept, when it starts; and where changes go.

use std::{
    collections::BTreeMap,
    io,
    path::Path,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use super::{
    Notice, StateError,
    database::{Database, Trouble},
    old,
    pending::Key,
    place::{Claim, Found, Place},
    plausible::is_plausible,
    tables::Loaded,
    writer::{Shared, Teller, Writer},
};
use crate::engine::{
    learn::row::{Change, Row},
    plan::device::Knowledge,
};

/// Devices remembered; past it, those heard of longest ago are forgotten.
const MOST_DEVICES: usize = 256;

/// Where changes go.
#[derive(Debug)]
pub struct Store {
    /// What is known of devices, and since when.
    devices: BTreeMap<String, (Knowledge, u64)>,
    /// `None`: nothing is kept.
    writer: Option<Link>,
}

#[derive(Debug)]
struct Link {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

/// What was found in a state directory.
#[derive(Debug)]
pub struct Opened {
    /// Where changes go from now on.
    pub store: Store,
    /// All that was kept: every row with another key, models and programs before what names them, and each that is named is there.
    pub rows: Vec<Row>,
    /// What of it is not there although it was, or is not kept from now on. To be told.
    pub troubles: Vec<StateError>,
}

impl Store {
    /// A store that keeps nothing.
    pub fn forgetful() -> Self {
        Self {
            devices: BTreeMap::new(),
            writer: None,
        }
    }

    /// What `directory` holds; it is made when something is to be kept. Takes seconds at most, whatever is there.
    ///
    /// # Errors
    /// No thread to be had.
    pub fn open(directory: &Path) -> io::Result<Opened> {
        Self::open_telling(
            directory,
            Box::new(|notice| match notice {
                Notice::Trouble(error) => tracing::warn!("{error}"),
                other => tracing::info!("{other}"),
            }),
        )
    }

    /// The same; what happens later is told to `tell`, on another thread.
    ///
    /// # Errors
    /// No thread to be had.
    pub fn open_telling(directory: &Path, tell: Teller) -> io::Result<Opened> {
        let mut writer = Writer::new(Place::new(directory), tell);
        let mut troubles = Vec::new();
        let (mut rows, keeps) = match find(&mut writer) {
            Ok(rows) => (rows, true),
            Err(Refusal { rows, error, keeps }) => {
                troubles.push(error);
                (rows, keeps)
            }
        };
        let mut store = Self::forgetful();
        for row in &rows {
            store.note(row);
        }
        let mut old = old::read(directory);
        // What was learned since goes before it.
        old.rows.retain(|row| match row {
            Row::Device { identity, .. } => !store.devices.contains_key(identity),
            _ => true,
        });
        troubles.extend(old.trouble);
        for row in &old.rows {
            store.note(row);
        }
        rows.extend(old.rows.iter().cloned());
        if keeps {
            writer.taken_over = old.taken_over;
            let shared = Arc::new(Shared::default());
            let inbox = shared.clone();
            let thread = std::thread::Builder::new()
                .name("nitro-state".into())
                .spawn(move || writer.run(&inbox))?;
            store.writer = Some(Link { shared, thread });
            for row in old.rows {
                store.keep(Change::Put(row));
            }
        }
        Ok(Opened { store, rows, troubles })
    }

    /// What is known of a device.
    pub fn recall(&self, identity: &str) -> Option<Knowledge> {
        self.devices.get(identity).map(|(knowledge, _)| *knowledge)
    }

    /// Keeps a change. Never blocks: it is written within seconds, with others, and waits in memory if that cannot be done.
    pub fn keep(&mut self, change: Change) {
        if self.writer.is_none() {
            return;
        }
        match &change {
            Change::Put(row) if !is_plausible(row) => {
                tracing::debug!("not kept, since it cannot be: {row:?}");
                return;
            }
            Change::Put(row) => self.note(row),
            Change::ForgetAll => self.devices.clear(),
            _ => {}
        }
        self.hand_over(|inbox, count| inbox.pending.add(count, change));
        while self.devices.len() > MOST_DEVICES {
            let oldest = self.devices.iter().min_by_key(|(_, (_, at))| *at);
            let Some(oldest) = oldest.map(|(identity, _)| identity.clone()) else {
                break;
            };
            self.devices.remove(&oldest);
            self.hand_over(|inbox, count| inbox.pending.remove(count, Key::Device(oldest)));
        }
    }

    /// Has all that was kept written at once, and waits for it at most so long. Whether it is on disk.
    pub fn flush(&self, patience: Duration) -> bool {
        let Some(Link { shared, .. }) = &self.writer else {
            return false;
        };
        let deadline = Instant::now() + patience;
        let mut inbox = shared.lock();
        let (goal, failures) = (inbox.count, inbox.failures);
        inbox.asked = inbox.written < goal;
        shared.notify();
        while inbox.written < goal && inbox.failures == failures && !inbox.closed && Instant::now() < deadline {
            inbox = shared.wait(inbox, Some(deadline));
        }
        inbox.written >= goal
    }

    /// Devices are known here too.
    fn note(&mut self, row: &Row) {
        if let Row::Device {
            identity,
            knowledge,
            at,
        } = row
        {
            self.devices.insert(identity.clone(), (*knowledge, *at));
        }
    }

    fn hand_over(&self, add: impl FnOnce(&mut super::writer::Inbox, u64)) {
        let Some(Link { shared, .. }) = &self.writer else {
            return;
        };
        let mut inbox = shared.lock();
        if inbox.closed {
            return;
        }
        inbox.count += 1;
        let count = inbox.count;
        let was_empty = inbox.pending.is_empty();
        add(&mut inbox, count);
        drop(inbox);
        if was_empty {
            shared.notify();
        }
    }
}

impl Drop for Store {
    /// Waits until all is written: as long as the disk takes.
    fn drop(&mut self) {
        let Some(Link { shared, thread }) = self.writer.take() else {
            return;
        };
        shared.lock().ended = true;
        shared.notify();
        // A panic in it was already reported by the panic hook.
        let _ = thread.join();
    }
}

/// Why there is less than there was, or nothing is kept.
struct Refusal {
    rows: Vec<Row>,
    error: StateError,
    keeps: bool,
}

/// Finds what was kept, and leaves the database to the writer.
fn find(writer: &mut Writer) -> Result<Vec<Row>, Refusal> {
    let place = &mut writer.place;
    let path = place.database();
    let unreadable = |reason: String| Refusal {
        rows: Vec::new(),
        error: StateError::Unreadable {
            path: path.clone(),
            reason,
        },
        keeps: false,
    };
    let found = place.look().map_err(|error| unreadable(error.to_string()))?;
    if found == Found::Nothing && !place.directory().is_dir() {
        return Ok(Vec::new());
    }
    let claim = place.claim().map_err(|error| unreadable(error.to_string()))?;
    let in_use = |place: &Place, rows| Refusal {
        rows,
        error: StateError::InUse {
            directory: place.directory().to_owned(),
        },
        keeps: false,
    };
    let trouble = match found {
        Found::Nothing if claim == Claim::Taken => return Err(in_use(place, Vec::new())),
        Found::Nothing => return Ok(Vec::new()),
        Found::Strange(what) => Trouble::Strange(what.into()),
        Found::Database(identity) => {
            let resolved = place.resolved().map_err(|error| unreadable(error.to_string()))?;
            match Database::open(&resolved) {
                Ok((_, Loaded { rows, .. })) if claim == Claim::Taken => return Err(in_use(place, rows)),
                Ok((database, loaded)) => {
                    let Loaded { rows, tallies, dropped } = loaded;
                    if dropped > 0 {
                        tracing::debug!("{dropped} rows of {path:?} cannot be: they are left out");
                        writer.mended = Some(rows.clone());
                    }
                    writer.database = Some((database, identity));
                    writer.tallies = tallies;
                    return Ok(rows);
                }
                Err(trouble) => trouble,
            }
        }
    };
    match trouble {
        Trouble::Unreadable(reason) => Err(unreadable(reason)),
        // Its owner will see to it.
        Trouble::Strange(_) if claim == Claim::Taken => Err(in_use(place, Vec::new())),
        Trouble::Strange(reason) => {
            let (error, keeps) = match place.put_aside() {
                Ok(kept) => (StateError::Unknown { path, reason, kept }, true),
                Err(source) => (StateError::Stuck { path, reason, source }, false),
            };
            Err(Refusal {
                rows: Vec::new(),
                error,
                keeps,
            })
        }
    }
}
