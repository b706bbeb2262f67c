//! `nitro-agent trace`: records accesses, and shows what was recorded.

mod calls;
mod export;
mod filter;
mod observer;
mod plot;
mod record;
mod show;
mod sink;

use std::io::Read;

use clap::{Args, Subcommand};

use crate::trace::{Record, Tear, TraceReader};

/// Flags of `trace`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sudo nitro-agent trace record --out load.trace
  sudo nitro-agent trace record --out load.trace --watch ~/.ollama/models --seconds 60
  nitro-agent trace show load.trace
  nitro-agent trace plot load.trace --out load.html
  nitro-agent trace export load.trace --format chrome --out load.json")]
pub struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write down who reads what, until Ctrl-C.
    Record(record::Options),
    /// What processes did in files, in a table.
    Show(show::Options),
    /// A trace in another format: for Perfetto, for programs, for spreadsheets.
    Export(export::Options),
    /// A picture: who read what, where and when.
    Plot(plot::Options),
}

/// Carries it out.
///
/// # Errors
/// Whatever went wrong, in words for the user.
pub fn run(options: &Options) -> anyhow::Result<()> {
    match &options.command {
        Command::Record(options) => record::run(options),
        Command::Show(options) => show::run(options),
        Command::Export(options) => export::run(options),
        Command::Plot(options) => plot::run(options),
    }
}

/// Gives every record of a trace to `take`; where the trace ends before its end, if it does.
fn read_all<R: Read>(trace: &mut TraceReader<R>, mut take: impl FnMut(&Record)) -> Option<Tear> {
    trace.by_ref().for_each(|record| take(&record));
    trace.tear().cloned()
}
