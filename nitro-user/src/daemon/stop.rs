//! What makes the agent stop, and stopping without waiting for what may never return.

use std::{ops::Deref, sync::Arc, time::Duration};

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that ask for a clean stop.
pub struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
}

impl StopSignals {
    /// Takes the signals from here on.
    pub fn take() -> anyhow::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).context("cannot take SIGINT")?,
            terminate: signal(SignalKind::terminate()).context("cannot take SIGTERM")?,
        })
    }

    /// Waits for the next one; its name.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }

    /// Does something blocking on a thread of its own; `None` when a signal comes first, and the thread is left to the end of the process.
    ///
    /// # Errors
    /// It panicked.
    pub async fn unless_stopped<T: Send + 'static>(
        &mut self,
        what: impl FnOnce() -> T + Send + 'static,
    ) -> anyhow::Result<Option<T>> {
        let done = self.unless(tokio::task::spawn_blocking(what)).await;
        done.transpose().context("a thread of the start has failed")
    }

    /// Waits for something; `None` when a signal comes first.
    pub async fn unless<T>(&mut self, what: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            done = what => Some(done),
            _ = self.next() => None,
        }
    }
}

/// Something that waits for its thread when it is dropped, and whose thread may hang in a dead file system: it is dropped on a thread of its
/// own, which the end of the process ends.
#[derive(Debug)]
pub struct LetGo<T: Send + Sync + 'static>(Arc<T>);

impl<T: Send + Sync + 'static> LetGo<T> {
    /// Takes it over.
    pub fn new(value: T) -> Self {
        Self(Arc::new(value))
    }
}

impl<T: Send + Sync + 'static> Deref for LetGo<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Send + Sync + 'static> Drop for LetGo<T> {
    fn drop(&mut self) {
        let last = self.0.clone();
        let thread = std::thread::Builder::new().name("nitro-end".into());
        // Without a thread to be had the wait is here: the agent ends, later.
        let _ = thread.spawn(move || {
            // The other one goes right after this function: here must be the last.
            while Arc::strong_count(&last) > 1 {
                std::thread::sleep(Duration::from_millis(1));
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::mpsc::{Receiver, Sender, channel},
        time::Instant,
    };

    use super::*;

    /// Waits in its drop until it is told to go on, and then says so.
    struct Hangs(std::sync::Mutex<Receiver<()>>, Sender<()>);

    impl Drop for Hangs {
        fn drop(&mut self) {
            let _ = self.0.lock().unwrap().recv();
            let _ = self.1.send(());
        }
    }

    #[test]
    fn letting_go_does_not_wait_and_still_drops() {
        let (go_on, wait) = channel();
        let (dropped, done) = channel();
        let began = Instant::now();
        drop(LetGo::new(Hangs(std::sync::Mutex::new(wait), dropped)));
        assert!(began.elapsed() < Duration::from_millis(500));
        go_on.send(()).unwrap();
        done.recv_timeout(Duration::from_secs(10)).unwrap();
    }
}
