//! An agent that runs on this machine while something is measured: it is paused, so that what is measured is one agent and not two.
//!
//! A pause lasts a minute and is ordered again before it is over, so that it ends by itself when this process is killed. One that somebody else ordered is left as it was.

use std::{
    path::{Path, PathBuf},
    sync::mpsc::{RecvTimeoutError, Sender, channel},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};

use crate::{
    bench::sweep,
    control::{
        client::{Client, ClientError},
        protocol::{Reply, Request},
    },
};

/// How long an ordered pause lasts, and how often it is ordered again.
const PAUSE: Duration = Duration::from_secs(60);
const AGAIN: Duration = Duration::from_secs(20);

/// A paused agent; it goes on when this is dropped.
#[derive(Debug)]
pub struct Paused {
    /// Its process.
    pub pid: u32,
    before: Before,
    stop: Option<Sender<()>>,
    renewing: Option<JoinHandle<()>>,
}

/// How the agent was before.
#[derive(Clone, Debug)]
struct Before {
    socket: PathBuf,
    /// When somebody else's pause would have ended.
    until: Option<Instant>,
}

/// Pauses the agent at `socket`; `None` if there is none, or if it is paused until further notice.
///
/// # Errors
/// There is one that does not answer or may not be asked.
pub fn pause(socket: &Path) -> anyhow::Result<Option<Paused>> {
    let status = match ask(socket, &Request::Status) {
        Ok(Reply::Status(status)) => status,
        Ok(_) => bail!(
            "what answers at {} is no nitro-agent: give its --socket",
            socket.display()
        ),
        Err(error) if matches!(error.downcast_ref(), Some(ClientError::NoAgent { .. })) => return Ok(None),
        Err(error) => {
            return Err(error
                .context("an agent runs already, which would be measured too, and cannot be paused: stop it first"));
        }
    };
    if status.paused && status.paused_seconds.is_none() {
        return Ok(None);
    }
    let left = status.paused_seconds.filter(|_| status.paused);
    let before = Before {
        socket: socket.to_owned(),
        until: left.map(|seconds| Instant::now() + Duration::from_secs_f64(seconds.clamp(0.0, 1e9))),
    };
    order(socket, Some(PAUSE)).context("cannot pause the agent that runs already: stop it first")?;
    let (stop, stopped) = channel();
    let path = socket.to_owned();
    let renew = move || {
        while stopped.recv_timeout(AGAIN) == Err(RecvTimeoutError::Timeout) {
            // It may have been stopped meanwhile.
            let _ = order(&path, Some(PAUSE));
        }
    };
    let renewing = std::thread::Builder::new().name("nitro-pause".into()).spawn(renew);
    let at_interrupt = before.clone();
    sweep::at_interrupt(move || at_interrupt.restore());
    Ok(Some(Paused {
        pid: status.pid,
        before,
        stop: Some(stop),
        renewing: Some(renewing.context("cannot start a thread")?),
    }))
}

impl Before {
    /// Whatever goes wrong, the pause ends by itself.
    fn restore(&self) {
        let left = self.until.map(|until| until.saturating_duration_since(Instant::now()));
        let _ = match left {
            Some(left) if !left.is_zero() => order(&self.socket, Some(left)),
            _ => order(&self.socket, None),
        };
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(renewing) = self.renewing.take() {
            let _ = renewing.join();
        }
        self.before.restore();
    }
}

/// Pauses for so long, or has it go on.
fn order(socket: &Path, pause: Option<Duration>) -> anyhow::Result<()> {
    let request = match pause {
        Some(time) => Request::Pause {
            seconds: Some(time.as_secs().max(1)),
        },
        None => Request::Resume,
    };
    match ask(socket, &request)? {
        Reply::Done => Ok(()),
        _ => bail!("the agent answered something else than was asked"),
    }
}

/// One question and its answer. Without the signal handling of [`super::ask::run`]: what is measured has its own.
fn ask(socket: &Path, request: &Request) -> anyhow::Result<Reply> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("cannot start the event loop")?.block_on(async {
        let mut client = Client::connect(socket).await?;
        client.ask(request).await?;
        Ok(client.next().await?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_an_agent_there_is_nothing_to_pause() {
        let dir = tempfile::tempdir().unwrap();
        assert!(pause(&dir.path().join("socket")).unwrap().is_none());
    }

    #[test]
    fn who_does_not_speak_is_not_taken_for_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let answering = std::thread::spawn(move || drop(listener.accept()));
        let error = format!("{:#}", pause(&path).unwrap_err());
        assert!(error.contains("stop it first"), "{error}");
        answering.join().unwrap();
    }
}
