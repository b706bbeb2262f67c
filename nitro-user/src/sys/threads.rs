//! Threads of other processes.

use nix::{errno::Errno, sys::signal::kill, unistd::Pid};

/// Whether a thread of this number lives, whoever's it is.
pub fn lives(thread: u32) -> bool {
    // No signal is sent; the number of any thread will do.
    i32::try_from(thread).is_ok_and(|thread| kill(Pid::from_raw(thread), None) != Err(Errno::ESRCH))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_thread_lives_until_it_ends() {
        let thread = std::thread::spawn(nix::unistd::gettid).join().unwrap();
        assert!(super::lives(nix::unistd::gettid().as_raw().cast_unsigned()));
        assert!(!super::lives(thread.as_raw().cast_unsigned()));
    }
}
