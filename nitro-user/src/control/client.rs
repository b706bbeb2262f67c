//! Asking a running agent, for the subcommands.
//!
//! In: a socket path and a request. Out: its replies, one by one. Every wait has an end, but that for the next receipt while following.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{
    io::{AsyncWriteExt, BufReader},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::timeout,
};

use super::{
    lines::{self, Line},
    protocol::{self, Refusal, Reply, Request},
};

/// Longest reply taken: a status with thousands of loads.
const MOST_REPLY_BYTES: usize = 16 << 20;

/// How long an agent may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error(
        "no agent answers at {path}: start one with `sudo nitro-agent --watch DIR`, or give its --socket ({source})"
    )]
    NoAgent {
        /// The socket.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The socket is not for this user.
    #[error("you may not use {path}: run with sudo, or start the agent with --socket-group and a group of yours")]
    Forbidden {
        /// The socket.
        path: String,
    },
    /// It listens and says nothing.
    #[error("the agent at {path} does not answer: it hangs or is stopped")]
    Silent {
        /// The socket.
        path: String,
    },
    /// It refuses.
    #[error("the agent at {path} refuses: {refusal}")]
    Refused {
        /// The socket.
        path: String,
        /// Why.
        refusal: Refusal,
    },
    /// The connection ended in the middle.
    #[error("the agent at {path} has ended, or gave this reader up since it was too slow")]
    Ended {
        /// The socket.
        path: String,
    },
    /// What came is no reply of this version.
    #[error("what answers at {path} is no nitro-agent of version {}: {why}", env!("CARGO_PKG_VERSION"))]
    Foreign {
        /// The socket.
        path: String,
        /// What is wrong with it.
        why: String,
    },
}

/// A connection to a running agent.
#[derive(Debug)]
pub struct Client {
    path: PathBuf,
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// [`ClientError::NoAgent`], [`ClientError::Forbidden`], [`ClientError::Silent`].
    pub async fn connect(path: &Path) -> Result<Self, ClientError> {
        let connected = timeout(PATIENCE, UnixStream::connect(path)).await;
        let stream = connected.map_err(|_| ClientError::Silent { path: name(path) })?;
        let stream = stream.map_err(|source| match source.kind() {
            io::ErrorKind::PermissionDenied => ClientError::Forbidden { path: name(path) },
            _ => ClientError::NoAgent {
                path: name(path),
                source,
            },
        })?;
        let (reader, writer) = stream.into_split();
        Ok(Self {
            path: path.to_owned(),
            reader: BufReader::new(reader),
            writer,
        })
    }

    /// Sends a request; its replies come from [`Client::next`].
    ///
    /// # Errors
    /// [`ClientError::Silent`]. A connection that the agent has closed is found out by [`Client::next`], after its last word.
    pub async fn ask(&mut self, request: &Request) -> Result<(), ClientError> {
        let line = protocol::encode_request(request).map_err(|error| self.foreign(&error))?;
        match timeout(PATIENCE, self.writer.write_all(&line)).await {
            Ok(_) => Ok(()),
            Err(_) => Err(ClientError::Silent { path: name(&self.path) }),
        }
    }

    /// The next reply, within the time that an agent may take.
    ///
    /// # Errors
    /// [`ClientError`]; a refusal is one.
    pub async fn next(&mut self) -> Result<Reply, ClientError> {
        let next = timeout(PATIENCE, self.next_ever()).await;
        next.map_err(|_| ClientError::Silent { path: name(&self.path) })?
    }

    /// The next reply, whenever it comes.
    ///
    /// # Errors
    /// As [`Client::next`].
    pub async fn next_ever(&mut self) -> Result<Reply, ClientError> {
        let line = match lines::read(&mut self.reader, MOST_REPLY_BYTES).await {
            Ok(Line::Whole(line)) if line.ends_with(b"\n") => line,
            Ok(Line::TooLong) => return Err(self.foreign(&"its reply is too long")),
            Ok(Line::Whole(_) | Line::End) | Err(_) => return Err(ClientError::Ended { path: name(&self.path) }),
        };
        match serde_json::from_slice(&line).map_err(|error| self.foreign(&error))? {
            Reply::Error(refusal) => Err(ClientError::Refused {
                path: name(&self.path),
                refusal,
            }),
            reply => Ok(reply),
        }
    }

    /// What comes after the last reply, as it comes; ending the writer ends what the agent sends.
    pub fn into_stream(self) -> (BufReader<OwnedReadHalf>, OwnedWriteHalf) {
        (self.reader, self.writer)
    }

    fn foreign(&self, why: &dyn std::fmt::Display) -> ClientError {
        ClientError::Foreign {
            path: name(&self.path),
            why: why.to_string(),
        }
    }
}

fn name(path: &Path) -> String {
    crate::units::printable(&path.to_string_lossy())
}
