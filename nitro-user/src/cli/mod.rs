//! The command line: parse, call, print. One file per subcommand; nothing here decides anything.

mod ask;
mod bench;
mod by_hand;
mod directories;
mod doctor;
mod explain;
mod forget;
mod loads;
mod model;
mod outlet;
mod pause;
mod print;
mod prove;
mod receipts;
mod replay;
mod report;
mod running;
mod status;
mod text;
mod trace;
mod unwatch;
mod watch;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::{
    bench::{readers, store},
    config::ConfigError,
    warm::{account, keeper},
};

/// Makes large read-mostly files load at the speed of the device the first time.
#[derive(Debug, Parser)]
#[command(name = "nitro-agent", version, args_conflicts_with_subcommands = true)]
#[command(after_help = "Examples:
  sudo nitro-agent --watch auto
  sudo nitro-agent --watch auto --dry-run
  sudo nitro-agent --watch ~/.ollama/models
  sudo nitro-agent --watch /data/models --memory 8GiB --json
  sudo nitro-agent --watch ~/.cache/huggingface --dry-run
  sudo nitro-agent status
  sudo nitro-agent loads --follow
  sudo nitro-agent warm llama3:8b
  sudo nitro-agent doctor
  sudo nitro-agent bench
  sudo nitro-agent prove llama3:8b -- ollama run llama3:8b hello

Exit code: 0 after a clean stop, 1 when something went wrong, 2 for a command line that is none.")]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    watch: watch::Options,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// What the running agent does now.
    Status(status::Options),
    /// The receipts of the last loads.
    Loads(loads::Options),
    /// Stop all reading for others; loads are still followed.
    Pause(pause::PauseOptions),
    /// Go on after `pause`.
    Resume(pause::ResumeOptions),
    /// Lock models or files into memory.
    Pin(by_hand::PinOptions),
    /// Lock them no longer.
    Unpin(by_hand::UnpinOptions),
    /// Bring models or files into the page cache.
    Warm(by_hand::WarmOptions),
    /// Drop models or files from the page cache.
    Evict(by_hand::EvictOptions),
    /// What the agent knows of a model, and what it would do on the next access.
    Explain(explain::Options),
    /// Forget what was learned of models, or everything.
    Forget(forget::Options),
    /// Let go of a watched directory, or of something below one.
    Unwatch(unwatch::Options),
    /// What this machine has for the agent, what it lacks, and what to do about it.
    Doctor(doctor::Options),
    /// Measure what the agent does to cold loads, on models and disks that it makes itself.
    Bench(bench::Options),
    /// Measure what the agent does to a command of yours, on your own files.
    Prove(prove::Options),
    /// One load, reported as JSON (started by `bench`).
    #[command(name = readers::SUBCOMMAND, hide = true)]
    Reader(readers::ReaderArgs),
    /// A file system that takes its time (started by `bench`).
    #[command(name = store::SUBCOMMAND, hide = true)]
    Store(store::StoreArgs),
    /// Record who reads what, and look at it.
    Trace(trace::Options),
    /// A recorded trace through the engine once more.
    Replay(replay::Options),
    /// Started by the agent: makes the processes that warm on others' account.
    #[command(name = account::SUBCOMMAND, hide = true)]
    AccountHelper,
    /// Started by the agent: makes the processes that hold pins.
    #[command(name = keeper::SUBCOMMAND, hide = true)]
    PinKeeper,
}

/// Carries a command line out; what the process ends with.
///
/// # Errors
/// Whatever went wrong, in words for the user.
pub fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let done = match cli.command {
        Some(Command::Doctor(options)) => return doctor::run(&options),
        Some(Command::Status(options)) => status::run(&options),
        Some(Command::Loads(options)) => loads::run(&options),
        Some(Command::Pause(options)) => pause::pause(&options),
        Some(Command::Resume(options)) => pause::resume(&options),
        Some(Command::Pin(options)) => by_hand::pin(&options),
        Some(Command::Unpin(options)) => by_hand::unpin(&options),
        Some(Command::Warm(options)) => by_hand::warm(&options),
        Some(Command::Evict(options)) => by_hand::evict(&options),
        Some(Command::Explain(options)) => explain::run(&options),
        Some(Command::Forget(options)) => forget::run(&options),
        Some(Command::Unwatch(options)) => unwatch::run(&options),
        Some(Command::Bench(options)) => bench::run(&options),
        Some(Command::Prove(options)) => prove::run(&options),
        Some(Command::Reader(options)) => {
            ask::print(&serde_json::to_string(&readers::run(&options)?)?)?;
            Ok(())
        }
        Some(Command::Store(options)) => store::serve(&options),
        Some(Command::Trace(options)) => trace::run(&options),
        Some(Command::Replay(options)) => replay::run(&options),
        Some(Command::AccountHelper) => Ok(account::parent()?),
        Some(Command::PinKeeper) => Ok(keeper::parent()?),
        None => watch::run(cli.watch),
    };
    done.map(|()| ExitCode::SUCCESS)
}

/// What the process ends with: a command line that asks for what cannot be is none.
pub fn exit_code(error: &anyhow::Error) -> ExitCode {
    ExitCode::from(if error.is::<ConfigError>() { 2 } else { 1 })
}

/// An error and its causes in one line; a cause whose words are in it already is left out.
pub fn explain(error: &anyhow::Error) -> String {
    let mut words = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if words.is_empty() {
            words = cause;
        } else if !words.contains(&cause) {
            words = format!("{words}: {cause}");
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_subcommand_has_examples() {
        for command in Cli::command()
            .get_subcommands()
            .filter(|command| !command.is_hide_set())
        {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Examples:"), "{}", command.get_name());
        }
    }

    #[test]
    fn a_cause_is_told_once() {
        let cause = std::io::Error::other("no such thing");
        let error = anyhow::Error::new(cause).context("cannot do it: no such thing: try another");
        assert_eq!(explain(&error), "cannot do it: no such thing: try another");
        let cause = std::io::Error::other("no such thing");
        assert_eq!(
            explain(&anyhow::Error::new(cause).context("cannot do it")),
            "cannot do it: no such thing"
        );
    }
}
