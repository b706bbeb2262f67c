//! Warming on the consumer's account.
//!
//! The kernel charges a page to the memory cgroup of the process that brings it in first. For `--charge consumer` that is a helper, one for each load, which joins the
//! consumer's memory cgroup, is handed the open files, and does nothing but start the reading; it ends with the load. It is a copy of a small process with a single
//! thread that was started with the agent (`nitro-agent account-helper`), so that none is executed while a reader waits, and the agent itself, which has threads,
//! need not be copied. In a full cgroup the kernel takes the helper first.
//!
//! In: requests over a socket pair, with descriptors. Out: what came of them. A helper reads what it was handed and nothing else.

use std::{
    collections::HashMap,
    fs::{self, File},
    io,
    os::fd::{AsRawFd, OwnedFd},
    process::{Child, Command, Stdio},
    rc::Rc,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use serde::{Deserialize, Serialize};

use super::{Warmer, read::Read, readahead::Readahead};
use crate::{
    sys::{
        block::RequestLimits,
        capability::Feature,
        cgroup::MemoryGroup,
        confine::confine,
        fork::{self, Copy},
        page_cache,
        pass::{self, hear, say},
    },
    units::ByteRange,
};

/// The subcommand that the helpers' parent is started with.
pub const SUBCOMMAND: &str = "account-helper";

/// Asked of the parent: a helper in this memory cgroup, at the descriptor that comes with it.
#[derive(Debug, Serialize, Deserialize)]
struct Join {
    group: MemoryGroup,
}

/// Asked of a helper.
#[derive(Debug, Serialize, Deserialize)]
enum Request {
    /// The descriptor that comes with it is this part.
    Open {
        part: usize,
        limits: RequestLimits,
        chunk: u64,
        lent: bool,
    },
    /// Use plain reads from now on.
    Plainly { part: usize },
    /// [`Warmer::brought_before`].
    Claim { part: usize, range: ByteRange },
    /// [`Warmer::submit`].
    Submit { part: usize, range: ByteRange },
    /// [`Warmer::wait`].
    Wait { part: usize, range: ByteRange },
}

/// The answer.
#[derive(Debug, Serialize, Deserialize)]
enum Reply {
    /// It is done; bytes claimed, or brought in beyond the range, or the process id of a helper that has joined.
    Done(u64),
    /// The system's reason, as a number.
    Failed(i32),
}

/// The helpers' parent, as the agent sees it. It ends when this is dropped.
#[derive(Debug)]
pub struct Accountant {
    socket: Mutex<OwnedFd>,
    _process: Child,
    helpers: Helpers,
}

/// Process ids of the helpers, and of those that hold pins: what they touch, nobody else has read. Shared with whoever is told of accesses.
#[derive(Clone, Debug, Default)]
pub struct Helpers(Arc<Mutex<HashMap<u32, Lives>>>);

/// Whether a process is still there: what it did may be told of later.
type Lives = bool;

impl Helpers {
    pub(super) fn add(&self, process: u32) {
        self.lock().insert(process, true);
    }

    /// This one ends, and its number may become somebody else's.
    pub(super) fn leaves(&self, process: u32) {
        if let Some(lives) = self.lock().get_mut(&process) {
            *lives = false;
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u32, Lives>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those that live.
    pub fn living(&self) -> Vec<u32> {
        let all = self.lock();
        let living = all.iter().filter(|(_, lives)| **lives);
        living.map(|(process, _)| *process).collect()
    }

    /// Whether this is one, or was: what it did may be told of after its end.
    pub fn contains(&self, process: u32) -> bool {
        self.lock().contains_key(&process)
    }

    /// It has ended, and all that it did was told. Whether it was one.
    pub fn ended(&self, process: u32) -> bool {
        self.lock().remove(&process).is_some()
    }
}

impl Accountant {
    /// Starts it: this very program.
    ///
    /// # Errors
    /// No process or descriptor to be had.
    pub fn start() -> io::Result<Self> {
        let (socket, theirs) = pass::pair()?;
        let process = Command::new("/proc/self/exe")
            .arg(SUBCOMMAND)
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()?;
        Ok(Self {
            socket: Mutex::new(socket),
            _process: process,
            helpers: Helpers::default(),
        })
    }

    /// Who the helpers are.
    pub fn helpers(&self) -> Helpers {
        self.helpers.clone()
    }

    /// A helper in `group`.
    ///
    /// # Errors
    /// [`MemoryGroup::join`]'s, or the parent has ended.
    pub fn helper(&self, group: &MemoryGroup) -> io::Result<Helper> {
        let (socket, theirs) = pass::pair()?;
        let join = Join { group: group.clone() };
        {
            let parent = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
            say(&*parent, &join, Some(theirs.as_raw_fd()))?;
        }
        drop(theirs);
        let mut helper = Helper {
            socket,
            process: 0,
            helpers: self.helpers.clone(),
        };
        helper.process = u32::try_from(helper.answer()?).unwrap_or(0);
        // Before it reads anything.
        self.helpers.add(helper.process);
        Ok(helper)
    }
}

/// One helper. It ends when this is dropped.
#[derive(Debug)]
pub struct Helper {
    socket: OwnedFd,
    process: u32,
    helpers: Helpers,
}

impl Drop for Helper {
    fn drop(&mut self) {
        self.helpers.leaves(self.process);
    }
}

impl Helper {
    fn answer(&self) -> io::Result<u64> {
        match hear(&self.socket)? {
            Some((Reply::Done(bytes), _)) => Ok(bytes),
            Some((Reply::Failed(errno), _)) => Err(io::Error::from_raw_os_error(errno)),
            None => Err(io::Error::new(io::ErrorKind::BrokenPipe, "the helper has ended")),
        }
    }

    fn ask(&self, request: &Request, descriptor: Option<i32>) -> io::Result<u64> {
        say(&self.socket, request, descriptor)?;
        self.answer()
    }
}

/// Brings a part in through a helper.
pub struct OnAccount {
    helper: Rc<Helper>,
    part: usize,
    /// For waiting for what is there, which charges nobody.
    plain: Readahead,
    /// End of the last range, and what was brought in beyond it.
    beyond: (u64, u64),
}

impl OnAccount {
    /// Hands `file` to the helper.
    ///
    /// # Errors
    /// The helper has ended.
    pub fn open(
        helper: Rc<Helper>,
        part: usize,
        file: &File,
        limits: RequestLimits,
        chunk: u64,
        lent: bool,
    ) -> io::Result<Self> {
        let request = Request::Open {
            part,
            limits,
            chunk,
            lent,
        };
        helper.ask(&request, Some(file.as_raw_fd()))?;
        Ok(Self {
            helper,
            part,
            plain: Readahead { chunk },
            beyond: (0, 0),
        })
    }
}

impl Warmer for OnAccount {
    fn submit(&mut self, _file: &File, range: ByteRange) -> io::Result<()> {
        let part = self.part;
        let beyond = self.helper.ask(&Request::Submit { part, range }, None)?;
        self.beyond = (range.end, beyond);
        Ok(())
    }

    fn wait(&mut self, file: &File, range: ByteRange) -> io::Result<()> {
        // A page that is not there would be read for the wait, on the agent's account. Where nobody can tell, the helper waits.
        if !page_cache::tells_presence() {
            let part = self.part;
            return self.helper.ask(&Request::Wait { part, range }, None).map(drop);
        }
        if page_cache::present(file, range)? < range.len() {
            return Ok(());
        }
        self.plain.wait(file, range)
    }

    fn beyond(&self, end: u64) -> u64 {
        let (at, bytes) = self.beyond;
        if at == end { bytes } else { 0 }
    }

    fn brought_before(&mut self, range: ByteRange) -> u64 {
        let part = self.part;
        // A helper that has ended says so at the next submit.
        self.helper.ask(&Request::Claim { part, range }, None).unwrap_or(0)
    }

    fn plainly(self: Box<Self>) -> io::Result<Box<dyn Warmer>> {
        self.helper.ask(&Request::Plainly { part: self.part }, None)?;
        Ok(self)
    }
}

/// The parent: makes helpers until the agent has ended. Standard input is the socket.
///
/// # Errors
/// What the socket says.
pub fn parent() -> io::Result<()> {
    // What is started here begins with what is left; the agent tells what was refused, of itself.
    let _ = confine(&[Feature::OthersGroups]);
    let socket = io::stdin();
    loop {
        let Some((join, theirs)) = hear::<Join>(&socket)? else {
            return Ok(());
        };
        // Those that have ended meanwhile.
        while matches!(waitpid(None, Some(WaitPidFlag::WNOHANG)), Ok(status) if status != WaitStatus::StillAlive) {}
        let Some(theirs) = theirs else { continue };
        match fork::copy() {
            Ok(Copy::Parent(_)) => {}
            Ok(Copy::Child) => return help(&theirs, &join.group),
            Err(error) => {
                let _ = say(&theirs, &failed(&error), None);
            }
        }
    }
}

/// A helper: joins `group` and serves until the load is over.
fn help(socket: &OwnedFd, group: &MemoryGroup) -> io::Result<()> {
    // In a full cgroup the consumer must not be the one that is killed.
    let joined = fs::write("/proc/self/oom_score_adj", "1000").and_then(|()| group.join());
    if let Err(error) = joined {
        return say(socket, &failed(&error), None);
    }
    say(socket, &Reply::Done(u64::from(std::process::id())), None)?;
    let mut parts: HashMap<usize, (File, Box<dyn Warmer>)> = HashMap::new();
    while let Some((request, descriptor)) = hear::<Request>(socket)? {
        let reply = serve(&mut parts, request, descriptor).map_or_else(|error| failed(&error), Reply::Done);
        say(socket, &reply, None)?;
    }
    Ok(())
}

fn serve(
    parts: &mut HashMap<usize, (File, Box<dyn Warmer>)>,
    request: Request,
    descriptor: Option<OwnedFd>,
) -> io::Result<u64> {
    let unknown = || io::Error::from_raw_os_error(libc::EBADF);
    match request {
        Request::Open {
            part,
            limits,
            chunk,
            lent,
        } => {
            let file = File::from(descriptor.ok_or_else(unknown)?);
            parts.insert(part, (file, super::best(limits, chunk, lent)));
            Ok(0)
        }
        Request::Plainly { part } => {
            parts.get_mut(&part).ok_or_else(unknown)?.1 = Box::new(Read::default());
            Ok(0)
        }
        Request::Claim { part, range } => Ok(parts.get_mut(&part).ok_or_else(unknown)?.1.brought_before(range)),
        Request::Submit { part, range } => {
            let (file, warmer) = parts.get_mut(&part).ok_or_else(unknown)?;
            warmer.submit(file, range)?;
            Ok(warmer.beyond(range.end))
        }
        Request::Wait { part, range } => {
            let (file, warmer) = parts.get_mut(&part).ok_or_else(unknown)?;
            warmer.wait(file, range).map(|()| 0)
        }
    }
}

fn failed(error: &io::Error) -> Reply {
    Reply::Failed(error.raw_os_error().unwrap_or(libc::EIO))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_did_is_its_own_after_its_end_until_all_was_told() {
        let helpers = Helpers::default();
        helpers.add(7);
        helpers.add(8);
        helpers.leaves(7);
        helpers.leaves(9);
        assert_eq!(helpers.living(), [8]);
        assert!(helpers.contains(7) && !helpers.contains(9));
        assert!(helpers.ended(7) && !helpers.ended(7));
        assert!(!helpers.contains(7));
    }
}
