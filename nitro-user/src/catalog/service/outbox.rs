//! Where the catalog's thread tells what it has to tell.
//!
//! In: events. Out: the same, in order; none is dropped.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::sync::mpsc::{Sender, error::TrySendError};

use crate::catalog::CatalogEvent;

/// How long to wait before offering an event again to a receiver that is behind.
const BEHIND: Duration = Duration::from_millis(5);

/// Where events go.
pub(super) struct Outbox {
    pub events: Sender<CatalogEvent>,
    pub stop: Arc<AtomicBool>,
}

impl Outbox {
    /// Whether the service is to end.
    pub fn stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Hands an event over, waiting while the receiver is behind. False when the service is to end.
    pub fn send(&self, event: CatalogEvent) -> bool {
        let mut event = event;
        while !self.stopping() {
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
