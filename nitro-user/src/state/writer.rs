//! The thread that owns the database: it takes what has changed every few seconds, and writes it in one transaction.
//!
//! What cannot be written waits, within a bound, and is tried again after a while that doubles. Somebody may take the directory away, fill the disk or damage the file
//! meanwhile: nobody but this thread notices.

use std::{
    fs, io, mem,
    path::PathBuf,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use super::{
    Notice, StateError,
    bounds::{self, BOUNDS, Bound, Tally},
    database::{Database, Kind, words},
    pending::Pending,
    place::{Claim, Found, Identity, Place},
    tables::{self, SCHEMA, WITH_MODELS, WITH_PROGRAMS},
};
use crate::engine::learn::row::Row;

/// Who hears what becomes of the database.
pub type Teller = Box<dyn FnMut(Notice) + Send>;

/// A change waits so long for others that belong to it …
const GATHER: Duration = Duration::from_secs(1);

/// … and so long after the last transaction.
const APART: Duration = Duration::from_secs(5);

/// After a failure it is tried again so much later, twice as much after the next one, …
const AGAIN: Duration = Duration::from_secs(5);

/// … up to this.
const MOST_AGAIN: Duration = Duration::from_mins(5);

/// Between the store and the writer.
#[derive(Debug, Default)]
pub struct Inbox {
    /// What waits.
    pub pending: Pending,
    /// Changes that were taken up.
    pub count: u64,
    /// Those up to here are on disk.
    pub written: u64,
    /// Times that it did not work.
    pub failures: u64,
    /// What waits is to be written at once.
    pub asked: bool,
    /// No more changes come.
    pub ended: bool,
    /// Nothing is written any more, until the next start.
    pub closed: bool,
}

impl Inbox {
    /// Nothing waits.
    fn settle(&mut self) {
        self.written = self.count;
        self.asked = false;
    }
}

/// The same for both threads.
#[derive(Debug, Default)]
pub struct Shared {
    inbox: Mutex<Inbox>,
    changed: Condvar,
}

impl Shared {
    /// The inbox. Both sides hold it for a moment.
    pub fn lock(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the other side.
    pub fn notify(&self) {
        self.changed.notify_all();
    }

    /// Waits to be woken, until `deadline` at most.
    pub fn wait<'a>(&self, inbox: MutexGuard<'a, Inbox>, deadline: Option<Instant>) -> MutexGuard<'a, Inbox> {
        match deadline {
            None => self.changed.wait(inbox).unwrap_or_else(PoisonError::into_inner),
            Some(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now());
                let waited = self.changed.wait_timeout(inbox, left);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
        }
    }
}

/// Why something was not written.
#[derive(Debug)]
enum Failure {
    /// Another time it may be.
    Passing(String),
    /// The database is damaged.
    Damaged(String),
    /// It never will be.
    Refused(String),
    /// Nothing will be, until the agent is started again.
    Final(StateError),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        match Kind::of(&error) {
            Kind::Passing => Self::Passing(words(&error)),
            Kind::Damage => Self::Damaged(words(&error)),
            Kind::Other => Self::Refused(words(&error)),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Passing(error.to_string())
    }
}

/// The writer.
pub struct Writer {
    /// Where the database is.
    pub place: Place,
    /// The database, once there is one, and which file it is.
    pub database: Option<(Database, Identity)>,
    /// It is to be opened again: what was wrong may be so for this connection alone.
    pub stale: bool,
    /// How much is in its tables, at most.
    pub tallies: [Tally; SCHEMA.len()],
    /// How much may be.
    pub bounds: [Bound; SCHEMA.len()],
    /// All that was of use in a database with rows that were not: the rest of them goes when this is written.
    pub mended: Option<Vec<Row>>,
    /// A file that is taken over with the first transaction, and its name afterwards.
    pub taken_over: Option<(PathBuf, PathBuf)>,
    /// Who hears of it.
    pub tell: Teller,
}

impl Writer {
    /// A writer for a directory in which nothing was found.
    pub fn new(place: Place, tell: Teller) -> Self {
        Self {
            place,
            database: None,
            stale: false,
            tallies: Default::default(),
            bounds: BOUNDS,
            mended: None,
            taken_over: None,
            tell,
        }
    }

    /// Writes until the store is dropped.
    pub fn run(mut self, shared: &Shared) {
        // What was taken and is not written yet, up to which change, and how long it was waited after the last failure.
        let (mut held, mut upto, mut pause) = (Pending::default(), 0, Duration::ZERO);
        let mut last: Option<Instant> = None;
        loop {
            let mut inbox = shared.lock();
            let mut due = last.map(|last| last + APART.max(pause));
            if held.is_empty() && self.mended.is_none() {
                while inbox.pending.is_empty() {
                    // Some changes leave nothing to do.
                    inbox.settle();
                    shared.notify();
                    if inbox.ended {
                        return;
                    }
                    inbox = shared.wait(inbox, None);
                }
                due = due.max(Some(Instant::now() + GATHER));
            }
            while !inbox.ended && !inbox.asked && due.is_some_and(|due| Instant::now() < due) {
                inbox = shared.wait(inbox, due);
            }
            let later = inbox.pending.take();
            upto = inbox.count.max(upto);
            inbox.asked = false;
            let ended = inbox.ended;
            drop(inbox);
            held.absorb(later);
            let done = self.write(&held);
            last = Some(Instant::now());
            let path = self.place.database();
            let (mut written, mut closed) = (false, false);
            match done {
                Ok(()) => {
                    if !pause.is_zero() {
                        let lost = held.lost();
                        (self.tell)(Notice::Again { path, lost });
                    }
                    (written, pause, held) = (true, Duration::ZERO, Pending::default());
                }
                Err(Failure::Passing(reason) | Failure::Damaged(reason)) => {
                    if pause.is_zero() {
                        (self.tell)(StateError::Unwritable { path, reason }.into());
                    }
                    pause = (pause * 2).clamp(AGAIN, MOST_AGAIN);
                    self.stale = true;
                }
                Err(Failure::Refused(reason)) => {
                    (self.tell)(StateError::Refused { path, reason }.into());
                    (pause, held, self.mended) = (Duration::ZERO, Pending::default(), None);
                }
                Err(Failure::Final(error)) => {
                    (self.tell)(error.into());
                    closed = true;
                }
            }
            let mut inbox = shared.lock();
            if written {
                inbox.written = upto;
            } else {
                inbox.failures += 1;
            }
            inbox.closed |= closed;
            shared.notify();
            if closed || ended {
                return;
            }
        }
    }

    /// Writes a batch. A database that turns out to be damaged is put aside, and there is another one.
    fn write(&mut self, batch: &Pending) -> Result<(), Failure> {
        match self.commit(batch) {
            Err(Failure::Damaged(reason)) => {
                self.database = None;
                let path = self.place.database();
                let kept = match self.place.put_aside() {
                    Ok(kept) => kept,
                    Err(source) => return Err(Failure::Final(StateError::Stuck { path, reason, source })),
                };
                (self.tell)(StateError::Unknown { path, reason, kept }.into());
                self.commit(batch)
            }
            done => done,
        }
    }

    fn commit(&mut self, batch: &Pending) -> Result<(), Failure> {
        self.find_database()?;
        let Some((database, _)) = &mut self.database else {
            return Ok(());
        };
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        let mut tallies = self.tallies;
        let mut note = |row: &Row| {
            let tally = &mut tallies[bounds::table(row)];
            tally.rows += 1;
            tally.bytes += bounds::width(row);
        };
        let transaction = database.begin()?;
        if batch.clears() || self.mended.is_some() {
            tables::clear(&transaction)?;
        }
        for row in self.mended.iter().flatten().filter(|_| !batch.clears()) {
            // When its number was handed out is no longer known.
            tables::put(&transaction, row, 0)?;
            note(row);
        }
        tables::forget(&transaction, batch.forgotten(), WITH_MODELS)?;
        tables::forget(&transaction, batch.forgotten_programs(), WITH_PROGRAMS)?;
        // In the order of the keys, and so of the pages.
        let mut rows: Vec<_> = batch.rows().collect();
        rows.sort_unstable_by_key(|(key, _)| *key);
        for (key, row) in rows {
            match row {
                Some(row) => {
                    tables::put(&transaction, row, now)?;
                    note(row);
                }
                None => tables::remove(&transaction, key)?,
            }
        }
        bounds::keep(&transaction, &self.bounds, &mut tallies)?;
        transaction.commit()?;
        self.tallies = tallies;
        self.mended = None;
        if let Some((from, to)) = self.taken_over.take() {
            // If that cannot be done, it is taken over once more, and what was learned since goes before it.
            let _ = fs::rename(from, to);
        }
        if let Err(error) = database.shrink() {
            tracing::debug!("the state's file is larger than it need be: {error}");
        }
        Ok(())
    }

    /// Sees to it that there is a database where it belongs: makes one, or brings it back if it was taken away.
    fn find_database(&mut self) -> Result<(), Failure> {
        let found = self.place.look()?;
        if let (Found::Database(found), Some((database, ours))) = (&found, &mut self.database)
            && found == ours
        {
            if mem::take(&mut self.stale) {
                *database = Database::fresh(&self.place.resolved()?)?;
            }
            return Ok(());
        }
        let path = self.place.database();
        if found != Found::Nothing {
            // Another agent's, or one that somebody put there: its numbers mean other models than ours.
            return Err(Failure::Final(StateError::Replaced { path }));
        }
        self.place.make()?;
        if self.place.claim()? == Claim::Taken {
            let directory = self.place.directory().to_owned();
            return Err(Failure::Final(StateError::InUse { directory }));
        }
        let identity = self.place.create()?;
        let made = self.fill();
        match made {
            Ok(fresh) => {
                if self.database.is_some() {
                    (self.tell)(Notice::BroughtBack { path });
                } else {
                    self.tallies = Default::default();
                }
                self.database = Some((fresh, identity));
                Ok(())
            }
            Err(failure) => {
                self.place.discard();
                Err(failure)
            }
        }
    }

    /// The database that was made, with all that is in the one that was taken away.
    fn fill(&self) -> Result<Database, Failure> {
        let mut fresh = Database::fresh(&self.place.resolved()?)?;
        if let Some((before, _)) = &self.database {
            before.copy_into(&mut fresh)?;
        }
        Ok(fresh)
    }
}
