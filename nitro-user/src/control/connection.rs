//! One client: reads its requests, answers them, lets it follow.
//!
//! It holds one request and one reply at a time. Every wait has an end: for a request, for the daemon's task, for the client to take a line;
//! a follower waits for receipts without one, and ends with its client, with the agent, or when it falls behind.

use std::{sync::Arc, time::Duration};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{
        broadcast::{Receiver, error::RecvError},
        mpsc, oneshot, watch,
    },
    time::timeout,
};

use super::{
    caller::Caller,
    lines::{self, Line},
    protocol::{self, Code, End, MOST_REQUEST_BYTES, Refusal, Reply, Request},
    server::{Limits, Query, Word},
};
use crate::{observe::history::Kept, trace::Frame};

/// A client that is being served.
pub struct Connection {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    caller: Caller,
    limits: Limits,
    queries: mpsc::Sender<Query>,
    stopped: watch::Receiver<()>,
}

/// The connection is of no more use: the client has gone, or does not take what it asked for.
struct Lost;

type Served = Result<(), Lost>;

impl Connection {
    /// Nothing asked yet. `stopped` ends when the agent stops.
    pub fn new(
        stream: UnixStream,
        caller: Caller,
        limits: Limits,
        queries: mpsc::Sender<Query>,
        stopped: watch::Receiver<()>,
    ) -> Self {
        let (reader, writer) = stream.into_split();
        Self {
            reader: BufReader::new(reader),
            writer,
            caller,
            limits,
            queries,
            stopped,
        }
    }

    /// Answers until the client ends, errs, or is too slow.
    pub async fn serve(mut self) {
        // A client that has gone needs no word.
        let _ = self.requests().await;
    }

    async fn requests(&mut self) -> Served {
        loop {
            let line = tokio::select! {
                line = timeout(self.limits.request, lines::read(&mut self.reader, MOST_REQUEST_BYTES)) => line,
                _ = self.stopped.changed() => return self.send(&Reply::End(End::Stopping)).await,
            };
            let line = match line {
                Err(_) => return self.refuse(Code::Timeout, "no request came in time").await,
                Ok(Ok(Line::Whole(line))) => line,
                Ok(Ok(Line::TooLong)) => {
                    let message = format!("the request is longer than {MOST_REQUEST_BYTES} bytes");
                    return self.refuse(Code::TooLong, &message).await;
                }
                Ok(Ok(Line::End) | Err(_)) => return Err(Lost),
            };
            match protocol::decode(&line) {
                Ok(request) => self.answer(request).await?,
                // Whatever comes after a line that is no request is none either.
                Err(refusal) => return self.send(&Reply::Error(refusal)).await,
            }
        }
    }

    async fn answer(&mut self, request: Request) -> Served {
        match request {
            Request::Status => {
                let Some(mut status) = self.ask(Query::Status).await else {
                    return self.busy().await;
                };
                self.caller.narrow(&mut status);
                self.send(&Reply::Status(status)).await
            }
            Request::Loads { follow } => {
                let Some((kept, next)) = self.ask(Query::Receipts).await else {
                    return self.busy().await;
                };
                for kept in kept {
                    self.receipt(kept).await?;
                }
                if follow {
                    self.follow(next).await?;
                    return Err(Lost);
                }
                self.send(&Reply::End(End::Complete)).await
            }
            Request::Pause { .. }
            | Request::Resume
            | Request::Unwatch { .. }
            | Request::ByHand { .. }
            | Request::Explain { .. }
            | Request::Forget { .. }
            | Request::Record { .. }
                if !self.caller.is_privileged() =>
            {
                let message = "only root, or the user the agent runs as, may do this: try sudo";
                self.refuse(Code::Forbidden, message).await
            }
            Request::Pause { seconds } => {
                let time = seconds.map(Duration::from_secs);
                self.order(|done| Query::Pause(time, done)).await
            }
            Request::Resume => self.order(Query::Resume).await,
            Request::Unwatch { path } => match self.ask(|done| Query::Unwatch(path, done)).await {
                Some(Ok(unwatched)) => self.send(&Reply::Unwatched(unwatched)).await,
                Some(Err(refusal)) => self.send(&Reply::Error(refusal)).await,
                None => self.busy().await,
            },
            Request::ByHand { command, paths } => {
                let paths = paths.into_iter().map(|path| path.0).collect();
                match self.ask(|answer| Query::Order(command, paths, answer)).await {
                    Some(Ok((order, word))) => {
                        let served = self.report(word).await;
                        // Also of one that is over: the daemon's task knows.
                        let _ = self.queries.send(Query::Withdraw(order)).await;
                        served
                    }
                    Some(Err(refusal)) => self.send(&Reply::Error(refusal)).await,
                    None => self.busy().await,
                }
            }
            Request::Explain { paths } => {
                let paths = paths.into_iter().map(|path| path.0).collect();
                match self.ask(|answer| Query::Explain(paths, answer)).await {
                    Some(Ok(explained)) => self.send(&Reply::Explained(explained)).await,
                    Some(Err(refusal)) => self.send(&Reply::Error(refusal)).await,
                    None => self.busy().await,
                }
            }
            Request::Forget { paths } => {
                let paths = paths.map(|paths| paths.into_iter().map(|path| path.0).collect());
                match self.ask(|done| Query::Forget(paths, done)).await {
                    Some(Ok(())) => self.send(&Reply::Done).await,
                    Some(Err(refusal)) => self.send(&Reply::Error(refusal)).await,
                    None => self.busy().await,
                }
            }
            Request::Record { rate } => match self.ask(|answer| Query::Record(rate, answer)).await {
                Some(Ok((number, frames))) => self.record(number, frames).await,
                Some(Err(refusal)) => self.send(&Reply::Error(refusal)).await,
                None => self.busy().await,
            },
        }
    }

    /// Passes the frames of a recording on until the client has had enough of it, or the agent stops, and then what is left of it.
    async fn record(&mut self, number: u64, mut frames: mpsc::Receiver<Frame>) -> Served {
        self.send(&Reply::Recording).await?;
        let mut goes_on = true;
        loop {
            tokio::select! {
                frame = frames.recv() => {
                    // Without a word at the end: whoever reads frames sees where they end.
                    let frame = frame.ok_or(Lost)?;
                    match timeout(self.limits.write, self.writer.write_all(frame.bytes())).await {
                        Ok(Ok(())) => {}
                        Ok(Err(_)) | Err(_) => return Err(Lost),
                    }
                }
                // Its end, or whatever it says.
                _ = self.reader.fill_buf(), if goes_on => {
                    goes_on = false;
                    self.queries.send(Query::EndRecording(number)).await.map_err(|_| Lost)?;
                }
            }
        }
    }

    /// Passes on how far an order is, until it is over or its client has gone.
    async fn report(&mut self, mut word: watch::Receiver<Word>) -> Served {
        loop {
            tokio::select! {
                // Without one the agent ends.
                changed = word.changed() => if changed.is_err() {
                    return self.send(&Reply::End(End::Stopping)).await;
                },
                _ = self.stopped.changed() => return self.send(&Reply::End(End::Stopping)).await,
                _ = self.reader.fill_buf() => return Err(Lost),
            }
            let said = word.borrow_and_update().clone();
            match said {
                Word::Wait => {}
                Word::Progress(progress) => {
                    self.send(&Reply::Progress(progress)).await?;
                    if progress.over {
                        return self.send(&Reply::End(End::Complete)).await;
                    }
                }
                Word::Refused(refusal) => return self.send(&Reply::Error(refusal)).await,
            }
        }
    }

    async fn order(&mut self, query: impl FnOnce(oneshot::Sender<()>) -> Query) -> Served {
        match self.ask(query).await {
            Some(()) => self.send(&Reply::Done).await,
            None => self.busy().await,
        }
    }

    /// Passes receipts on as they come.
    async fn follow(&mut self, mut next: Receiver<Arc<Kept>>) -> Served {
        loop {
            let kept = tokio::select! {
                kept = next.recv() => kept,
                _ = self.stopped.changed() => return self.send(&Reply::End(End::Stopping)).await,
                said = self.reader.fill_buf() => {
                    if said.is_ok_and(|said| !said.is_empty()) {
                        return self.refuse(Code::Malformed, "nothing can be asked while following: connect again").await;
                    }
                    return Err(Lost);
                }
            };
            match kept {
                Ok(kept) => self.receipt(kept).await?,
                Err(RecvError::Lagged(lost)) => {
                    let message = format!("{lost} receipts were lost, since they came faster than they were read");
                    return self.refuse(Code::TooSlow, &message).await;
                }
                Err(RecvError::Closed) => return self.send(&Reply::End(End::Stopping)).await,
            }
        }
    }

    async fn receipt(&mut self, kept: Arc<Kept>) -> Served {
        if !self.caller.sees(kept.receipt.user) {
            return Ok(());
        }
        self.send(&Reply::Receipt(kept)).await
    }

    /// Asks the daemon's task; `None` when it does not answer in time.
    async fn ask<T>(&self, query: impl FnOnce(oneshot::Sender<T>) -> Query) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        let asked = async {
            self.queries.send(query(answer)).await.ok()?;
            answered.await.ok()
        };
        timeout(self.limits.answer, asked).await.ok().flatten()
    }

    async fn busy(&mut self) -> Served {
        let message = "the agent is starting or stopping, or too busy to answer: try again";
        self.refuse(Code::Busy, message).await
    }

    async fn refuse(&mut self, code: Code, message: &str) -> Served {
        self.send(&Reply::Error(Refusal::new(code, message))).await
    }

    async fn send(&mut self, reply: &Reply) -> Served {
        let line = protocol::encode_reply(reply).map_err(|error| {
            tracing::warn!("a reply could not be written as JSON: {error}");
            Lost
        })?;
        match timeout(self.limits.write, self.writer.write_all(&line)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Lost),
        }
    }
}
