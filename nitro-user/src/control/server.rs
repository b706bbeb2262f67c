//! Accepts connections and bounds them.
//!
//! In: a claimed socket. Out: [`Query`]s for the daemon's task, which answers each at once. Runs on the daemon's executor and never blocks it.
//!
//! Overflow policies: a connection beyond its pool is told so and closed; what waits to be accepted is the kernel's backlog; queries that the
//! daemon does not answer within [`Limits::answer`] are given up and the client is told that the agent is busy.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    net::{UnixListener, UnixStream},
    sync::{Semaphore, mpsc, oneshot, watch},
    task::{JoinHandle, JoinSet},
};

use super::{
    caller::Caller,
    connection::Connection,
    protocol::{self, Code, Refusal, Reply, Unwatched},
    socket::{Claimed, SocketFile},
};
use crate::{
    engine::{
        explanation::Explanation,
        order::{Command, OrderId, Progress},
    },
    observe::{history::Subscription, status::Status},
    trace::Frame,
};

/// Queries on their way to the daemon's task; a connection has at most one.
const QUERIES: usize = 16;

/// Pause after a connection could not be accepted, for want of descriptors as a rule: the kernel would report it again at once.
const PAUSE: Duration = Duration::from_millis(100);

/// An order that was taken: its number, and the last word about it.
pub type OrderTaken = (OrderId, watch::Receiver<Word>);

/// What is known of an order.
#[derive(Clone, Debug)]
pub enum Word {
    /// Nothing yet: it is looked for what is meant.
    Wait,
    /// So far it is.
    Progress(Progress),
    /// Nothing is done.
    Refused(Refusal),
}

/// What a connection needs to know from the daemon's task.
#[derive(Debug)]
pub enum Query {
    /// The agent's state.
    Status(oneshot::Sender<Box<Status>>),
    /// The last receipts, and those to come.
    Receipts(oneshot::Sender<Subscription>),
    /// Bring nothing in, for so long, or until told.
    Pause(Option<Duration>, oneshot::Sender<()>),
    /// Go on.
    Resume(oneshot::Sender<()>),
    /// Record what happens, so many times a second at most: the number of the recording, and its frames.
    Record(u64, oneshot::Sender<Result<(u64, mpsc::Receiver<Frame>), Refusal>>),
    /// The recording of this number is to end.
    EndRecording(u64),
    /// Do this with what is at these paths: the number of the order, and how far it is from time to time.
    Order(Command, Vec<PathBuf>, oneshot::Sender<Result<OrderTaken, Refusal>>),
    /// The order of this number is not wanted any more.
    Withdraw(OrderId),
    /// What is known of the models at these paths.
    Explain(Vec<PathBuf>, oneshot::Sender<Result<Vec<Explanation>, Refusal>>),
    /// Forget what was learned of the models at these paths; everything without.
    Forget(Option<Vec<PathBuf>>, oneshot::Sender<Result<(), Refusal>>),
    /// Watch nothing at or below this path.
    Unwatch(PathBuf, oneshot::Sender<Result<Unwatched, Refusal>>),
}

/// Bounds on what clients may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections of root and of the agent's own user; all others together have as many, so that they cannot lock root out.
    pub connections: usize,
    /// Time for a request to arrive.
    pub request: Duration,
    /// Time for a client to take one line.
    pub write: Duration,
    /// Time for the daemon's task to answer.
    pub answer: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 16,
            request: Duration::from_secs(10),
            write: Duration::from_secs(10),
            answer: Duration::from_secs(5),
        }
    }
}

/// The running server. Dropping it ends it and removes the socket's file.
#[derive(Debug)]
pub struct Server {
    stop: watch::Sender<()>,
    task: JoinHandle<()>,
    _file: SocketFile,
}

impl Server {
    /// Starts answering, on the executor this is called on.
    ///
    /// # Errors
    /// The executor cannot wait for the socket.
    pub fn start(claimed: Claimed, limits: Limits) -> io::Result<(Self, mpsc::Receiver<Query>)> {
        let Claimed { listener, file } = claimed;
        let listener = UnixListener::from_std(listener)?;
        let (ask, queries) = mpsc::channel(QUERIES);
        let (stop, stopped) = watch::channel(());
        let task = tokio::spawn(accept(listener, limits, ask, stopped));
        let _file = file;
        Ok((Self { stop, task, _file }, queries))
    }

    /// Tells the clients and ends, within `grace` or without those that do not listen.
    pub async fn stop(self, grace: Duration) {
        drop(self.stop);
        let end = self.task.abort_handle();
        if tokio::time::timeout(grace, self.task).await.is_err() {
            end.abort();
        }
    }
}

async fn accept(
    listener: UnixListener,
    limits: Limits,
    queries: mpsc::Sender<Query>,
    mut stopped: watch::Receiver<()>,
) {
    let own = nix::unistd::geteuid().as_raw();
    let privileged = Arc::new(Semaphore::new(limits.connections));
    let others = Arc::new(Semaphore::new(limits.connections));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
            _ = stopped.changed() => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!("cannot accept a connection on the control socket: {error}");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let caller = match stream.peer_cred() {
            Ok(peer) => Caller::new(peer.uid(), own),
            Err(error) => {
                tracing::debug!("a client without credentials was refused: {error}");
                continue;
            }
        };
        let pool = if caller.is_privileged() { &privileged } else { &others };
        match pool.clone().try_acquire_owned() {
            Ok(place) => {
                let connection = Connection::new(stream, caller, limits, queries.clone(), stopped.clone());
                connections.spawn(async move {
                    connection.serve().await;
                    drop(place);
                });
            }
            Err(_) => refuse(&stream, limits.connections),
        }
    }
    while connections.join_next().await.is_some() {}
}

/// Tells a client that there are too many. Its buffer is empty: the line fits, or the client does without.
fn refuse(stream: &UnixStream, most: usize) {
    let refusal = Refusal::new(
        Code::TooMany,
        format!("the agent serves {most} clients at once and has them: end one, or try again later"),
    );
    if let Ok(line) = protocol::encode_reply(&Reply::Error(refusal)) {
        let _ = stream.try_write(&line);
    }
}
