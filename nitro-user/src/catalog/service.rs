//! The thread that owns the catalog.
//!
//! In: requests and the kernel's change notifications. Out: [`CatalogEvent`]s. It sleeps in one `poll` and is woken
//! by nothing else. Overflow policies: requests that find the queue full are refused to the caller, who asks again; events are
//! never dropped: while the receiver is behind, the thread waits, and what happens meanwhile queues up in the kernel,
//! whose own overflow leads to a full rescan.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::{Builder, JoinHandle},
    time::Duration,
};

use nix::sys::eventfd::{EfdFlags, EventFd};
use tokio::sync::mpsc::{Sender, error::TrySendError};

use super::{
    BATCH, Catalog, CatalogError, CatalogEvent, CatalogRequest, SMALLEST_WATCHED, WatchRoot, identity::Devices,
};

/// Requests that may wait.
const MOST_WAITING: usize = 1024;

/// How long to wait before offering an event again to a receiver that is behind.
const BEHIND: Duration = Duration::from_millis(5);

/// Why a request was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestRefused {
    /// The catalog is behind, for example scanning: ask again later.
    #[error("the catalog is busy")]
    Busy,
    /// The service has ended.
    #[error("the catalog has stopped")]
    Stopped,
}

/// The running service. Dropping it stops it as [`CatalogService::stop`] does.
#[derive(Debug)]
pub struct CatalogService {
    requests: mpsc::SyncSender<CatalogRequest>,
    wake: Arc<EventFd>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl CatalogService {
    /// Starts the thread: it scans `roots`, tells what it found, and then follows the changes.
    ///
    /// # Errors
    ///
    /// No eventfd, inotify instance or thread to be had.
    pub fn start(
        roots: Vec<WatchRoot>,
        devices: Arc<Devices>,
        events: Sender<CatalogEvent>,
    ) -> Result<Self, CatalogError> {
        let failed = |operation: &'static str| {
            move |source: io::Error| CatalogError::Service {
                operation,
                source,
                remedy: "raise the limit on open files",
            }
        };
        let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK);
        let wake = Arc::new(wake.map_err(io::Error::from).map_err(failed("create an eventfd"))?);
        let (requests, waiting) = mpsc::sync_channel(MOST_WAITING);
        let stop = Arc::new(AtomicBool::new(false));
        let outbox = Outbox {
            events,
            stop: stop.clone(),
        };
        let thread = Builder::new()
            .name("catalog".into())
            .spawn(move || run(&roots, devices, &waiting, &outbox))
            .map_err(failed("start the catalog's thread"))?;
        Ok(Self {
            requests,
            wake,
            stop,
            thread: Some(thread),
        })
    }

    /// Asks something; never blocks.
    ///
    /// # Errors
    ///
    /// Too much is waiting already, or the service has ended.
    pub fn ask(&self, request: CatalogRequest) -> Result<(), RequestRefused> {
        self.requests.try_send(request).map_err(|refused| match refused {
            mpsc::TrySendError::Full(_) => RequestRefused::Busy,
            mpsc::TrySendError::Disconnected(_) => RequestRefused::Stopped,
        })?;
        // A full counter still wakes; nothing is lost.
        let _ = self.wake.write(1);
        Ok(())
    }

    /// Stops the thread and waits for it: at most one system call on a directory, whether events are received or not.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Release);
        let _ = self.wake.write(1);
        if let Some(thread) = self.thread.take() {
            // A panic in it was already reported by the panic hook.
            let _ = thread.join();
        }
    }
}

impl Drop for CatalogService {
    fn drop(&mut self) {
        self.end();
    }
}

/// Where events go.
struct Outbox {
    events: Sender<CatalogEvent>,
    stop: Arc<AtomicBool>,
}

impl Outbox {
    /// Hands an event over, waiting while the receiver is behind. False when the service is to end.
    fn send(&self, event: CatalogEvent) -> bool {
        let mut event = event;
        while !self.stop.load(Ordering::Acquire) {
            match self.events.try_send(event) {
                Ok(()) => return true,
                Err(TrySendError::Closed(_)) => return false,
                Err(TrySendError::Full(back)) => event = back,
            }
            std::thread::sleep(BEHIND);
        }
        false
    }
}

fn run(roots: &[WatchRoot], devices: Arc<Devices>, waiting: &mpsc::Receiver<CatalogRequest>, outbox: &Outbox) {
    let (mut catalog, report) = Catalog::scan(roots, devices);
    let watched: Vec<_> = catalog.files().filter(|(_, size)| *size >= SMALLEST_WATCHED).collect();
    for batch in watched.chunks(BATCH) {
        if !outbox.send(CatalogEvent::Watched(batch.to_vec())) {
            return;
        }
    }
    if !outbox.send(CatalogEvent::Scanned(report)) {
        return;
    }
    while let Ok(request) = waiting
        .recv_timeout(Duration::from_secs(1))
        .or_else(|error| match error {
            mpsc::RecvTimeoutError::Timeout => Ok(CatalogRequest::Match {
                process: 0,
                arguments: vec![],
            }),
            mpsc::RecvTimeoutError::Disconnected => Err(error),
        })
    {
        let told = match request {
            CatalogRequest::Describe(file) => outbox.send(CatalogEvent::Described(catalog.describe(file), file)),
            CatalogRequest::Match { process, arguments } => arguments
                .iter()
                .filter_map(|argument| catalog.match_argument(argument))
                .all(|file| outbox.send(CatalogEvent::Matched { process, file })),
        };
        if !told || outbox.stop.load(Ordering::Acquire) {
            return;
        }
    }
}
