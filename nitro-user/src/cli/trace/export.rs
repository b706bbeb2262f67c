//! `nitro-agent trace export`: a trace in another format.

use std::{
    fs::OpenOptions,
    io::{self, BufWriter, Write},
    path::PathBuf,
};

use anyhow::Context;
use clap::Args;

use crate::{
    trace::{Opened, export::Kind},
    units::printable,
};

/// Flags of `trace export`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  nitro-agent trace export load.trace --format chrome --out load.json
  nitro-agent trace export load.trace --format jsonl | jq 'select(.event == \"access\")'
  nitro-agent trace export load.trace --format csv --out load.csv

The first opens at https://ui.perfetto.dev and in chrome://tracing; both read the file on this machine.")]
pub struct Options {
    /// A trace.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Which format.
    #[arg(long, value_enum)]
    format: Kind,
    /// The file to write, which must not exist; standard output without.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Reads and writes.
///
/// # Errors
/// The file is no trace, or the output cannot be written.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let mut trace = Opened::open(&options.file)?;
    let out: Box<dyn Write> = match &options.out {
        None => Box::new(io::stdout().lock()),
        Some(path) => {
            let made = OpenOptions::new().write(true).create_new(true).open(path);
            let shown = printable(&path.to_string_lossy());
            Box::new(made.with_context(|| format!("cannot make {shown}: give --out a name that is free"))?)
        }
    };
    let written = write(&mut trace, options.format, BufWriter::with_capacity(1 << 20, out));
    match written {
        // `| head`: there is nobody to write for.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe && options.out.is_none() => return Ok(()),
        other => other.context("cannot write the output")?,
    }
    if let Some(tear) = trace.tear() {
        eprintln!(
            "{}: {}, at byte {}: all before it was written",
            trace.path(),
            tear.why,
            tear.at
        );
    }
    Ok(())
}

fn write(trace: &mut Opened, kind: Kind, out: impl Write) -> io::Result<()> {
    let mut format = kind.begin(out, trace.header())?;
    for record in trace.by_ref() {
        format.record(&record)?;
    }
    format.end()
}
