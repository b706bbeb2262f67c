//! One JSON object a line: the header first, then a line for each record.

use std::io::{self, Write};

use serde_json::{Map, Value, json};

use super::{Format, flat::Flat};
use crate::{
    trace::{Header, Record, names::Names},
    units::Moment,
};

/// Writes lines.
pub struct JsonLines<W> {
    out: W,
    began: Moment,
    names: Names,
}

impl<W: Write> JsonLines<W> {
    /// Writes the header.
    ///
    /// # Errors
    /// The output cannot be written to.
    pub fn begin(mut out: W, header: &Header) -> io::Result<Self> {
        serde_json::to_writer(&mut out, &json!({ "event": "header", "header": header }))?;
        out.write_all(b"\n")?;
        Ok(Self {
            out,
            began: header.began,
            names: Names::default(),
        })
    }
}

impl<W: Write> Format for JsonLines<W> {
    fn record(&mut self, record: &Record) -> io::Result<()> {
        self.names.learn(record);
        let flat = Flat::of(record);
        let seconds = record.at().since(self.began).as_secs_f64();
        let mut line = Map::new();
        line.insert("time".into(), json!(seconds));
        line.insert("event".into(), flat.event.into());
        let mut set = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                line.insert(name.into(), value);
            }
        };
        set("process", flat.process.map(Value::from));
        set("thread", flat.thread.map(Value::from));
        set(
            "program",
            flat.process
                .and_then(|process| self.names.program(process))
                .map(Value::from),
        );
        set("device", flat.file.map(|file| file.device.into()));
        set("inode", flat.file.map(|file| file.inode.into()));
        set("file", flat.file.map(|file| self.names.path(file).into()));
        set("offset", flat.range.map(|range| range.start.into()));
        set("bytes", flat.range.map(|range| range.len().into()));
        set("kind", flat.kind.map(Value::from));
        set("jump", flat.jump.map(Value::from));
        set("detail", flat.detail);
        serde_json::to_writer(&mut self.out, &line)?;
        self.out.write_all(b"\n")
    }

    fn end(mut self: Box<Self>) -> io::Result<()> {
        self.out.flush()
    }
}
