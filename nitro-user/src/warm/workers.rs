//! The streams: one thread per load that is being helped.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{SyncSender, TrySendError, sync_channel},
    },
    thread::JoinHandle,
};

use tokio::sync::mpsc::Sender;

use super::{
    account::Accountant,
    quiet::Quiet,
    stream::{Command, Stream},
};
use crate::{
    catalog::model::Model,
    engine::{
        action::{LoadId, Manner},
        input::Outcome,
    },
    sys::lent::Lenders,
    units::ByteRange,
};

/// Steps that may wait in a stream; the engine keeps fewer in flight per device.
const QUEUE: usize = 256;

/// Streams at once. A machine that loads more models at a time is bound by its devices anyway.
const MOST_STREAMS: usize = 64;

/// The threads need little: a step's mincore vector is on the heap.
const STACK: usize = 128 << 10;

/// Why a step was not taken.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// Its stream, or the number of streams, is full.
    #[error("too many steps or loads at once")]
    Busy,
    /// No thread to be had.
    #[error("cannot start a warming thread: {0}")]
    Thread(#[from] io::Error),
}

struct Handle {
    commands: SyncSender<Command>,
    epoch: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

/// All streams. Owned by the daemon; no call blocks.
pub struct Workers {
    streams: HashMap<LoadId, Handle>,
    /// Closed streams that may still wait for their last step.
    ending: Vec<JoinHandle<()>>,
    outcomes: Sender<Outcome>,
    quiet: Arc<Quiet>,
    accountant: Option<Arc<Accountant>>,
    lenders: Lenders,
}

impl std::fmt::Debug for Workers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Workers {{ {} streams, {} ending }}",
            self.streams.len(),
            self.ending.len()
        )
    }
}

impl Workers {
    /// No streams yet; their outcomes will go to `outcomes`. `accountant` is needed for steps on others' account, `lenders` for files that the agent may not open.
    pub fn new(outcomes: Sender<Outcome>, accountant: Option<Accountant>, lenders: Lenders) -> Self {
        Self {
            streams: HashMap::new(),
            ending: Vec::new(),
            outcomes,
            quiet: Arc::default(),
            accountant: accountant.map(Arc::new),
            lenders,
        }
    }

    /// Queues a step.
    ///
    /// # Errors
    /// [`Refused`]: the step gets no outcome then.
    pub fn warm(
        &mut self,
        load: LoadId,
        model: Arc<Model>,
        part: usize,
        range: ByteRange,
        manner: Manner,
    ) -> Result<(), Refused> {
        self.ending.retain(|thread| !thread.is_finished());
        if !self.streams.contains_key(&load) {
            if self.streams.len() + self.ending.len() >= MOST_STREAMS {
                return Err(Refused::Busy);
            }
            let (commands, inbox) = sync_channel(QUEUE);
            let epoch = Arc::new(AtomicU64::new(0));
            let stream = Stream {
                load,
                commands: inbox,
                epoch: epoch.clone(),
                outcomes: self.outcomes.clone(),
                quiet: self.quiet.clone(),
                accountant: self.accountant.clone(),
                lenders: self.lenders.clone(),
            };
            let thread = std::thread::Builder::new()
                .name("nitro-warm".into())
                .stack_size(STACK)
                .spawn(move || stream.run())?;
            self.streams.insert(
                load,
                Handle {
                    commands,
                    epoch,
                    thread,
                },
            );
        }
        let Some(stream) = self.streams.get(&load) else {
            return Err(Refused::Busy);
        };
        let epoch = stream.epoch.load(Ordering::Acquire);
        stream
            .commands
            .try_send(Command {
                model,
                part,
                range,
                survey: manner.survey,
                speculative: manner.speculative,
                reader: manner.reader,
                charged: manner.charged,
                epoch,
            })
            .map_err(|refused| match refused {
                TrySendError::Full(_) | TrySendError::Disconnected(_) => Refused::Busy,
            })
    }

    /// Cancels what is queued for a load.
    pub fn cancel(&self, load: LoadId) {
        if let Some(stream) = self.streams.get(&load) {
            stream.epoch.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Ends a load's stream: after its last submitted step it closes its descriptors.
    pub fn close(&mut self, load: LoadId) {
        if let Some(stream) = self.streams.remove(&load) {
            drop(stream.commands);
            self.ending.push(stream.thread);
        }
    }

    /// Cancels and closes everything. Threads that hang in a dead file system are left to the end of the process.
    pub fn close_all(&mut self) {
        let loads: Vec<LoadId> = self.streams.keys().copied().collect();
        for load in loads {
            self.cancel(load);
            self.close(load);
        }
    }
}
