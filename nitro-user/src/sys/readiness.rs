//! Waiting for a descriptor on the async executor.

use std::{
    io,
    os::fd::{BorrowedFd, OwnedFd},
};

use tokio::io::{Interest, unix::AsyncFd};

/// Readiness of a duplicate of `fd`: the original stays with its owner, who reads it.
///
/// # Errors
/// No descriptor to be had, or one that cannot be polled.
pub fn of(fd: BorrowedFd<'_>) -> io::Result<AsyncFd<OwnedFd>> {
    let own = fd.try_clone_to_owned()?;
    // SAFETY: an OwnedFd keeps its descriptor open and the same until it is dropped, after the registration is.
    unsafe { AsyncFd::register_with_interest(own, Interest::READABLE) }.map_err(io::Error::from)
}
