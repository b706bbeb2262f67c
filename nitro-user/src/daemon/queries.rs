//! What clients of the control socket ask of the daemon's task, and its answers.
//!
//! One who has gone meanwhile needs no answer. Nothing here blocks: what the catalog does, its own event answers.

use std::path::{Path, PathBuf};

use tokio::sync::oneshot;

use super::{orders::Meant, status::status, wiring::Wiring};
use crate::{
    catalog::{CatalogRequest, Kept, Left},
    control::{
        Query,
        protocol::{Code, Refusal, Unwatched},
    },
    engine::Input,
    source::events::EventSource,
    sys::clock,
};

/// Somebody waits to hear what is no longer watched.
pub struct Unwatching {
    path: PathBuf,
    done: oneshot::Sender<Result<Unwatched, Refusal>>,
}

impl Wiring {
    /// Somebody asks over the control socket.
    pub fn query(&mut self, query: Query, source: &EventSource) {
        match query {
            Query::Status(answer) => {
                if let Some((started, ready)) = &self.started {
                    let _ = answer.send(Box::new(status(started, *ready, &self.engine, source)));
                }
            }
            Query::Receipts(answer) => {
                let _ = answer.send(self.history.subscribe());
            }
            Query::Pause(time, done) => {
                let until = time.map(|time| clock::now().after(time));
                match time {
                    Some(time) => tracing::info!("paused for {} s", time.as_secs()),
                    None => tracing::info!("paused"),
                }
                self.feed(Input::Pause { until });
                self.lent.let_go();
                let _ = done.send(());
            }
            Query::Resume(done) => {
                tracing::info!("going on");
                self.feed(Input::Resume);
                let _ = done.send(());
            }
            Query::Order(command, paths, answer) => self.order(command, paths, answer),
            Query::Withdraw(order) => self.withdraw(order),
            Query::Explain(paths, answer) => self.look_up(paths, Meant::Explain(answer)),
            Query::Forget(Some(paths), done) => self.look_up(paths.clone(), Meant::Forget(paths, done)),
            Query::Forget(None, done) => {
                tracing::info!("what was learned is forgotten");
                self.feed(Input::Forget { path: None });
                let _ = done.send(Ok(()));
            }
            Query::Unwatch(path, done) => self.unwatch(path, done),
            Query::Record(rate, answer) => self.record(rate, answer, source),
            Query::EndRecording(number) => self.recording.end(Some(number)),
        }
    }

    /// What is read there ends at once; the catalog, which may be in the middle of a scan, lets go of the files.
    fn unwatch(&mut self, path: PathBuf, done: oneshot::Sender<Result<Unwatched, Refusal>>) {
        tracing::info!(?path, "no longer watched");
        self.feed(Input::Unwatched { path: path.clone() });
        match self.catalog.ask(CatalogRequest::Unwatch(path.clone())) {
            Ok(()) => self.unwatching.push_back(Unwatching { path, done }),
            Err(refused) => {
                let _ = done.send(Err(Refusal::new(Code::Busy, format!("{refused}: try again"))));
            }
        }
    }

    /// The catalog has let go of what was unwatched, or says why not.
    pub fn left(&mut self, path: &Path, left: Result<Left, Kept>) {
        // The first answer of several parts is the one that is waited for.
        let waits = self.unwatching.iter().position(|waiting| waiting.path == path);
        let Some(Unwatching { path, done }) = waits.and_then(|at| self.unwatching.remove(at)) else {
            return;
        };
        // A load may have begun since, by what was known of its files before.
        self.feed(Input::Unwatched { path });
        let answer = match left {
            Ok(Left { roots, files, bytes }) => Ok(Unwatched { roots, files, bytes }),
            Err(kept) => {
                let code = match kept {
                    Kept::Stranger { .. } => Code::NotWatched,
                    Kept::TooMany => Code::TooMany,
                };
                Err(Refusal::new(code, kept.to_string()))
            }
        };
        let _ = done.send(answer);
    }
}
