//! The command line: parse, call, print. One file per subcommand; nothing here decides anything.

mod print;
mod watch;

use clap::{Parser, Subcommand};

/// Makes large read-mostly files load at the speed of the device the first time.
#[derive(Debug, Parser)]
#[command(name = "nitro-agent", version, about, long_about = None, args_conflicts_with_subcommands = true)]
#[command(after_help = "Examples:
  nitro-agent --watch ~/.ollama/models
  nitro-agent --watch /data/models --memory 8GiB --json
  nitro-agent --watch ~/.cache/huggingface --dry-run")]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    watch: watch::Options,
}

#[derive(Debug, Subcommand)]
enum Command {}

/// Carries a command line out.
///
/// # Errors
/// Whatever went wrong, in words for the user.
pub fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        Some(command) => match command {},
        None => watch::run(cli.watch),
    }
}
