//! What every test needs: an agent's side of pins, files that are in memory, and this program once more as another process.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    os::unix::fs::MetadataExt,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use nitro_user::{
    bench::sweep,
    sys::{measure, page_cache, stat::device_alone},
    units::{ByteCount, ByteRange, FileId, PinId},
    warm::{
        account::Helpers,
        keeper::Keeper,
        pins::{Opener, PinEvent, Pins, Refused},
    },
};
use tempfile::NamedTempFile;
use tokio::sync::mpsc::{Receiver, channel};

use super::account::Account;

pub const MIB: u64 = 1 << 20;

/// What is pinned, in most tests.
pub const SIZE: u64 = 48 * MIB;

/// The most that is held.
pub const MOST: u64 = 128 * MIB;

/// Long enough for anything that happens at all.
const SOON: Duration = Duration::from_secs(20);

/// One test at a time: they fill memory.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Waits for this test's turn.
fn turn() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where files are that are not in memory.
pub fn base() -> PathBuf {
    PathBuf::from("/var/tmp")
}

/// Whether the kernel can be asked at all; says so where it cannot. In CI that is a failure.
fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        assert!(std::env::var_os("CI").is_none(), "in CI this test must run as root");
        eprintln!("skipped: needs root");
    }
    root
}

/// Attempts at a scenario that the machine disturbs.
const MOST_ATTEMPTS: u32 = 4;

/// The files of a scenario.
static FILES: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// Does something as root, and alone.
pub fn alone(body: impl FnOnce()) {
    if is_root() {
        let _turn = turn();
        sweep::prepare(&base()).unwrap();
        body();
    }
}

/// The same with an agent's side of pins.
pub fn scenario(body: impl Fn(Bed)) {
    alone(|| inner(body));
}

/// In a process that a test has started.
///
/// It is repeated when it fails and the machine took pages meanwhile, though none were missing: some have DAMON take what rests, or whatever lies beside it.
pub fn inner(body: impl Fn(Bed)) {
    for attempt in 1.. {
        let files = || FILES.lock().unwrap_or_else(PoisonError::into_inner);
        files().clear();
        let before = brought_back();
        let Err(failure) = catch_unwind(AssertUnwindSafe(|| body(Bed::allowing(MOST)))) else {
            return;
        };
        let taken = |file: &File| measure::reclaimed_pages(file, u64::MAX).is_ok_and(|pages| pages > 0);
        let disturbed = files().iter().any(taken) || brought_back() != before;
        if !disturbed || attempt == MOST_ATTEMPTS {
            resume_unwind(failure);
        }
        eprintln!("once more: the machine took pages meanwhile");
    }
}

/// How many pages of files were read again after the machine had taken them.
fn brought_back() -> Option<u64> {
    let counters = fs::read_to_string("/proc/vmstat").ok()?;
    let mut lines = counters.lines();
    lines.find_map(|line| line.strip_prefix("workingset_refault_file ")?.parse().ok())
}

/// The agent's side.
pub struct Bed {
    pub pins: Pins,
    pub parent: u32,
    pub doubt: Option<String>,
    events: Receiver<PinEvent>,
}

impl Bed {
    /// One that may hold so much.
    pub fn allowing(most: u64) -> Self {
        let program = Path::new(env!("CARGO_BIN_EXE_nitro-agent"));
        let keeper = Keeper::start_from(program, ByteCount(most), Helpers::default()).unwrap();
        let (parent, doubt) = (keeper.process(), keeper.doubt());
        let (tell, events) = channel(64);
        Self {
            pins: Pins::new(keeper, tell),
            parent,
            doubt,
            events,
        }
    }

    /// A file of so many bytes, on the disk and in memory, on our account.
    pub fn file(&self, bytes: u64) -> NamedTempFile {
        let mut file = NamedTempFile::new_in(base()).unwrap();
        let piece = vec![7; MIB as usize];
        (0..bytes / MIB).for_each(|_| file.write_all(&piece).unwrap());
        file.as_file().sync_all().unwrap();
        let watched = file.reopen().unwrap();
        FILES.lock().unwrap_or_else(PoisonError::into_inner).push(watched);
        file
    }

    /// A pin of a file.
    pub fn open(&mut self, number: u64, path: &Path) -> PinId {
        let pin = PinId(number);
        let size = fs::metadata(path).unwrap().size();
        self.pins.open(pin, id(path), size, opener(path)).unwrap();
        pin
    }

    /// Holds a range, and waits for what comes of it: what is locked, what is missing, what is refused.
    pub fn hold(&mut self, pin: PinId, start: u64, end: u64) -> (u64, u64, Option<Refused>) {
        let range = ByteRange { start, end };
        self.pins.hold(pin, range).unwrap();
        match self.next() {
            PinEvent::Held {
                pin: held,
                range: gone_through,
                locked,
                missing,
                refused,
            } => {
                assert_eq!((held, gone_through), (pin, range));
                (locked.0, missing.0, refused)
            }
            event => panic!("{event:?}"),
        }
    }

    /// The next event.
    pub fn next(&mut self) -> PinEvent {
        let deadline = Instant::now() + SOON;
        loop {
            match self.events.try_recv() {
                Ok(event) => return event,
                Err(_) => assert!(Instant::now() < deadline, "no event"),
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// As the page cache knows it.
pub fn id(path: &Path) -> FileId {
    let file = File::open(path).unwrap();
    FileId {
        device: device_alone(&file).unwrap(),
        inode: file.metadata().unwrap().ino(),
    }
}

pub fn opener(path: &Path) -> Opener {
    let path = path.to_owned();
    Box::new(move || File::open(path))
}

/// Bytes of a file that are in memory.
pub fn resident(path: &Path) -> u64 {
    let file = File::open(path).unwrap();
    let size = file.metadata().unwrap().size();
    page_cache::resident(&file, ByteRange::new(0, size)).unwrap()
}

/// A line of a process's status.
pub fn status(process: u32, name: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap().trim().to_owned()
}

/// The same in bytes.
pub fn status_bytes(process: u32, name: &str) -> u64 {
    status(process, name)
        .strip_suffix(" kB")
        .unwrap()
        .parse::<u64>()
        .unwrap()
        * 1024
}

/// Whether a process is there, and not only waited for by its parent.
pub fn lives(process: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"));
    stat.is_ok_and(|stat| !stat.rsplit_once(") ").unwrap().1.starts_with(['Z', 'X']))
}

/// Whether it has a file mapped.
pub fn maps(process: u32, path: &Path) -> bool {
    let maps = fs::read_to_string(format!("/proc/{process}/maps")).unwrap();
    maps.contains(path.to_str().unwrap())
}

pub fn kill(process: u32) {
    let process = nix::unistd::Pid::from_raw(process.cast_signed());
    nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGKILL).unwrap();
}

/// Waits until `condition` holds.
pub fn within(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {SOON:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A test that is run as another process.
pub struct Inside {
    pub process: Child,
    output: BufReader<ChildStdout>,
}

/// Runs the ignored test of this name, in a group if there is one.
pub fn inside(name: &str, account: Option<&Account>) -> Inside {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([name, "--exact", "--ignored", "--nocapture", "--test-threads=1"]);
    if let Some(account) = account {
        measure::enter_before_exec(&mut command, vec![account.members()]);
    }
    measure::end_with_parent(&mut command);
    let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
    Inside {
        output: BufReader::new(process.stdout.take().unwrap()),
        process,
    }
}

impl Inside {
    /// Waits for a line with this in it; what comes after.
    pub fn said(&mut self, before: &str) -> String {
        let mut line = String::new();
        while self.output.read_line(&mut line).unwrap() > 0 {
            if let Some((_, rest)) = line.split_once(before) {
                return rest.trim().to_owned();
            }
            line.clear();
        }
        panic!("it has not said {before:?}");
    }

    /// Waits for its end.
    pub fn succeeds(mut self) {
        let mut said = String::new();
        std::io::Read::read_to_string(&mut self.output, &mut said).unwrap();
        assert!(self.process.wait().unwrap().success(), "{said}");
        assert!(said.contains("1 passed"), "{said}");
    }
}
