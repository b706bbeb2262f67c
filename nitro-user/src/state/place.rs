//! The state directory and the names in it: whose they are, what they are, and who may write.
//!
//! Somebody else may have put there what he likes. A link is not followed, a fifo is not waited for, and a file of somebody else's is not taken for ours: a journal is
//! played back by whoever opens its database, and can name other files.

use std::{
    fs::{self, File, Metadata, TryLockError},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// The database.
pub const NAME: &str = "state.db";

/// What lies beside a database while it is written, by what its name has in addition.
const BESIDE: [&str; 3] = ["-journal", "-wal", "-shm"];

/// Larger than anything that is written here.
pub const MOST_BYTES: u64 = 1 << 30;

/// How long one waits for an agent that is about to end: longer than that waits for its disk.
const ENDING: Duration = Duration::from_secs(3);

/// Which file, beyond its name.
pub type Identity = (u64, u64);

/// A state directory.
#[derive(Debug)]
pub struct Place {
    directory: PathBuf,
    /// The directory, locked: of two agents with one directory the second writes nothing, since both would give the same numbers to other models.
    lock: Option<(File, Identity)>,
}

/// What is there under the database's name.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    Nothing,
    /// A file of ours, and which.
    Database(Identity),
    /// Something else, in words.
    Strange(&'static str),
}

/// Whether the directory is ours alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    Ours,
    /// Another agent has it.
    Taken,
}

impl Place {
    /// The state directory `directory`, which need not be there.
    pub fn new(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            lock: None,
        }
    }

    /// Where it is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The database's path, there or not.
    pub fn database(&self) -> PathBuf {
        self.directory.join(NAME)
    }

    /// The same without a link in it, as SQLite is given it, which follows none.
    ///
    /// # Errors
    /// The directory is not there, or cannot be looked through.
    pub fn resolved(&self) -> io::Result<PathBuf> {
        Ok(self.directory.canonicalize()?.join(NAME))
    }

    /// Makes the directory where it is missing.
    ///
    /// # Errors
    /// Why it cannot be made.
    pub fn make(&self) -> io::Result<()> {
        fs::create_dir_all(&self.directory)
    }

    /// Takes the directory for this agent alone, until this value is dropped or the process ends, however it does.
    ///
    /// # Errors
    /// It is not there, or cannot be opened.
    pub fn claim(&mut self) -> io::Result<Claim> {
        let identity = identity(&self.directory.metadata()?);
        if self.lock.as_ref().is_some_and(|(_, ours)| *ours == identity) {
            return Ok(Claim::Ours);
        }
        let folder = File::open(&self.directory)?;
        let began = Instant::now();
        while let Err(TryLockError::WouldBlock) = folder.try_lock() {
            if began.elapsed() >= ENDING {
                return Ok(Claim::Taken);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        // A file system that has no such locks is left to the database's own.
        self.lock = Some((folder, identity));
        Ok(Claim::Ours)
    }

    /// Looks what is there.
    ///
    /// # Errors
    /// The directory cannot be looked through; that it is not there is none.
    pub fn look(&self) -> io::Result<Found> {
        let Some(found) = metadata(&self.database())? else {
            return Ok(Found::Nothing);
        };
        if let Some(strange) = strange(&found) {
            return Ok(Found::Strange(strange));
        }
        for path in BESIDE.map(|suffix| beside(&self.database(), suffix)) {
            // Nor another name of something that is ours: it would be written to.
            if metadata(&path)?.is_some_and(|found| strange(&found).is_some() || found.nlink() > 1) {
                return Ok(Found::Strange("what lies beside it is no file of the agent's"));
            }
        }
        Ok(Found::Database(identity(&found)))
    }

    /// Makes an empty database under a name that is free, readable by its owner alone.
    ///
    /// # Errors
    /// Why it cannot be made; `AlreadyExists`.
    pub fn create(&self) -> io::Result<Identity> {
        // A journal without its database belongs to one that is gone, and would be played back into this one.
        for path in BESIDE.map(|suffix| beside(&self.database(), suffix)) {
            remove(&path)?;
        }
        let mut options = File::options();
        options.write(true).create_new(true).mode(0o600);
        let made = options.open(self.database())?;
        Ok(identity(&made.metadata()?))
    }

    /// Removes a database that was begun and is not complete.
    pub fn discard(&self) {
        for path in [self.database()]
            .into_iter()
            .chain(BESIDE.map(|suffix| beside(&self.database(), suffix)))
        {
            // What stays is looked at when the next one is made.
            let _ = remove(&path);
        }
    }

    /// Gives what is there another name, with what lies beside it. One that was put aside before goes: there is never more than one. Where it is now.
    ///
    /// # Errors
    /// Why not; it has its old name then.
    pub fn put_aside(&self) -> io::Result<PathBuf> {
        let (path, kept) = (self.database(), aside(&self.database()));
        for old in [kept.clone()]
            .into_iter()
            .chain(BESIDE.map(|suffix| beside(&kept, suffix)))
        {
            // Whether that matters, the renames say.
            let _ = remove(&old);
        }
        fs::rename(&path, &kept)?;
        for suffix in BESIDE {
            let (from, to) = (beside(&path, suffix), beside(&kept, suffix));
            if metadata(&from)?.is_some() {
                fs::rename(from, to)?;
            }
        }
        Ok(kept)
    }
}

/// The name under which something is put aside.
pub fn aside(path: &Path) -> PathBuf {
    beside(path, ".old")
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn identity(found: &Metadata) -> Identity {
    (found.dev(), found.ino())
}

/// Without following a link; `None` for nothing.
fn metadata(path: &Path) -> io::Result<Option<Metadata>> {
    match path.symlink_metadata() {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes a file of any kind, if it is there; a directory, if it is empty.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::IsADirectory => fs::remove_dir(path),
        done => done,
    }
}

/// Why a file cannot be one that the agent has written.
pub fn strange(found: &Metadata) -> Option<&'static str> {
    let kind = found.file_type();
    let (owner, us) = (found.uid(), nix::unistd::geteuid().as_raw());
    if kind.is_symlink() {
        Some("a symbolic link")
    } else if kind.is_dir() {
        Some("a directory")
    } else if !kind.is_file() {
        Some("no regular file")
    } else if owner != us && owner != 0 {
        Some("it belongs to another user")
    } else if found.len() > MOST_BYTES {
        Some("it is far too large")
    } else {
        None
    }
}
