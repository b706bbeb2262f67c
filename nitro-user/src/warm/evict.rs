//! Making room: pages that nobody needs leave the page cache, and pages that are on another's account leave it to be brought in again on ours.
//!
//! In: files, ranges of them, and which processes are the agent's. Out: how much has gone, what has stayed and why. What a process has mapped is never touched, however long nothing
//! of it was read: right before, all processes are looked at, once for all files of a request, and when one cannot be seen nothing is dropped. Each request has a thread of its own
//! (`nitro-evict`): opening a file can hang, and looking at processes takes its time.

use std::{
    fs::File,
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::mpsc::Sender;

use super::{account::Helpers, pins::Opener};
use crate::{
    sys::{
        evict,
        users::{self, Question},
    },
    units::{FileId, Ranges},
};

pub use crate::sys::evict::Evicted;

/// Requests at once. What is dropped is gone through at gigabytes a second; more only wait for servers.
const MOST_THREADS: usize = 8;

/// How long the processes may take to be looked at.
const LOOK: Duration = Duration::from_secs(5);

/// What is to go of a file.
pub struct Eviction {
    /// Which file.
    pub file: FileId,
    /// What of it.
    pub ranges: Ranges,
    /// Opens it.
    pub opener: Opener,
}

/// What has become of one file of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Which file.
    pub file: FileId,
    /// What has gone, and what has stayed; or why nothing was tried, in words.
    pub done: Result<Evicted, String>,
}

/// A request that was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many files are being let go of at once")]
pub struct Busy;

/// Carries requests out. No call blocks.
#[derive(Debug)]
pub struct Evictor {
    outcomes: Sender<Vec<Outcome>>,
    own: Helpers,
    running: Arc<AtomicUsize>,
}

impl Evictor {
    /// Outcomes go to `outcomes`, one message for each request; `own` are the agent's other processes, which use nothing.
    pub fn new(outcomes: Sender<Vec<Outcome>>, own: Helpers) -> Self {
        Self {
            outcomes,
            own,
            running: Arc::default(),
        }
    }

    /// Has files let go of.
    ///
    /// # Errors
    /// [`Busy`]: there will be no outcome.
    pub fn evict(&self, request: Vec<Eviction>) -> Result<(), Busy> {
        let one_more = |running: usize| (running < MOST_THREADS).then_some(running + 1);
        self.running
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more)
            .map_err(|_| Busy)?;
        let (running, outcomes, own) = (self.running.clone(), self.outcomes.clone(), self.own.living());
        let work = move || {
            let done = evict_unused(request, own);
            running.fetch_sub(1, Ordering::AcqRel);
            // Nobody listens only when the agent ends.
            let _ = outcomes.blocking_send(done);
        };
        let thread = std::thread::Builder::new().name("nitro-evict".into()).spawn(work);
        thread.map(drop).map_err(|_| {
            self.running.fetch_sub(1, Ordering::AcqRel);
            Busy
        })
    }
}

/// Carries out a request. It blocks.
pub fn evict_unused(request: Vec<Eviction>, mut own: Vec<u32>) -> Vec<Outcome> {
    own.push(std::process::id());
    // Opened before the processes are looked at: then there is nothing between that and what follows that takes long.
    let opened: Vec<(FileId, Ranges, io::Result<File>)> = request
        .into_iter()
        .map(|eviction| (eviction.file, eviction.ranges, (eviction.opener)()))
        .collect();
    let files: Vec<FileId> = opened.iter().map(|(file, ..)| *file).collect();
    let question = Question {
        files: &files,
        own: &own,
        ..Question::default()
    };
    let found = match users::look(Path::new(users::PROC), &question, LOOK) {
        Ok(found) if found.unseen > 0 => Err(format!(
            "{} processes cannot be seen, which may have it mapped",
            found.unseen
        )),
        found => found.map_err(|error| format!("cannot tell who has it mapped: {error}")),
    };
    let outcomes = opened.into_iter().map(|(file, ranges, opened)| {
        let done = found.as_ref().map_err(Clone::clone).and_then(|found| {
            let opened = opened.map_err(|error| format!("cannot open it: {error}"))?;
            let users = found.users.get(&file).into_iter().flatten();
            let mapped: Ranges = users.flat_map(|user| user.mapped.iter()).collect();
            evict::evict(&opened, &ranges, &mapped).map_err(|error| format!("cannot drop it: {error}"))
        });
        Outcome { file, done }
    });
    outcomes.collect()
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, Write},
        os::unix::fs::MetadataExt,
    };

    use super::*;
    use crate::{
        sys::{measure, page_cache, stat::device_alone},
        units::ByteRange,
    };

    const SIZE: u64 = 4 << 20;
    const HOLDS: &str = "NITRO_HOLDS";

    fn file() -> (tempfile::NamedTempFile, FileId) {
        let mut file = tempfile::NamedTempFile::new_in("/var/tmp").unwrap();
        file.write_all(&vec![7; SIZE as usize]).unwrap();
        file.as_file().sync_all().unwrap();
        let id = FileId {
            device: device_alone(file.as_file()).unwrap(),
            inode: file.as_file().metadata().unwrap().ino(),
        };
        (file, id)
    }

    fn whole(file: &tempfile::NamedTempFile, id: FileId) -> Eviction {
        let path = file.path().to_owned();
        Eviction {
            file: id,
            ranges: [ByteRange::new(0, SIZE)].into_iter().collect(),
            opener: Box::new(move || File::open(path)),
        }
    }

    /// Not a test: another process that has a file mapped, and touches none of it, until its input ends.
    #[test]
    #[ignore = "what a test starts"]
    fn holder() {
        let Some(path) = std::env::var_os(HOLDS) else { return };
        let map = measure::map_file(&File::open(path).unwrap(), false).unwrap();
        println!("{HOLDS}");
        let _ = std::io::stdin().read_line(&mut String::new());
        drop(map);
    }

    #[test]
    fn what_another_process_has_mapped_stays_until_it_ends() {
        let (mapped, id) = file();
        let (free, other) = file();
        let mut holder = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "warm::evict::tests::holder", "--ignored", "--nocapture"])
            .env(HOLDS, mapped.path())
            .stdout(std::process::Stdio::piped())
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = std::io::BufReader::new(holder.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().ends_with(HOLDS)));
        let request = || vec![whole(&mapped, id), whole(&free, other)];
        let done = evict_unused(request(), vec![]);
        let stays = Evicted {
            mapped: SIZE,
            ..Evicted::default()
        };
        assert_eq!(done[0].done, Ok(stays));
        assert_eq!(
            page_cache::resident(mapped.as_file(), ByteRange::new(0, SIZE)).unwrap(),
            SIZE
        );
        let gone = Evicted {
            dropped: SIZE,
            ..Evicted::default()
        };
        assert_eq!(done[1].done, Ok(gone));
        // If it were one of ours, it would be no user; nobody has touched what it has mapped.
        let done = evict_unused(request(), vec![holder.id()]);
        assert_eq!(done[0].done, Ok(gone));
        holder.kill().unwrap();
        holder.wait().unwrap();
    }

    #[test]
    fn a_file_that_cannot_be_opened_keeps_the_others_from_nothing() {
        let (free, id) = file();
        let nowhere = FileId { device: 1, inode: 1 };
        let missing = Eviction {
            file: nowhere,
            ranges: Ranges::default(),
            opener: Box::new(|| Err(io::ErrorKind::NotFound.into())),
        };
        let done = evict_unused(vec![missing, whole(&free, id)], vec![]);
        assert!(done[0].done.as_ref().unwrap_err().contains("cannot open"));
        assert_eq!(done[1].done.as_ref().unwrap().dropped, SIZE);
    }

    #[test]
    fn requests_are_answered_one_by_one() {
        let (free, id) = file();
        let (tell, mut outcomes) = tokio::sync::mpsc::channel(4);
        let evictor = Evictor::new(tell, Helpers::default());
        for _ in 0..2 {
            evictor.evict(vec![whole(&free, id)]).unwrap();
            let outcome = outcomes.blocking_recv().unwrap();
            assert_eq!(outcome[0].file, id);
            assert_eq!(outcome[0].done.as_ref().unwrap().left(), 0);
        }
        measure::drop_pages(free.as_file()).unwrap();
    }
}
