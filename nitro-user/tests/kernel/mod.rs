//! What the tests on the running kernel share: an attached source, a file on a disk, and readers that are other processes, since the
//! agent's own accesses are dropped.
//!
//! A reader is this test binary once more, told by an environment variable to carry out the steps of `reader.rs` on a thread of its own.

// Each test binary uses its part of this.
#![allow(dead_code)]

pub mod reader;

use std::{
    fs::File,
    io::Write,
    os::fd::AsFd,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use nitro_common::{AccessEvent, Counters, CursorState, Hook, flags};
use nitro_user::{
    catalog::identity::Devices,
    source::{
        attach::{Attachment, EventChoice},
        ebpf::{EbpfSource, Options, SourceError},
    },
    sys::stat,
    units::FileId,
};

/// 1 MiB.
pub const MIB: u64 = 1 << 20;

/// One test at a time: they share the kernel's tracepoints, and a loader's memory.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Waits for this test's turn.
pub fn turn() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether the kernel can be asked at all; says so where it cannot. In CI that is a failure.
pub fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        assert!(
            std::env::var_os("CI").is_none_or(|ci| ci != "true"),
            "must run as root in CI"
        );
        eprintln!("skipped: attaching eBPF programs needs root");
    }
    root
}

/// Loads and attaches.
pub fn open(events: EventChoice) -> Result<(EbpfSource, Attachment), SourceError> {
    EbpfSource::open(Options {
        events,
        capacity: 1024,
        empty: false,
        exact: false,
    })
}

/// The attached programs and what they said so far.
pub struct Watcher {
    /// The source.
    pub source: EbpfSource,
    /// How it was attached.
    pub attachment: Attachment,
    /// Everything that came from the ring.
    pub events: Vec<AccessEvent>,
    _turn: MutexGuard<'static, ()>,
}

impl Watcher {
    /// Attaches; `None` after saying why where it cannot be tried. In CI that is a failure.
    pub fn attach(events: EventChoice) -> Option<Self> {
        let turn = turn();
        if !is_root() {
            return None;
        }
        mount_tracefs_if_there_is_none();
        let (source, attachment) = match open(events) {
            Ok(opened) => opened,
            Err(SourceError::NoMode(reason)) if reason.contains("no such tracepoint") => {
                eprintln!("skipped: {reason}");
                return None;
            }
            Err(error) => panic!("{error}"),
        };
        Some(Self {
            source,
            attachment,
            events: Vec::new(),
            _turn: turn,
        })
    }

    /// Starts watching a file.
    pub fn watch(&mut self, file: &TestFile) {
        assert_eq!(self.source.watch([file.id]).unwrap(), 0, "no room in the map");
    }

    /// Runs a reader to its end and takes what the ring holds then: its last event was put there before it could be waited for.
    pub fn run(&mut self, steps: &str) -> u32 {
        self.run_together(1, steps)[0]
    }

    /// The same for several readers at once, who all do the same.
    pub fn run_together(&mut self, count: usize, steps: &str) -> Vec<u32> {
        let start = |_| {
            Command::new(std::env::current_exe().unwrap())
                .args(["reader_process", "--exact", "--nocapture", "--test-threads=1"])
                .env(reader::STEPS, steps)
                .stdout(Stdio::null())
                .spawn()
                .unwrap()
        };
        let readers: Vec<_> = (0..count).map(start).collect();
        let ended = |mut reader: Child| {
            let status = reader.wait().unwrap();
            assert!(status.success(), "the reader failed at {steps:?}");
            reader.id()
        };
        let processes = readers.into_iter().map(ended).collect();
        self.take();
        processes
    }

    /// Takes what the ring holds.
    pub fn take(&mut self) {
        let events = &mut self.events;
        while self.source.drain(4096, |event| events.push(event)) > 0 {}
    }

    /// The events of one process, in order, that `wanted` says yes to.
    pub fn of(&self, process: u32, wanted: impl Fn(Hook) -> bool) -> Vec<AccessEvent> {
        let hook = |event: &AccessEvent| Hook::from_number(event.hook).unwrap();
        let mine = self.events.iter().filter(|event| event.process == process);
        mine.filter(|event| wanted(hook(event))).copied().collect()
    }

    /// The events of one process that stand for accesses.
    pub fn accesses(&self, process: u32) -> Vec<AccessEvent> {
        self.of(process, is_access)
    }

    /// Sums of the cursors of a process in a file, which are removed.
    pub fn counts(&mut self, process: u32, file: &TestFile) -> CursorState {
        let threads = self.source.take_counts(process, |id| id == file.id);
        assert!(threads.iter().all(|counts| counts.state.process == process));
        assert!(threads.len() <= 1, "a reader has one thread that reads: {threads:?}");
        threads.first().map_or(CursorState::EMPTY, |counts| counts.state)
    }

    /// The counters once they agree with each other. Others use the machine meanwhile, and the processors' counters are not read at one
    /// instant: what is looked for is a moment of rest, and a hit that got lost would prevent it for ever.
    pub fn counters_at_rest(&mut self) -> Counters {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            self.take();
            let (sum, received) = self.source.counters().unwrap();
            let outcomes = sum.filtered + sum.coalesced + sum.delivered + sum.dropped;
            if sum.seen == outcomes && received == sum.delivered {
                return sum;
            }
            assert!(Instant::now() < deadline, "{sum:?}, {received} received");
            wait_readable(&self.source, Duration::from_millis(1));
        }
    }
}

fn wait_readable(source: &EbpfSource, most: Duration) {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let timeout = PollTimeout::try_from(most).unwrap();
    let _ = poll(&mut [PollFd::new(source.as_fd(), PollFlags::POLLIN)], timeout);
}

/// Whether a hook stands for an access.
pub fn is_access(hook: Hook) -> bool {
    !matches!(hook, Hook::Add | Hook::Delete | Hook::Exec | Hook::Exit)
}

/// `offset..end` of an event.
pub fn range(event: &AccessEvent) -> (u64, u64) {
    (event.offset, event.offset + u64::from(event.length))
}

/// A bit of `nitro_common::flags`.
pub fn has(event: &AccessEvent, flag: u16) -> bool {
    event.flags & flag != 0
}

/// Events as lines, for a failed assertion.
pub fn lines(events: &[AccessEvent]) -> String {
    let name = |event: &AccessEvent| format!("{:?}", Hook::from_number(event.hook).unwrap());
    let line = |event: &AccessEvent| {
        let (start, end) = range(event);
        format!("\n{:9} {start:#x}..{end:#x} flags {:#x}", name(event), event.flags)
    };
    events.iter().map(line).collect()
}

/// A file of zeros on the disk that holds the build, removed with this.
pub struct TestFile {
    /// Where.
    pub path: PathBuf,
    /// Who.
    pub id: FileId,
    /// Bytes.
    pub size: u64,
    _folder: tempfile::TempDir,
}

impl TestFile {
    /// Written in 64 KiB pieces, so that its pages are in the cache in folios of at most that size.
    pub fn cached(size: u64) -> Self {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let path = folder.path().join("model.gguf");
        let mut file = File::create(&path).unwrap();
        let piece = vec![0u8; 64 << 10];
        let mut left = size;
        while left > 0 {
            let now = left.min(piece.len() as u64);
            file.write_all(&piece[..usize::try_from(now).unwrap()]).unwrap();
            left -= now;
        }
        file.sync_all().unwrap();
        let status = stat::status_at(file.as_fd(), c"").unwrap();
        Self {
            id: Devices::default().file_id(&status),
            path,
            size,
            _folder: folder,
        }
    }

    /// The same, not in the cache.
    pub fn cold(size: u64) -> Self {
        let file = Self::cached(size);
        file.drop_pages();
        file
    }

    /// Drops its pages.
    pub fn drop_pages(&self) {
        let file = File::open(&self.path).unwrap();
        nix::fcntl::posix_fadvise(&file, 0, 0, nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED).unwrap();
    }

    /// For the steps of a reader.
    pub fn name(&self) -> &str {
        self.path.to_str().unwrap()
    }
}

/// Bytes of `0..size` that runs cover; a byte that is covered twice is an error.
pub fn covered(mut runs: Vec<(u64, u64)>) -> u64 {
    runs.retain(|run| run.0 < run.1);
    runs.sort_unstable();
    assert!(
        runs.windows(2).all(|pair| pair[0].1 <= pair[1].0),
        "overlapping: {runs:x?}"
    );
    runs.iter().map(|run| run.1 - run.0).sum()
}

/// The last event of a process that has ended.
pub fn assert_ended(watcher: &Watcher, process: u32) {
    let ends = watcher.of(process, |hook| hook == Hook::Exit);
    let last: Vec<_> = ends.iter().filter(|event| has(event, flags::LAST_THREAD)).collect();
    assert_eq!(last.len(), 1, "{}", lines(&ends));
    assert!(
        ends.len() > last.len(),
        "the thread that read ended before the process{}",
        lines(&ends)
    );
}

/// Runs `what` on a thread with no privileges.
pub fn unprivileged<T: Send>(what: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // SAFETY: numbers alone. The raw call changes this thread; the library's would change them all.
            let failed = unsafe { libc::syscall(libc::SYS_setresuid, 65534, 65534, 65534) };
            assert_eq!(failed, 0);
            what()
        });
        thread.join().unwrap()
    })
}

/// Where there is no tracefs, this thread gets one of its own, which goes with it: a fresh machine has none mounted.
fn mount_tracefs_if_there_is_none() {
    use nix::{
        mount::{MsFlags, mount},
        sched::{CloneFlags, unshare},
    };
    const PLACE: &str = "/sys/kernel/tracing";
    if std::path::Path::new(PLACE).join("events").exists() {
        return;
    }
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    mount(Some("tracefs"), PLACE, Some("tracefs"), MsFlags::empty(), none).unwrap();
}

/// Runs `what` on a thread that sees no tracefs.
pub fn without_tracefs<T: Send>(what: impl FnOnce() -> T + Send) -> T {
    use nix::{
        mount::{MntFlags, MsFlags, mount, umount2},
        sched::{CloneFlags, unshare},
    };
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            let none: Option<&str> = None;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
            for place in ["/sys/kernel/tracing", "/sys/kernel/debug/tracing", "/sys/kernel/debug"] {
                while umount2(place, MntFlags::MNT_DETACH).is_ok() {}
            }
            what()
        });
        thread.join().unwrap()
    })
}
