//! What the subcommands that ask a running agent have in common: the socket, the runtime, Ctrl-C, a standard output that may be closed.

use std::{
    future::Future,
    io::{self, Write},
    os::fd::AsFd,
    path::PathBuf,
};

use anyhow::Context;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use crate::sys::readiness;

/// Where the agent is asked.
#[derive(Debug, Args)]
pub struct Socket {
    /// Control socket of the agent.
    #[arg(long, value_name = "PATH", default_value = crate::config::SOCKET)]
    pub socket: PathBuf,
}

/// Runs `asking` to its end, or until Ctrl-C, SIGTERM or the end of whoever reads the output, which are no errors.
///
/// # Errors
/// What `asking` ends with.
pub fn run(asking: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("cannot start the event loop")?.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot take SIGINT")?;
        let mut terminate = signal(SignalKind::terminate()).context("cannot take SIGTERM")?;
        let out = io::stdout();
        tokio::select! {
            done = asking => done,
            _ = interrupt.recv() => Ok(()),
            _ = terminate.recv() => Ok(()),
            // `nitro-agent loads --follow | head -1`: there is nobody to follow for.
            () = readiness::reader_gone(out.as_fd()) => Ok(()),
        }
    })
}

/// Prints a line. False when nobody reads any more, which is no error: there is nothing left to do.
///
/// # Errors
/// Standard output cannot be written to for another reason.
pub fn print(line: &str) -> anyhow::Result<bool> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error).context("cannot write to standard output"),
    }
}
