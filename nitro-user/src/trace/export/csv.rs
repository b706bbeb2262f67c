//! A table: one row for each record, the same columns for all.

use std::io::{self, Write};

use super::{Format, flat::Flat};
use crate::{
    trace::{Header, Record, names::Names},
    units::Moment,
};

/// The columns.
const COLUMNS: [&str; 12] = [
    "seconds", "event", "process", "thread", "program", "device", "inode", "file", "offset", "bytes", "kind", "jump",
];

/// Writes rows.
pub struct Csv<W: Write> {
    out: csv::Writer<W>,
    began: Moment,
    names: Names,
}

impl<W: Write> Csv<W> {
    /// Writes the titles.
    ///
    /// # Errors
    /// The output cannot be written to.
    pub fn begin(out: W, header: &Header) -> io::Result<Self> {
        let mut out = csv::Writer::from_writer(out);
        out.write_record(COLUMNS)?;
        Ok(Self {
            out,
            began: header.began,
            names: Names::default(),
        })
    }
}

impl<W: Write> Format for Csv<W> {
    fn record(&mut self, record: &Record) -> io::Result<()> {
        self.names.learn(record);
        let flat = Flat::of(record);
        let number = |number: Option<u64>| number.map(|number| number.to_string()).unwrap_or_default();
        let program = flat
            .process
            .and_then(|process| self.names.program(process))
            .unwrap_or_default();
        let row = [
            format!("{:.9}", record.at().since(self.began).as_secs_f64()),
            flat.event.to_owned(),
            number(flat.process.map(u64::from)),
            number(flat.thread.map(u64::from)),
            plain(program),
            number(flat.file.map(|file| u64::from(file.device))),
            number(flat.file.map(|file| file.inode)),
            flat.file.map(|file| plain(&self.names.path(file))).unwrap_or_default(),
            number(flat.range.map(|range| range.start)),
            number(flat.range.map(|range| range.len())),
            flat.kind.unwrap_or_default().to_owned(),
            flat.jump.map(|jump| u8::from(jump).to_string()).unwrap_or_default(),
        ];
        Ok(self.out.write_record(row)?)
    }

    fn end(mut self: Box<Self>) -> io::Result<()> {
        self.out.flush()
    }
}

/// A name that no spreadsheet takes for a formula.
fn plain(name: &str) -> String {
    if name.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        format!("'{name}")
    } else {
        name.to_owned()
    }
}
