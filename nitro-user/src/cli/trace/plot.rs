//! `nitro-agent trace plot`: a picture of a trace.

use std::{fs::OpenOptions, io::Write, path::PathBuf};

use anyhow::{Context, bail};
use clap::Args;

use super::read_all;
use crate::{
    trace::{
        Header, Opened,
        plot::{Extent, Grids, draw},
    },
    units::printable,
};

/// Flags of `trace plot`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  nitro-agent trace plot load.trace --out load.html
  nitro-agent trace plot load.trace --out load.svg

For each file, where in it was read over time: a colour for each process, behind it what was brought in for the reader and what the agent warmed before; below, how much of the
file came into the page cache. The picture follows the reader's choice of light or dark.")]
pub struct Options {
    /// A trace.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The file to write, X.svg or X.html; it must not exist.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Reads twice and draws.
///
/// # Errors
/// The file is no trace, holds nothing to draw, or the output cannot be written.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let shown = printable(&options.out.to_string_lossy());
    let html = match options.out.extension().and_then(|ending| ending.to_str()) {
        Some("html" | "htm") => true,
        Some("svg") => false,
        _ => bail!("--out {shown} is neither .svg nor .html"),
    };
    let mut trace = Opened::open(&options.file)?;
    let mut extent = Extent::new(trace.header());
    read_all(&mut trace, |record| extent.add(record));
    let mut grids = Grids::new(extent.plan()?);
    drop(extent);
    let mut trace = Opened::open(&options.file)?;
    let tear = read_all(&mut trace, |record| grids.add(record));
    grids.finish();
    let header = trace.header();
    let picture = draw(&grids, &title(header))?;
    let text = if html { page(&picture, header) } else { picture };
    let made = OpenOptions::new().write(true).create_new(true).open(&options.out);
    let mut out = made.with_context(|| format!("cannot make {shown}: give --out a name that is free"))?;
    out.write_all(text.as_bytes())
        .with_context(|| format!("cannot write {shown}"))?;
    if let Some(tear) = tear {
        eprintln!(
            "{}: {}, at byte {}: all before it was drawn",
            trace.path(),
            tear.why,
            tear.at
        );
    }
    Ok(())
}

fn title(header: &Header) -> String {
    let who = if header.dry_run {
        "nothing warmed"
    } else {
        "with the agent"
    };
    format!("Linux {}, {} mode, {who}", header.kernel, header.mode)
}

fn page(picture: &str, header: &Header) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"color-scheme\" content=\"light dark\">\n\
         <meta name=\"viewport\" content=\"width=device-width\"><title>nitro-agent trace</title>\n\
         <style>body{{margin:0;display:flex;justify-content:center;background:#fff}}svg{{max-width:100%;height:auto}}\n\
         @media (prefers-color-scheme: dark){{body{{background:#16191d}}}}</style></head>\n<body><!-- nitro-agent {} -->\n{picture}</body></html>\n",
        plain(&header.agent),
    )
}

/// A text from a file in a comment of a page: nothing of it can end the comment.
fn plain(text: &str) -> String {
    text.chars()
        .filter(|letter| letter.is_ascii_alphanumeric() || *letter == '.')
        .collect()
}
