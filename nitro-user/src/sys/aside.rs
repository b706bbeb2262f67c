//! Questions that may never be answered, each put by a process of its own that can be left behind.
//!
//! In: what to ask. Out: the answer, or none in time. A thread would not do: one that waits for a server which has taken its request and is silent cannot be killed, and
//! keeps its process from ending. A process that waits so ends when the server answers or is unmounted; nobody waits for it, and it holds none of its parent's pipes.

use std::{
    fs::File,
    io::{self, Read, Write},
    marker::PhantomData,
    os::fd::{AsFd, OwnedFd},
    panic::{AssertUnwindSafe, catch_unwind},
    time::Instant,
};

use nix::{
    fcntl::OFlag,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{Signal, kill},
        wait::{WaitPidFlag, waitpid},
    },
    unistd::{Pid, dup2_stderr, dup2_stdin, dup2_stdout, pipe2},
};
use serde::{Serialize, de::DeserializeOwned};

use super::fork::{self, Copy};

/// Longest answer.
const MOST_BYTES: usize = 4 << 20;

/// A question that is being asked. Dropped, it is given up.
#[derive(Debug)]
pub struct Asked<A> {
    answer: File,
    process: Pid,
    kind: PhantomData<A>,
}

/// Begins to ask. This process must have a single thread, since the other one is a copy of it.
///
/// # Errors
/// There are other threads, or there is no room for another process.
pub fn ask<A: Serialize>(question: impl FnOnce() -> A) -> io::Result<Asked<A>> {
    let (answer, told) = pipe2(OFlag::O_CLOEXEC)?;
    match fork::copy()? {
        Copy::Parent(process) => Ok(Asked {
            answer: answer.into(),
            process,
            kind: PhantomData,
        }),
        Copy::Child => {
            drop(answer);
            // Nothing of it may go on as a second copy of the caller.
            let _ = catch_unwind(AssertUnwindSafe(|| tell(told, question)));
            fork::end()
        }
    }
}

/// In the other process: asks, and tells the answer.
fn tell<A: Serialize>(told: OwnedFd, question: impl FnOnce() -> A) -> io::Result<()> {
    // Whoever reads what the parent prints waits until nobody has its output any more.
    let nothing = File::options().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&nothing)?;
    dup2_stdout(&nothing)?;
    dup2_stderr(&nothing)?;
    let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
    let answer = serde_json::to_vec(&question()).map_err(io::Error::other)?;
    File::from(told).write_all(&answer)
}

impl<A: DeserializeOwned> Asked<A> {
    /// The answer, if it comes before `deadline`.
    pub fn wait(mut self, deadline: Instant) -> Option<A> {
        let mut text = Vec::new();
        let mut part = [0; 4096];
        loop {
            let mut waiting = [PollFd::new(self.answer.as_fd(), PollFlags::POLLIN)];
            // Rounded up, so that a rest of less than a millisecond is waited for.
            let left = deadline.saturating_duration_since(Instant::now()).as_millis() + 1;
            let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            match poll(&mut waiting, left) {
                Ok(0) => return None,
                Err(nix::errno::Errno::EINTR) => continue,
                Err(_) => return None,
                Ok(_) => {}
            }
            match self.answer.read(&mut part) {
                Ok(0) => return serde_json::from_slice(&text).ok(),
                Ok(count) => text.extend_from_slice(part.get(..count)?),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return None,
            }
            if text.len() > MOST_BYTES {
                return None;
            }
        }
    }
}

impl<A> Drop for Asked<A> {
    fn drop(&mut self) {
        // One that cannot be killed now is when it is answered; whoever adopts it sees it end.
        let _ = kill(self.process, Signal::SIGKILL);
        let _ = waitpid(self.process, Some(WaitPidFlag::WNOHANG));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beside_other_threads_nothing_is_asked() {
        // The threads of the other tests.
        let (end, wait) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || wait.recv());
        assert!(ask(|| 1).is_err());
        drop(end);
        let _ = other.join();
    }
}
