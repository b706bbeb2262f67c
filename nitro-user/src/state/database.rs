//! The database file: opened with distrust, looked through within a bounded time, and written in transactions.
//!
//! It has a rollback journal, no write-ahead log: a log takes a file of shared memory, and can be read neither in a directory that cannot be written to nor on a disk
//! that is full. It would save flushes, of which a transaction every few seconds has few. A writer that is killed leaves its journal, which whoever opens the database
//! next plays back.

use std::{
    fmt,
    fs::File,
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    time::{Duration, Instant},
};

use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior, config::DbConfig, limits::Limit};

use super::tables::{self, SCHEMA};
use crate::units::printable;

/// Says in the file that it is the agent's: "nitr".
const APPLICATION: i64 = 0x6e69_7472;

/// Layout of the tables. A change of it is a step in [`Database::examine`], from one version to the next.
const VERSION: i64 = 1;

/// Somebody else's transaction is waited for so long.
const BUSY: Duration = Duration::from_secs(2);

/// Reading a file from its beginning to its end takes so long at most, and looking at what is in it so long again …
const OPENING: Duration = Duration::from_secs(10);

/// … with so long for damage that reading would not come across. All of it takes half a second where all tables are full: `examples/state_million.rs`.
const CHECKING: Duration = Duration::from_secs(3);

/// Instructions of SQLite between two looks at the clock: some ten microseconds.
const LOOK: i32 = 1000;

/// Pages that the file has at most: 512 MiB, more than the bounds of the tables allow.
const MOST_PAGES: i64 = 1 << 17;

/// Memory that SQLite takes at most; it needs some 30 MiB to find the program that has done nothing for longest, and else the 2 MiB of its page cache.
const MOST_MEMORY: usize = 128 << 20;

/// Pages that are free before they are given back, if they are a quarter of all.
const MOST_FREE: i64 = 16;

/// Why a database is of no use.
#[derive(Debug)]
pub enum Trouble {
    /// It is none of ours, or damaged.
    Strange(String),
    /// It cannot be read for now.
    Unreadable(String),
}

impl From<rusqlite::Error> for Trouble {
    fn from(error: rusqlite::Error) -> Self {
        match Kind::of(&error) {
            Kind::Passing if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => {
                Self::Unreadable(format!("it takes more than {} s", OPENING.as_secs()))
            }
            // The kernel has always some to give: it is the bound that was met.
            Kind::Passing if error.sqlite_error_code() == Some(ErrorCode::OutOfMemory) => {
                Self::Strange("it takes too much memory".into())
            }
            Kind::Passing => Self::Unreadable(words(&error)),
            Kind::Damage | Kind::Other => Self::Strange(words(&error)),
        }
    }
}

/// What an error lies with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The machine, or somebody else.
    Passing,
    /// The file.
    Damage,
    /// What was asked of it.
    Other,
}

impl Kind {
    /// That of an error.
    pub fn of(error: &rusqlite::Error) -> Self {
        let Some(code) = error.sqlite_error() else {
            return Self::Other;
        };
        match code.code {
            // The file ends where there should be a page.
            _ if code.extended_code == rusqlite::ffi::SQLITE_IOERR_SHORT_READ => Self::Damage,
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => Self::Damage,
            ErrorCode::PermissionDenied
            | ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::OutOfMemory
            | ErrorCode::ReadOnly
            | ErrorCode::OperationInterrupted
            | ErrorCode::SystemIoFailure
            | ErrorCode::DiskFull
            | ErrorCode::CannotOpen
            | ErrorCode::FileLockingProtocolFailed => Self::Passing,
            _ => Self::Other,
        }
    }
}

/// An error in words, with SQLite's number of it where it has one: of several that the kernel can have meant, that tells which.
pub fn words(error: &rusqlite::Error) -> String {
    let words = match error {
        rusqlite::Error::SqliteFailure(code, Some(text)) => format!("{text}, error {} of SQLite", code.extended_code),
        error => error.to_string(),
    };
    printable(&words)
}

/// An open database with our tables in it.
pub struct Database {
    connection: Connection,
}

impl fmt::Debug for Database {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Database").finish_non_exhaustive()
    }
}

impl Database {
    /// Opens what is at `path`, which has no link in it, and reads all that is kept there; an empty file gets its tables with the first transaction.
    ///
    /// # Errors
    /// [`Trouble`].
    pub fn open(path: &Path) -> Result<(Self, tables::Loaded), Trouble> {
        let in_words = |error: io::Error| Trouble::Unreadable(error.to_string());
        let versions = read_through(path).map_err(in_words)?;
        let began = Instant::now();
        let mut database = Self {
            connection: connect(path)?,
        };
        database.until(Some(began + OPENING))?;
        if database.examine()? {
            // SQLite takes any file for empty that is shorter than a page. What a first transaction has left is rolled back by now.
            if path.metadata().map_err(in_words)?.len() > 0 {
                return Err(Trouble::Strange("no database".into()));
            }
            database.set_up()?;
            database.until(None)?;
            return Ok((database, tables::Loaded::default()));
        }
        // Of another version it would be read and never written, without a word.
        if !matches!(versions, [1, 1] | [2, 2]) {
            return Err(Trouble::Strange("its header is damaged".into()));
        }
        database.set_up()?;
        let soon = (Instant::now() + CHECKING).min(began + OPENING);
        database.until(Some(soon))?;
        database.check()?;
        database.until(Some(began + OPENING))?;
        let loaded = tables::load(&database.connection)?;
        database.until(None)?;
        Ok((database, loaded))
    }

    /// Opens the empty file that was made at `path` for it.
    ///
    /// # Errors
    /// SQLite's.
    pub fn fresh(path: &Path) -> rusqlite::Result<Self> {
        let database = Self {
            connection: connect(path)?,
        };
        database.set_up()?;
        Ok(database)
    }

    /// Work in SQLite that goes on later than this is interrupted.
    fn until(&mut self, deadline: Option<Instant>) -> rusqlite::Result<()> {
        let over = deadline.map(|deadline| move || Instant::now() > deadline);
        self.connection.progress_handler(LOOK, over)
    }

    /// Whether there is nothing in it yet.
    fn examine(&self) -> Result<bool, Trouble> {
        let number = |what| {
            self.connection
                .pragma_query_value(None, what, |row| row.get::<_, i64>(0))
        };
        let (application, version) = (number("application_id")?, number("user_version")?);
        let mut list = self
            .connection
            .prepare("SELECT name, sql FROM sqlite_schema ORDER BY name")?;
        let mut found = list.query(())?;
        let mut wanted: Vec<_> = SCHEMA.to_vec();
        wanted.sort_unstable();
        let mut wanted = wanted.into_iter().peekable();
        let mut is_empty = true;
        let mut is_ours = true;
        while let Some(row) = found.next()? {
            is_empty = false;
            let (name, sql) = (row.get_ref(0)?.as_str_or_null(), row.get_ref(1)?.as_str_or_null());
            is_ours &= wanted.next().is_some_and(|(ours, how)| {
                name.as_ref().is_ok_and(|name| *name == Some(ours)) && sql.as_ref().is_ok_and(|sql| *sql == Some(how))
            });
            if !is_ours {
                break;
            }
        }
        match (application, version) {
            (0, 0) if is_empty => Ok(true),
            (APPLICATION, VERSION) if is_ours && wanted.peek().is_none() => Ok(false),
            (APPLICATION, VERSION) => Err(Trouble::Strange("its tables are others".into())),
            (APPLICATION, later) if later > VERSION => Err(Trouble::Strange(format!(
                "a later version of the agent wrote it: layout {later} instead of {VERSION}"
            ))),
            (APPLICATION, other) => Err(Trouble::Strange(format!("layout {other} instead of {VERSION}"))),
            _ => Err(Trouble::Strange("another program's database".into())),
        }
    }

    /// What holds for this connection.
    fn set_up(&self) -> rusqlite::Result<()> {
        let set = |what: &str, value: &dyn rusqlite::ToSql| {
            // Some answer with the new value.
            self.connection.pragma_update_and_check(None, what, value, |_| Ok(()))
        };
        let set = |what: &str, value: &dyn rusqlite::ToSql| match set(what, value) {
            Err(rusqlite::Error::QueryReturnedNoRows) => Ok(()),
            done => done,
        };
        set("journal_mode", &"DELETE")?;
        set("synchronous", &"FULL")?;
        set("max_page_count", &MOST_PAGES)?;
        // What is removed is overwritten where that costs no further write: paths are nobody else's business.
        set("secure_delete", &"FAST")?;
        self.connection.set_prepared_statement_cache_capacity(32);
        Ok(())
    }

    /// Looks for damage, unless that takes too long: then what is read is looked at all the same.
    fn check(&self) -> Result<(), Trouble> {
        let found = self
            .connection
            .query_row("PRAGMA quick_check(1)", (), |row| row.get::<_, String>(0));
        match found {
            Ok(found) if found == "ok" => Ok(()),
            Ok(found) => Err(Trouble::Strange(first_line(&found))),
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => {
                tracing::debug!("the state was not looked through for damage: it takes more than {CHECKING:?}");
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Begins a transaction, in which the tables are there.
    ///
    /// # Errors
    /// SQLite's.
    pub fn begin(&mut self) -> rusqlite::Result<Transaction<'_>> {
        if self.is_empty()? {
            // To be said before there is a page. Only what is free at the file's end is given back, and only when that is asked for.
            self.connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
        }
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        if transaction.pragma_query_value(None, "application_id", |row| row.get::<_, i64>(0))? == 0 {
            for (_, how) in SCHEMA {
                transaction.execute_batch(how)?;
            }
            transaction.pragma_update(None, "application_id", APPLICATION)?;
            transaction.pragma_update(None, "user_version", VERSION)?;
        }
        Ok(transaction)
    }

    fn is_empty(&self) -> rusqlite::Result<bool> {
        Ok(self.pragma("page_count")? == 0)
    }

    fn pragma(&self, what: &str) -> rusqlite::Result<i64> {
        self.connection.pragma_query_value(None, what, |row| row.get(0))
    }

    /// Gives pages back to the file system that have come free, when they are many.
    ///
    /// # Errors
    /// SQLite's; the pages are used again all the same.
    pub fn shrink(&self) -> rusqlite::Result<()> {
        let (free, all) = (self.pragma("freelist_count")?, self.pragma("page_count")?);
        if free < MOST_FREE || free < all / 4 {
            return Ok(());
        }
        let mut step = self.connection.prepare("PRAGMA incremental_vacuum")?;
        let mut steps = step.query(())?;
        while steps.next()?.is_some() {}
        Ok(())
    }

    /// Copies all of it into `other`, which is empty.
    ///
    /// # Errors
    /// SQLite's.
    pub fn copy_into(&self, other: &mut Self) -> rusqlite::Result<()> {
        let copy = rusqlite::backup::Backup::new(&self.connection, &mut other.connection)?;
        match copy.step(-1)? {
            rusqlite::backup::StepResult::Done => Ok(()),
            _ => Err(rusqlite::Error::SqliteFailure(
                rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY),
                None,
            )),
        }
    }
}

/// Brings the file into the page cache in the order of the disk: its pages are read in that of the keys. The versions of SQLite's that it is for, to be written and to be read:
/// bytes 18 and 19 of <https://sqlite.org/fileformat.html>; 0 where there are none. To be called while SQLite has no lock on the file, which closing it here would end.
fn read_through(path: &Path) -> io::Result<[u8; 2]> {
    let mut options = File::options();
    // A fifo that was put there just now is not waited for.
    let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
    let file = options.read(true).custom_flags(flags).open(path)?;
    let mut file = file.take(super::place::MOST_BYTES);
    let mut header = Vec::new();
    file.by_ref().take(20).read_to_end(&mut header)?;
    let mut block = vec![0; 1 << 20];
    let began = Instant::now();
    while began.elapsed() < OPENING && file.read(&mut block)? > 0 {}
    Ok(header[18.min(header.len())..].try_into().unwrap_or_default())
}

/// A connection that takes nothing in the file for granted and can do no more than is needed here.
fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NOFOLLOW | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    for (what, on) in [
        (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true),
        (DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, false),
        (DbConfig::SQLITE_DBCONFIG_DQS_DDL, false),
        (DbConfig::SQLITE_DBCONFIG_DQS_DML, false),
    ] {
        connection.set_db_config(what, on)?;
    }
    for (limit, most) in [
        (Limit::SQLITE_LIMIT_LENGTH, tables::MOST_LENGTH),
        (Limit::SQLITE_LIMIT_SQL_LENGTH, 1 << 14),
        (Limit::SQLITE_LIMIT_COLUMN, 32),
        (Limit::SQLITE_LIMIT_EXPR_DEPTH, 32),
        (Limit::SQLITE_LIMIT_COMPOUND_SELECT, 4),
        (Limit::SQLITE_LIMIT_FUNCTION_ARG, 8),
        (Limit::SQLITE_LIMIT_ATTACHED, 0),
        (Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 16),
        (Limit::SQLITE_LIMIT_VARIABLE_NUMBER, 16),
        (Limit::SQLITE_LIMIT_TRIGGER_DEPTH, 1),
        (Limit::SQLITE_LIMIT_WORKER_THREADS, 0),
    ] {
        connection.set_limit(limit, most)?;
    }
    // None of these looks at the file. The last one holds for all of SQLite in this process.
    connection.execute_batch(&format!(
        "PRAGMA cell_size_check = ON; PRAGMA mmap_size = 0; PRAGMA temp_store = MEMORY; PRAGMA hard_heap_limit = {MOST_MEMORY}"
    ))?;
    Ok(connection)
}

fn first_line(text: &str) -> String {
    // SQLite's first line names the table's place in the schema.
    let line = text.lines().find(|line| !line.starts_with("***")).unwrap_or(text);
    printable(line)
}
