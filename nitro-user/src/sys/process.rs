//! The ends of processes: waiting for that of another, and ending with the one that started us.

use std::{
    io,
    os::{
        fd::{FromRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::Command,
};

use nix::sys::{prctl::set_pdeathsig, signal::Signal};

/// The program that is started by `command` is told to stop (SIGTERM) when the thread ends that starts it, however that comes.
pub fn end_with_us(command: &mut Command) -> &mut Command {
    let tell = || set_pdeathsig(Signal::SIGTERM).map_err(io::Error::from);
    // SAFETY: between fork and exec: one system call, which takes no lock and no memory.
    unsafe { command.pre_exec(tell) }
}

/// A descriptor that is readable once the process has ended, with all its threads; it stands for that process, whoever gets its number afterwards.
///
/// # Errors
/// `ESRCH` when there is no such process, `ENOSYS` before Linux 5.3.
pub fn end_of(process: u32) -> io::Result<OwnedFd> {
    // SAFETY: takes numbers; touches no memory of ours. The descriptor is closed on exec.
    let descriptor = unsafe { libc::syscall(libc::SYS_pidfd_open, process, 0) };
    match i32::try_from(descriptor) {
        // SAFETY: the kernel has just made it, and nobody else knows of it.
        Ok(descriptor) if descriptor >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(descriptor) }),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::{os::fd::AsFd, process::Command};

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    #[test]
    fn the_end_of_a_process_is_told() {
        let mut child = std::process::Command::new("cat")
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let end = super::end_of(child.id()).unwrap();
        let ready = |timeout: PollTimeout| {
            let mut fds = [PollFd::new(end.as_fd(), PollFlags::POLLIN)];
            poll(&mut fds, timeout).unwrap() > 0
        };
        assert!(!ready(PollTimeout::ZERO));
        drop(child.stdin.take());
        assert!(ready(PollTimeout::from(20_000u16)));
        child.wait().unwrap();
        let error = super::end_of(child.id()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ESRCH));
    }
    #[test]
    fn a_program_ends_with_the_thread_that_started_it() {
        let start = || super::end_with_us(Command::new("sleep").arg("60")).spawn().unwrap();
        let mut child = std::thread::spawn(start).join().unwrap();
        assert!(!child.wait().unwrap().success());
    }
}
