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
    register(fd, Interest::READABLE)
}

/// Waits until nobody can read what is written to `fd` any more: a pipe whose reader has gone. Never ends for what cannot be polled.
pub async fn reader_gone(fd: BorrowedFd<'_>) {
    if let Ok(fd) = register(fd, Interest::ERROR)
        && fd.ready(Interest::ERROR).await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

fn register(fd: BorrowedFd<'_>, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    let own = fd.try_clone_to_owned()?;
    // SAFETY: an OwnedFd keeps its descriptor open and the same until it is dropped, after the registration is.
    unsafe { AsyncFd::register_with_interest(own, interest) }.map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use std::{os::fd::AsFd, time::Duration};

    #[tokio::test]
    async fn a_pipe_tells_when_its_reader_goes() {
        let (reader, writer) = std::io::pipe().unwrap();
        let soon = Duration::from_millis(20);
        let early = tokio::time::timeout(soon, super::reader_gone(writer.as_fd())).await;
        assert!(early.is_err());
        drop(reader);
        let long = Duration::from_secs(20);
        tokio::time::timeout(long, super::reader_gone(writer.as_fd()))
            .await
            .unwrap();
    }
}
