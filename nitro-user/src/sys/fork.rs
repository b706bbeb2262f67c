//! A copy of this process.

use std::{
    fs, io,
    time::{Duration, Instant},
};

use nix::unistd::{ForkResult, Pid, fork};

/// Which of the two this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copy {
    /// The process that asked, which the new one is a child of.
    Parent(Pid),
    /// The new one.
    Child,
}

/// Makes a copy of this process, which must have a single thread: of several only the calling one would be there, and locks that others hold would be held for ever.
///
/// # Errors
/// `InvalidInput`: there are other threads. `EAGAIN`, `ENOMEM`: no room for another process.
pub fn copy() -> io::Result<Copy> {
    if !is_alone()? {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "a process with several threads cannot be copied",
        ));
    }
    // SAFETY: there is no other thread, as was just seen, and no other could start one.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(Copy::Parent(child)),
        ForkResult::Child => Ok(Copy::Child),
    }
}

/// Waits until this process has a single thread: those that were told to end do so by themselves. False when they have not after `most`.
pub fn alone_within(most: Duration) -> bool {
    let deadline = Instant::now() + most;
    loop {
        match is_alone() {
            Ok(true) => return true,
            Ok(false) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(1)),
            _ => return false,
        }
    }
}

fn is_alone() -> io::Result<bool> {
    Ok(fs::read_dir("/proc/self/task")?.take(2).count() == 1)
}

/// Ends this process at once: nothing that it took over from the one it is a copy of is written out or given back.
pub fn end() -> ! {
    // SAFETY: _exit(2) takes a number, and runs no code of this program.
    unsafe { nix::libc::_exit(0) }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_process_with_threads_is_not_copied() {
        let (end, wait) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || wait.recv());
        assert!(super::copy().is_err());
        assert!(!super::alone_within(std::time::Duration::ZERO));
        drop(end);
        let _ = other.join();
    }
}
