//! `nitro-agent forget PATH…|MODEL…|--all`.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;

use super::{
    ask::{self, Socket, print},
    by_hand, model,
    unwatch::canonical,
};
use crate::{
    config::resolve_home,
    control::{
        client::Client,
        protocol::{Reply, Request},
        wire_path::WirePath,
    },
    units::printable,
};

/// Flags of `forget`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sudo nitro-agent forget llama3:8b
  sudo nitro-agent forget /data/models/old
  sudo nitro-agent forget --all

Forgotten is how much something was used, in which order it was read and what was loaded after it; with --all also what is known of disks. What somebody has asked to pin stays so.")]
pub struct Options {
    /// Files, directories with all that is below them, or names of models. They need not exist any more.
    #[arg(value_name = "PATH|MODEL", required_unless_present = "all", conflicts_with = "all")]
    what: Vec<PathBuf>,
    /// Everything that was ever learned.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    socket: Socket,
}

/// Has it forgotten.
///
/// # Errors
/// No agent, no permission, no such path and no such model.
pub fn run(options: &Options) -> anyhow::Result<()> {
    ask::run(async {
        let roots = by_hand::roots(&options.socket).await?;
        let mut paths = Vec::new();
        for what in &options.what {
            paths.extend(paths_of(what, &roots)?);
        }
        let paths = (!options.all).then_some(paths);
        let mut client = Client::connect(&options.socket.socket).await?;
        client.ask(&Request::Forget { paths }).await?;
        let Reply::Done = client.next().await? else {
            bail!("the agent stopped before it answered");
        };
        let names: Vec<String> = options
            .what
            .iter()
            .map(|what| printable(&what.to_string_lossy()))
            .collect();
        print(&format!(
            "forgotten: {}",
            if options.all {
                "everything that was learned".to_owned()
            } else {
                names.join(", ")
            }
        ))?;
        Ok(())
    })
}

/// What is meant: a path, which need not exist; else the files of a model of this name.
fn paths_of(what: &Path, roots: &[PathBuf]) -> anyhow::Result<Vec<WirePath>> {
    let given = std::path::absolute(resolve_home(what)).context("cannot tell the absolute path")?;
    let is_path = what.is_absolute() || given.symlink_metadata().is_ok();
    if !is_path {
        return Ok(model::find(what, roots)?.paths.into_iter().map(WirePath).collect());
    }
    let path = canonical(&given).with_context(|| format!("cannot look at {what:?}"))?;
    // The name that it was known by may be the one that was given, or the one that it leads to.
    let both = if path == given { vec![path] } else { vec![path, given] };
    Ok(both.into_iter().map(WirePath).collect())
}
