//! The process that holds pins: pages of files that are locked in memory.
//!
//! What is locked the kernel cannot take back, so that when memory runs out somebody is killed for it. It is to be nobody's work but this: a process that does nothing else, whose
//! `oom_score_adj` of 1000 makes it the first to go, and with it all that it holds. There is one for each file system that has pins, so that a server that hangs stalls its own
//! alone, and none where nothing is held. They are copies of a small process with a single thread that was started with the agent (`nitro-agent pin-keeper`), so that the next one
//! can be had after the agent has given up the right to execute anything.
//!
//! In: requests over a socket pair, a descriptor with each file. Out: what came of them. A keeper locks what it is told to and reads nothing: it has no right to ask what is in memory
//! of others' files, so that is looked at by whoever tells it. It ends with the agent, however that ends.

use std::{
    collections::HashMap,
    fs::{self, File},
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        resource::{Resource, getrlimit, setrlimit},
        socket::{Shutdown, shutdown},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{Pid, dup2_stdin, setsid},
};
use serde::{Deserialize, Serialize};

use super::account::Helpers;
use crate::{
    sys::{
        capability::{self, Feature},
        charged::Books,
        confine::confine_to,
        fork::{self, Copy},
        locked::Locked,
        pass::{self, hear, say},
        process::end_of,
    },
    units::{ByteCount, ByteRange, PinId},
};

/// The subcommand that the keepers' parent is started with.
pub const SUBCOMMAND: &str = "pin-keeper";

/// What the kernel shows it as.
const NAME: &std::ffi::CStr = c"nitro-keeper";

/// Ranges of one request: they fit into a message.
pub(super) const MOST_RANGES: usize = 32;

/// The process is taken before everybody's.
const FIRST_TO_GO: &str = "1000";
const SCORE: &str = "/proc/self/oom_score_adj";

/// How long the parent waits for the end of a keeper that has closed its socket: what is left of it are open files.
const ENDING: Duration = Duration::from_secs(1);

/// How long the agent waits for the end of the parent.
const GOODBYE: Duration = Duration::from_millis(100);

/// Asked of the parent.
#[derive(Debug, Serialize, Deserialize)]
enum Ask {
    /// A keeper, which answers at the socket that comes with it.
    Keeper,
    /// How this one has ended.
    Ended { process: u32 },
}

/// How a keeper has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// The signal that it was killed with; the kernel's choice is SIGKILL.
    pub signal: Option<i32>,
}

/// What a keeper may lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allowance {
    /// The most, in bytes; `None`: all there is.
    pub most: Option<ByteCount>,
}

/// Asked of a keeper.
#[derive(Debug, Serialize, Deserialize)]
enum Request {
    /// The descriptor that comes with it is this pin's file, of so many bytes.
    Map { pin: PinId, size: u64 },
    /// Lock these, which are in memory.
    Lock { pin: PinId, ranges: Vec<ByteRange> },
    /// Unlock these.
    Unlock { pin: PinId, ranges: Vec<ByteRange> },
    /// Let go of the whole pin.
    Release { pin: PinId },
}

/// The answer.
#[derive(Debug, Serialize, Deserialize)]
enum Reply {
    /// It is there, and may lock so much.
    Ready { process: u32, allowance: Allowance },
    /// It is done.
    Done,
    /// The system's reason, as a number. Of several ranges some may be locked.
    Failed(i32),
}

/// Makes keepers: their parent, as the agent sees it, and what is needed to know what they may lock. It and they end when this is dropped.
#[derive(Debug)]
pub struct Keeper {
    socket: Mutex<OwnedFd>,
    process: Child,
    keepers: Helpers,
    books: Books,
    most: ByteCount,
    allowance: Allowance,
}

impl Keeper {
    /// Starts the parent, this very program, and opens the kernel's books. To be called before rights are given up. Nothing beyond `most` will be held; `keepers` will have the
    /// numbers of the processes, from before they touch anything.
    ///
    /// # Errors
    /// No process or descriptor to be had.
    pub fn start(most: ByteCount, keepers: Helpers) -> io::Result<Self> {
        Self::start_from(Path::new("/proc/self/exe"), most, keepers)
    }

    /// The same with another program, for tests: theirs is none.
    ///
    /// # Errors
    /// As [`Keeper::start`].
    pub fn start_from(program: &Path, most: ByteCount, keepers: Helpers) -> io::Result<Self> {
        let (socket, theirs) = pass::pair()?;
        let process = Command::new(program)
            .arg(SUBCOMMAND)
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()?;
        Ok(Self {
            socket: Mutex::new(socket),
            process,
            keepers,
            books: Books::open(),
            most,
            // What is started has the rights of this thread, as they are now.
            allowance: allowance(),
        })
    }

    /// The processes: the agent's own, which use nothing.
    pub fn processes(&self) -> Helpers {
        self.keepers.clone()
    }

    /// The parent's process id.
    pub fn process(&self) -> u32 {
        self.process.id()
    }

    /// The most that may be held.
    pub const fn most(&self) -> ByteCount {
        self.most
    }

    /// Who is charged for pages.
    pub(super) const fn books(&self) -> &Books {
        &self.books
    }

    /// What there will be less of than was asked for, in words; `None` where all can be had.
    pub fn doubt(&self) -> Option<String> {
        let limit = self.allowance.most?;
        (limit < self.most).then(|| {
            format!(
                "no more than {limit} can be pinned (RLIMIT_MEMLOCK): run it as root, or as a service with CAP_IPC_LOCK in AmbientCapabilities= or with LimitMEMLOCK=infinity"
            )
        })
    }

    /// A new keeper.
    pub(super) fn hire(self: &Arc<Self>) -> io::Result<Hired> {
        let (socket, theirs) = pass::pair()?;
        {
            let parent = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
            say(&*parent, &Ask::Keeper, Some(theirs.as_raw_fd()))?;
        }
        drop(theirs);
        match hear(&socket)? {
            Some((Reply::Ready { process, allowance }, _)) => {
                // Before it touches anything.
                self.keepers.add(process);
                Ok(Hired {
                    socket,
                    process,
                    allowance,
                    parent: self.clone(),
                })
            }
            Some((Reply::Failed(errno), _)) => Err(io::Error::from_raw_os_error(errno)),
            _ => Err(gone()),
        }
    }
}

impl Drop for Keeper {
    /// The parent is waited for, a moment: it has nothing else to do, but for one that hangs.
    fn drop(&mut self) {
        let socket = self.socket.get_mut().unwrap_or_else(PoisonError::into_inner);
        let _ = shutdown(socket.as_raw_fd(), Shutdown::Both);
        await_end(self.process.id(), GOODBYE);
        let _ = self.process.try_wait();
    }
}

/// A keeper. It ends, and what it holds is free, when this is dropped.
#[derive(Debug)]
pub(super) struct Hired {
    pub(super) socket: OwnedFd,
    pub(super) process: u32,
    pub(super) allowance: Allowance,
    parent: Arc<Keeper>,
}

/// Whether an answer says that the keeper has ended.
pub(super) fn has_ended(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

impl Hired {
    /// Hands it a file.
    pub(super) fn map(&self, pin: PinId, file: &File, size: u64) -> io::Result<()> {
        self.ask(&Request::Map { pin, size }, Some(file.as_raw_fd()))
    }

    /// Locks at most [`MOST_RANGES`] ranges.
    pub(super) fn lock(&self, pin: PinId, ranges: &[ByteRange]) -> io::Result<()> {
        let ranges = ranges.to_vec();
        self.ask(&Request::Lock { pin, ranges }, None)
    }

    /// Unlocks at most [`MOST_RANGES`] ranges.
    pub(super) fn unlock(&self, pin: PinId, ranges: &[ByteRange]) -> io::Result<()> {
        let ranges = ranges.to_vec();
        self.ask(&Request::Unlock { pin, ranges }, None)
    }

    /// Lets go of a pin. When this returns nothing of it is held.
    pub(super) fn release(&self, pin: PinId) -> io::Result<()> {
        self.ask(&Request::Release { pin }, None)
    }

    fn ask(&self, request: &Request, descriptor: Option<i32>) -> io::Result<()> {
        say(&self.socket, request, descriptor)?;
        match hear(&self.socket)? {
            Some((Reply::Failed(errno), _)) => Err(io::Error::from_raw_os_error(errno)),
            Some(_) => Ok(()),
            None => Err(gone()),
        }
    }

    /// Ends it, or hears how it has ended.
    pub(super) fn end(self) -> End {
        let Self {
            socket,
            process,
            parent,
            ..
        } = self;
        drop(socket);
        let keepers = parent.processes();
        let parent = parent.socket.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = say(&*parent, &Ask::Ended { process }, None).and_then(|()| hear(&*parent));
        let end = asked.ok().flatten().map(|(end, _)| end).unwrap_or_default();
        keepers.leaves(process);
        end
    }
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the process that holds pins has ended")
}

/// The parent: makes keepers until the agent has ended. Standard input is the socket.
///
/// # Errors
/// What the socket says.
pub fn parent() -> io::Result<()> {
    match make() {
        // The agent was killed in the middle of something.
        Err(error) if has_ended(&error) => Ok(()),
        done => done,
    }
}

fn make() -> io::Result<()> {
    // A terminal that is closed, or Ctrl-C in it, is the agent's affair.
    let _ = setsid();
    let _ = nix::sys::prctl::set_name(NAME);
    // Each pin has a descriptor.
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    }
    // What is started here begins with what is left.
    let _ = confine_to(&[Feature::Pins]);
    let socket = io::stdin();
    while let Some((ask, theirs)) = hear::<Ask>(&socket)? {
        match (ask, theirs) {
            (Ask::Ended { process }, _) => say(&socket, &end_of_child(process), None)?,
            (Ask::Keeper, Some(theirs)) => match fork::copy() {
                Ok(Copy::Parent(_)) => {}
                Ok(Copy::Child) => return keep(theirs),
                Err(error) => drop(say(&theirs, &failed(&error), None)),
            },
            (Ask::Keeper, None) => {}
        }
    }
    Ok(())
}

/// Waits for the end of a process, no longer than `most`.
fn await_end(process: u32, most: Duration) {
    let most = PollTimeout::try_from(most).unwrap_or(PollTimeout::MAX);
    if let Ok(end) = end_of(process) {
        let mut ends = [PollFd::new(end.as_fd(), PollFlags::POLLIN)];
        while poll(&mut ends, most) == Err(Errno::EINTR) {}
    }
}

/// Waits for the end of a keeper, for a while. One that closes files of a server that hangs is left to itself.
fn end_of_child(process: u32) -> End {
    await_end(process, ENDING);
    match waitpid(Pid::from_raw(process.cast_signed()), Some(WaitPidFlag::WNOHANG)) {
        Ok(WaitStatus::Signaled(_, signal, _)) => End {
            signal: Some(signal as i32),
        },
        _ => End::default(),
    }
}

/// A keeper: locks and unlocks until the agent has closed the socket.
fn keep(theirs: OwnedFd) -> io::Result<()> {
    // In place of the parent's own, whose end the agent must hear.
    dup2_stdin(&theirs)?;
    drop(theirs);
    let socket = io::stdin();
    // Raising it takes no right. Whoever cannot be the first to go must hold nothing.
    if let Err(error) = fs::write(SCORE, FIRST_TO_GO).and_then(|()| is_first_to_go()) {
        return say(&socket, &failed(&error), None);
    }
    let ready = Reply::Ready {
        process: std::process::id(),
        allowance: allowance(),
    };
    say(&socket, &ready, None)?;
    let mut pins: HashMap<PinId, Locked> = HashMap::new();
    while let Some((request, descriptor)) = hear::<Request>(&socket)? {
        let reply = serve(&mut pins, request, descriptor);
        say(&socket, &reply, None)?;
    }
    Ok(())
}

fn is_first_to_go() -> io::Result<()> {
    if fs::read_to_string(SCORE)?.trim() == FIRST_TO_GO {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(libc::EPERM))
    }
}

fn serve(pins: &mut HashMap<PinId, Locked>, request: Request, descriptor: Option<OwnedFd>) -> Reply {
    let (pin, ranges, locks) = match request {
        Request::Map { pin, size } => {
            let mapped = descriptor.ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF));
            return match mapped.and_then(|file| Locked::map(file.into(), size)) {
                Ok(locked) => {
                    pins.insert(pin, locked);
                    Reply::Done
                }
                Err(error) => failed(&error),
            };
        }
        Request::Release { pin } => {
            pins.remove(&pin);
            return Reply::Done;
        }
        Request::Lock { pin, ranges } => (pin, ranges, true),
        Request::Unlock { pin, ranges } => (pin, ranges, false),
    };
    let Some(locked) = pins.get(&pin) else {
        return Reply::Failed(libc::EBADF);
    };
    let mut ranges = ranges.into_iter();
    let done = match locks {
        true => ranges.try_for_each(|range| locked.lock(range)),
        false => ranges.try_for_each(|range| locked.unlock(range)),
    };
    done.map_or_else(|error| failed(&error), |()| Reply::Done)
}

/// What this process may lock.
fn allowance() -> Allowance {
    let limit = getrlimit(Resource::RLIMIT_MEMLOCK).map_or(0, |(soft, _)| soft);
    let unlimited = capability::has(Feature::Pins) || limit == nix::sys::resource::RLIM_INFINITY;
    Allowance {
        most: (!unlimited).then_some(ByteCount(limit)),
    }
}

fn failed(error: &io::Error) -> Reply {
    Reply::Failed(error.raw_os_error().unwrap_or(libc::EIO))
}
