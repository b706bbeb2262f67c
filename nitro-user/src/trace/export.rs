//! A trace in other formats, one per file.
//!
//! In: records, one after the other. Out: text, as it goes; no more is kept than what a format needs to know of what came before.

mod chrome;
mod csv;
mod flat;
mod jsonl;

use std::io::{self, Write};

pub use self::{chrome::Chrome, csv::Csv, jsonl::JsonLines};
use super::{Header, Record};

/// A format.
pub trait Format {
    /// Takes a record.
    ///
    /// # Errors
    /// The output cannot be written to.
    fn record(&mut self, record: &Record) -> io::Result<()>;

    /// Nothing more comes.
    ///
    /// # Errors
    /// As [`Self::record`].
    fn end(self: Box<Self>) -> io::Result<()>;
}

/// The formats, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// The JSON of Chrome's tracing, which the Perfetto UI opens.
    Chrome,
    /// One JSON object a line.
    Jsonl,
    /// A table for spreadsheets.
    Csv,
}

impl Kind {
    /// Begins to write.
    ///
    /// # Errors
    /// The output cannot be written to.
    pub fn begin<'a>(self, out: impl Write + 'a, header: &Header) -> io::Result<Box<dyn Format + 'a>> {
        Ok(match self {
            Self::Chrome => Box::new(Chrome::begin(out, header)?),
            Self::Jsonl => Box::new(JsonLines::begin(out, header)?),
            Self::Csv => Box::new(Csv::begin(out, header)?),
        })
    }
}
