//! `nitro-agent pin|unpin|warm|evict PATH…|MODEL…`.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::{
    ask::{self, Socket, print},
    model,
};
use crate::{
    config::resolve_home,
    control::{
        client::Client,
        protocol::{Reply, Request},
        wire_path::WirePath,
    },
    engine::{
        input::{Command, StepEnd},
        order::Progress,
    },
    units::{ByteCount, Rate, printable},
};

/// Flags of `pin`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sudo nitro-agent pin llama3:8b
  sudo nitro-agent pin /data/models/small.gguf /data/tokenizers

It stays locked until `nitro-agent unpin`, or until memory runs short. The agent must have been started with --pin SIZE.")]
pub struct PinOptions {
    #[command(flatten)]
    common: Common,
}

/// Flags of `unpin`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sudo nitro-agent unpin llama3:8b
  sudo nitro-agent unpin /data/models

What is let go stays in the page cache until the kernel needs the memory, and is not locked again before it is used.")]
pub struct UnpinOptions {
    #[command(flatten)]
    common: Common,
}

/// Flags of `warm`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sudo nitro-agent warm llama3:8b
  sudo nitro-agent warm ~/.cache/huggingface/hub/models--org--name
  sudo nitro-agent warm /data/models/a.gguf --json

It gives way to everybody who uses the disk, and ends at the ceiling (--memory) and where memory gets short.")]
pub struct WarmOptions {
    #[command(flatten)]
    common: Common,
}

/// Flags of `evict`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sudo nitro-agent evict llama3:8b
  sudo nitro-agent evict /data/models

What a live process has mapped stays, and so does what is not on the disk yet.")]
pub struct EvictOptions {
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
struct Common {
    /// Files, directories with all that is below them, or names of models.
    #[arg(value_name = "PATH|MODEL", required = true)]
    what: Vec<PathBuf>,
    /// One JSON object per line, the last with "over": true.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    socket: Socket,
}

/// Locks.
///
/// # Errors
/// No agent, no permission, nothing watched there, or not all of it could be locked.
pub fn pin(options: &PinOptions) -> anyhow::Result<()> {
    run(&options.common, Command::Pin)
}

/// Lets go.
///
/// # Errors
/// No agent, no permission, nothing watched there.
pub fn unpin(options: &UnpinOptions) -> anyhow::Result<()> {
    run(&options.common, Command::Unpin)
}

/// Brings in.
///
/// # Errors
/// As [`pin`].
pub fn warm(options: &WarmOptions) -> anyhow::Result<()> {
    run(&options.common, Command::Warm)
}

/// Drops.
///
/// # Errors
/// No agent, no permission, nothing watched there.
pub fn evict(options: &EvictOptions) -> anyhow::Result<()> {
    run(&options.common, Command::Evict)
}

fn run(options: &Common, command: Command) -> anyhow::Result<()> {
    ask::run(async {
        let roots = roots(&options.socket).await?;
        let paths = paths(&options.what, &roots)?;
        let mut client = Client::connect(&options.socket.socket).await?;
        let began = Instant::now();
        client.ask(&Request::ByHand { command, paths }).await?;
        let progress = follow(&mut client, options.json).await?;
        if options.json {
            if progress.failed > 0 {
                bail!("{}", failed(command, &progress));
            }
            return Ok(());
        }
        let names: Vec<String> = options
            .what
            .iter()
            .map(|what| printable(&what.to_string_lossy()))
            .collect();
        print(&format!(
            "{}: {}",
            names.join(", "),
            said(command, &progress, began.elapsed())
        ))?;
        if progress.failed > 0 {
            bail!("{}", failed(command, &progress));
        }
        Ok(())
    })
}

/// The directories that the agent watches.
pub(super) async fn roots(socket: &Socket) -> anyhow::Result<Vec<PathBuf>> {
    let mut client = Client::connect(&socket.socket).await?;
    client.ask(&Request::Status).await?;
    match client.next().await? {
        Reply::Status(status) => Ok(status.roots.iter().map(PathBuf::from).collect()),
        _ => bail!("the agent stopped before it answered"),
    }
}

/// The canonical paths of what was named.
pub(super) fn paths(what: &[PathBuf], roots: &[PathBuf]) -> anyhow::Result<Vec<WirePath>> {
    let mut paths = BTreeSet::new();
    for what in what {
        let given = resolve_home(what);
        let meant = match given.symlink_metadata() {
            Ok(_) => vec![given],
            Err(_) => model::find(what, roots)?.paths,
        };
        for path in meant {
            let canonical = path.canonicalize();
            paths.insert(canonical.with_context(|| format!("cannot look at {path:?}"))?);
        }
    }
    Ok(paths.into_iter().map(WirePath).collect())
}

/// Shows how far it is until it is over.
async fn follow(client: &mut Client, json: bool) -> anyhow::Result<Progress> {
    #[derive(Serialize)]
    struct Line<'a> {
        progress: &'a Progress,
    }
    let bar = if json {
        ProgressBar::hidden()
    } else {
        ProgressBar::new(0)
    };
    // A template is only wrong when it is changed: the plain style then.
    bar.set_style(
        ProgressStyle::with_template("{bar:30} {binary_bytes} of {binary_total_bytes} {binary_bytes_per_sec} {msg}")
            .unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    bar.enable_steady_tick(Duration::from_millis(200));
    bar.set_message("looking for it");
    let mut last = Progress::default();
    loop {
        match client.next_ever().await? {
            Reply::Progress(progress) => {
                last = progress;
                if json && !print(&serde_json::to_string(&Line { progress: &progress })?)? {
                    break;
                }
                bar.set_length(progress.total);
                bar.set_position(progress.done.min(progress.total));
                bar.set_message(if progress.waits {
                    "waits: memory is short, or the agent is paused"
                } else {
                    ""
                });
            }
            Reply::End(_) => break,
            _ => bail!("the agent answered something else than was asked"),
        }
    }
    bar.finish_and_clear();
    if !last.over {
        bail!("the agent stopped before it was done");
    }
    Ok(last)
}

fn said(command: Command, progress: &Progress, took: Duration) -> String {
    let (total, there) = (ByteCount(progress.total), ByteCount(progress.there));
    match command {
        Command::Pin => format!("{} of {total} locked", ByteCount(progress.held)),
        Command::Unpin => format!("{} let go", ByteCount(progress.held)),
        Command::Warm if progress.changed == 0 => format!("{there} of {total} in the page cache, all of it before"),
        Command::Warm => format!(
            "{there} of {total} in the page cache, {} of it brought in in {:.1} s ({})",
            ByteCount(progress.changed),
            took.as_secs_f64(),
            Rate::over(progress.changed, took)
        ),
        Command::Evict if progress.there == 0 => format!("{} dropped", ByteCount(progress.changed)),
        Command::Evict => format!(
            "{} dropped, {there} left: mapped by a live process, or not on the disk yet",
            ByteCount(progress.changed)
        ),
    }
}

fn failed(command: Command, progress: &Progress) -> String {
    let what = match command {
        Command::Pin => "locked",
        Command::Unpin => "let go",
        Command::Warm => "brought in",
        Command::Evict => "dropped",
    };
    format!(
        "{} could not be {what}: {}",
        ByteCount(progress.failed),
        reason(command, progress.trouble)
    )
}

fn reason(command: Command, trouble: Option<StepEnd>) -> &'static str {
    match trouble {
        Some(StepEnd::NotHeld) => {
            "the kernel refuses to lock it, or it is charged to a limited memory cgroup of somebody else; the agent's log says which"
        }
        Some(StepEnd::Stale) => "a file was deleted or replaced meanwhile",
        Some(StepEnd::Written) => "a file is being written",
        Some(StepEnd::NotLent) => "root is refused there, and nobody has it open",
        Some(StepEnd::Unverified) => "nothing stays in the page cache of this file system",
        Some(StepEnd::Failed) => "a file cannot be opened or read; the agent's log says why",
        Some(_) => "the agent could not do it now",
        None if command == Command::Pin => "there is no room left in what --pin has set aside",
        None => "the agent ended it",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_is_said_in_a_line() {
        let progress = Progress {
            total: 8 << 30,
            done: 8 << 30,
            there: 8 << 30,
            changed: 4 << 30,
            held: 2 << 30,
            over: true,
            ..Progress::default()
        };
        let said = |command| said(command, &progress, Duration::from_secs(4));
        assert_eq!(said(Command::Pin), "2 GiB of 8 GiB locked");
        assert_eq!(said(Command::Unpin), "2 GiB let go");
        assert_eq!(
            said(Command::Warm),
            "8 GiB of 8 GiB in the page cache, 4 GiB of it brought in in 4.0 s (1 GiB/s)"
        );
        assert_eq!(
            said(Command::Evict),
            "4 GiB dropped, 8 GiB left: mapped by a live process, or not on the disk yet"
        );
    }

    #[test]
    fn every_failure_has_a_reason() {
        let progress = Progress {
            failed: 1 << 20,
            ..Progress::default()
        };
        assert_eq!(
            failed(Command::Pin, &progress),
            "1 MiB could not be locked: there is no room left in what --pin has set aside"
        );
    }
}
