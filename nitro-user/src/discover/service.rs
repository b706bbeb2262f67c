//! The thread that looks again: when a program starts, and once a minute.
//!
//! In: numbers of processes that began a program. Out: [`Findings`]; those of a minute's look hold all that was found, the others what is new. A
//! file system that hangs holds up this thread alone. Overflow policies: a process that finds the queue full, or comes when a hundred were
//! looked at within a second, is left to a look at everything a few seconds later; findings wait for their receiver.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread::{Builder, JoinHandle},
    time::{Duration, Instant},
};

use tokio::sync::mpsc::Sender;

use super::{Findings, finder::Finder};

/// From one look at everything to the next.
const PERIOD: Duration = Duration::from_secs(60);
/// Until the look that makes up for processes that were passed over.
const CATCH_UP: Duration = Duration::from_secs(5);
/// Processes that may wait.
const MOST_WAITING: usize = 256;
/// Processes looked at within a second: a build starts thousands.
const MOST_AT_ONCE: usize = 100;

/// What is to be looked at.
#[derive(Clone, Copy, Debug)]
enum Order {
    /// A process that has begun a program.
    Begun(u32),
    /// Everything.
    Everything,
}

/// The running thread. Dropping it ends it, after the look it is at.
#[derive(Debug)]
pub struct Service {
    orders: Option<mpsc::SyncSender<Order>>,
    /// A process found the queue full.
    missed: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Service {
    /// Starts the thread, with a finder that has looked once.
    ///
    /// # Errors
    /// No thread to be had.
    pub fn start(finder: Finder, findings: Sender<Findings>) -> std::io::Result<Self> {
        let (orders, ordered) = mpsc::sync_channel(MOST_WAITING);
        let missed = Arc::new(AtomicBool::new(false));
        let passed_over = missed.clone();
        let thread = Builder::new().name("nitro-find".into());
        let thread = thread.spawn(move || run(finder, &ordered, &passed_over, &findings))?;
        Ok(Self {
            orders: Some(orders),
            missed,
            thread: Some(thread),
        })
    }

    /// A process began a program. Never blocks.
    pub fn begun(&self, pid: u32) {
        self.order(Order::Begun(pid));
    }

    /// Asks for a look at everything. Never blocks.
    pub fn look(&self) {
        self.order(Order::Everything);
    }

    fn order(&self, order: Order) {
        if let Some(orders) = &self.orders
            && orders.try_send(order).is_err()
        {
            // The thread has much to read, and sees this before it waits again.
            self.missed.store(true, Ordering::Relaxed);
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            // A panic in it was already reported by the panic hook.
            let _ = thread.join();
        }
    }
}

fn run(mut finder: Finder, ordered: &mpsc::Receiver<Order>, missed: &AtomicBool, findings: &Sender<Findings>) {
    let mut next_look = Instant::now() + PERIOD;
    let (mut second, mut looked) = (Instant::now(), 0);
    loop {
        if missed.swap(false, Ordering::Relaxed) {
            next_look = next_look.min(Instant::now() + CATCH_UP);
        }
        let left = next_look.saturating_duration_since(Instant::now());
        let order = match left {
            // Also while programs start without end.
            Duration::ZERO => Err(RecvTimeoutError::Timeout),
            left => ordered.recv_timeout(left),
        };
        let found = match order {
            Ok(Order::Begun(pid)) => {
                if second.elapsed() >= Duration::from_secs(1) {
                    (second, looked) = (Instant::now(), 0);
                }
                looked += 1;
                if looked > MOST_AT_ONCE {
                    missed.store(true, Ordering::Relaxed);
                    continue;
                }
                finder.look_at(pid)
            }
            Ok(Order::Everything) | Err(RecvTimeoutError::Timeout) => {
                next_look = Instant::now() + PERIOD;
                finder.look()
            }
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let is_news = found.processes > 0 || !found.watch.is_empty() || !found.not_watched.is_empty();
        if is_news && findings.blocking_send(found).is_err() {
            return;
        }
    }
}
