//! Waiting for the end of another process.

use std::{
    io,
    os::fd::{FromRawFd, OwnedFd},
};

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
    use std::os::fd::AsFd;

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
}
