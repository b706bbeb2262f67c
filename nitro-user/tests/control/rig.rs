//! A server by itself, and somebody who answers for the agent.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
};

use nitro_user::{
    control::{
        Query, Server,
        client::Client,
        protocol::{Code, Refusal, Unwatched},
        server::{Limits, Word},
        socket::claim,
    },
    engine::input::OrderId,
    observe::{
        history::{History, Kept},
        status::{LoadStatus, Status},
    },
    trace::Frame,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    sync::{mpsc, watch},
    time::timeout,
};

use super::SOON;

/// A server with a history, and a state of which loads of some users are part.
pub struct Rig {
    pub folder: TempDir,
    pub server: Option<Server>,
    pub history: Arc<Mutex<History>>,
    /// Where an order's words come from, while somebody waits for them.
    pub order: Arc<Mutex<Option<watch::Sender<Word>>>>,
}

impl Rig {
    pub fn new(limits: Limits) -> Self {
        Self::with(limits, None)
    }

    pub fn with(limits: Limits, group: Option<&str>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let claimed = claim(&folder.path().join("s"), group).unwrap();
        let (server, mut queries) = Server::start(claimed, limits).unwrap();
        let history = Arc::new(Mutex::new(History::default()));
        let shared = history.clone();
        let order: Arc<Mutex<Option<watch::Sender<Word>>>> = Arc::default();
        let given = order.clone();
        tokio::spawn(async move {
            let mut recording = None;
            while let Some(query) = queries.recv().await {
                match query {
                    Query::Status(answer) => {
                        let load = |user| LoadStatus {
                            user,
                            ..LoadStatus::default()
                        };
                        let status = Status {
                            roots: vec!["/models".into()],
                            loads: vec![load(None), load(Some(0)), load(Some(65_534))],
                            ..Status::default()
                        };
                        let _ = answer.send(Box::new(status));
                    }
                    Query::Receipts(answer) => {
                        let _ = answer.send(shared.lock().unwrap().subscribe());
                    }
                    Query::Pause(_, done) | Query::Resume(done) => {
                        let _ = done.send(());
                    }
                    Query::Unwatch(_, done) => {
                        let _ = done.send(Ok(Unwatched::default()));
                    }
                    Query::Record(rate, answer) => {
                        let (tell, frames) = mpsc::channel(4);
                        tell.try_send(Frame::pack(&rate.to_le_bytes()).unwrap()).unwrap();
                        recording = Some(tell);
                        let _ = answer.send(Ok((7, frames)));
                    }
                    Query::Order(_, paths, answer) => {
                        let first = if paths == [PathBuf::from("/nowhere")] {
                            Word::Refused(Refusal::new(Code::NotWatched, "nothing there"))
                        } else {
                            Word::Wait
                        };
                        let (tell, word) = watch::channel(Word::Wait);
                        tell.send_replace(first);
                        let _ = answer.send(Ok((OrderId(9), word)));
                        *order.lock().unwrap() = Some(tell);
                    }
                    Query::Explain(_, answer) => {
                        let _ = answer.send(Ok(Vec::new()));
                    }
                    Query::Forget(paths, done) => {
                        let refused = Refusal::new(Code::Busy, "not now");
                        let _ = done.send(if paths.is_none() { Ok(()) } else { Err(refused) });
                    }
                    Query::Withdraw(OrderId(9)) => *order.lock().unwrap() = None,
                    Query::Withdraw(other) => panic!("{other:?}"),
                    Query::EndRecording(number) => {
                        let tell = recording.take().unwrap();
                        tell.try_send(Frame::pack(&[number as u8]).unwrap()).unwrap();
                    }
                }
            }
        });
        Self {
            folder,
            server: Some(server),
            history,
            order: given,
        }
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().join("s")
    }

    pub fn keep(&self, kept: Kept) {
        self.history.lock().unwrap().keep(kept);
    }

    pub async fn client(&self) -> Client {
        Client::connect(&self.path()).await.unwrap()
    }

    /// Sends bytes and reads until the server closes.
    pub async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = UnixStream::connect(self.path()).await.unwrap();
        // The server may close before it has read all.
        let _ = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        let read = timeout(SOON, stream.read_to_end(&mut answer)).await.unwrap();
        // What was left unread ends the connection with a reset, after the answer.
        assert!(read.is_ok() || !answer.is_empty());
        String::from_utf8(answer).unwrap()
    }
}
