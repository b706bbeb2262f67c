//! The Trace Event Format of Chrome, which the Perfetto UI and chrome://tracing open.
//!
//! Each process has its tracks, one a thread, with a slice from each access to the next: a long one is a step that took long. What was brought in is a mark on them. The
//! agent has a track for each load, with a slice for each step from its submission to its completion, and loads have one for themselves. A counter says of each file how much of it came into the
//! page cache since the recording began, less what has left it.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io::{self, Write},
    time::Duration,
};

use serde_json::{Value, json};

use super::{
    Format,
    flat::{call_of, kind_of},
};
use crate::{
    engine::input::{Access, Input},
    trace::{Header, Record, names::Names},
    units::{FileId, Moment},
};

/// A slice that goes on for longer is cut: the thread does something else.
const LONGEST: Duration = Duration::from_secs(5);

/// A counter is written no more often.
const PERIOD: Duration = Duration::from_millis(5);

/// The track of loads, beside those of single loads.
const LOADS: u64 = 0;

/// Writes events.
pub struct Chrome<W> {
    out: W,
    agent: u32,
    began: Moment,
    names: Names,
    first: bool,
    /// By thread: the access whose slice is not written yet.
    open: BTreeMap<(u32, u32), Access>,
    named: HashSet<(u32, String)>,
    /// By file: bytes, and when they were written last.
    there: HashMap<FileId, (i64, Moment)>,
}

impl<W: Write> Chrome<W> {
    /// Writes the beginning.
    ///
    /// # Errors
    /// The output cannot be written to.
    pub fn begin(mut out: W, header: &Header) -> io::Result<Self> {
        out.write_all(b"{\"displayTimeUnit\":\"ms\",\"otherData\":")?;
        serde_json::to_writer(&mut out, header)?;
        out.write_all(b",\"traceEvents\":[\n")?;
        let mut this = Self {
            out,
            agent: header.process,
            began: header.began,
            names: Names::default(),
            first: true,
            open: BTreeMap::new(),
            named: HashSet::new(),
            there: HashMap::new(),
        };
        let agent = this.agent;
        this.name_process(agent, "nitro-agent")?;
        this.event(&json!({
            "ph": "M", "name": "thread_name", "pid": agent, "tid": LOADS, "args": { "name": "loads" },
        }))?;
        Ok(this)
    }

    fn event(&mut self, event: &Value) -> io::Result<()> {
        if !std::mem::take(&mut self.first) {
            self.out.write_all(b",\n")?;
        }
        serde_json::to_writer(&mut self.out, event)?;
        Ok(())
    }

    /// Microseconds since the trace began.
    fn time(&self, at: Moment) -> f64 {
        at.since(self.began).as_nanos() as f64 / 1e3
    }

    fn file(&self, file: FileId) -> String {
        let path = self.names.path(file);
        path.rsplit_once('/').map_or(path.as_str(), |(_, name)| name).to_owned()
    }

    fn name_process(&mut self, process: u32, name: &str) -> io::Result<()> {
        if !self.named.insert((process, name.to_owned())) {
            return Ok(());
        }
        self.event(&json!({ "ph": "M", "name": "process_name", "pid": process, "tid": 0, "args": { "name": name } }))
    }

    /// The slice of an access, which lasts until the thread's next one.
    fn slice(&mut self, access: &Access, until: Moment) -> io::Result<()> {
        let time = until.since(access.at).min(LONGEST);
        let event = json!({
            "ph": "X", "cat": "access", "name": self.file(access.file), "pid": access.process, "tid": access.thread,
            "ts": self.time(access.at), "dur": time.as_nanos() as f64 / 1e3,
            "args": {
                "kind": kind_of(access.kind), "offset": access.range.start, "bytes": access.range.len(),
                "jump": access.jump,
            },
        });
        self.event(&event)
    }

    fn mark(&mut self, at: Moment, whose: (u32, u64), name: &str, arguments: Value) -> io::Result<()> {
        let event = json!({
            "ph": "i", "s": "t", "name": name, "pid": whose.0, "tid": whose.1, "ts": self.time(at), "args": arguments,
        });
        self.event(&event)
    }

    fn count(&mut self, at: Moment, file: FileId, by: i64) -> io::Result<()> {
        let (bytes, written) = self.there.entry(file).or_insert((0, Moment(0)));
        *bytes = bytes.saturating_add(by).max(0);
        if at.since(*written) < PERIOD && written.0 != 0 {
            return Ok(());
        }
        *written = at;
        let (bytes, name) = (*bytes, format!("in the page cache: {}", self.file(file)));
        let event = json!({
            "ph": "C", "name": name, "pid": self.agent, "ts": self.time(at), "args": { "MiB": bytes as f64 / 1048576.0 },
        });
        self.event(&event)
    }

    fn input(&mut self, at: Moment, input: &Input) -> io::Result<()> {
        match input {
            Input::Access(access) => {
                let thread = (access.process, access.thread);
                match self.open.insert(thread, *access) {
                    Some(before) => self.slice(&before, access.at),
                    None => Ok(()),
                }
            }
            Input::Ended { process } => {
                let threads = (*process, 0)..=(*process, u32::MAX);
                let last: Vec<_> = self
                    .open
                    .range(threads)
                    .map(|(thread, access)| (*thread, *access))
                    .collect();
                for (thread, access) in last {
                    self.open.remove(&thread);
                    self.slice(&access, at)?;
                }
                Ok(())
            }
            Input::Program { process, name, .. } => self.name_process(*process, name),
            Input::Named { process, description } => {
                let model = json!({ "model": description.model.name });
                self.mark(at, (*process, u64::from(*process)), "named on the command line", model)
            }
            Input::Outcome(outcome) => {
                let (agent, load) = (self.agent, outcome.load.0);
                let event = json!({
                    "ph": "X", "cat": "warm", "name": self.file(outcome.file), "pid": agent, "tid": load,
                    "ts": self.time(outcome.submitted),
                    "dur": outcome.completed.since(outcome.submitted).as_nanos() as f64 / 1e3,
                    "args": {
                        "offset": outcome.range.start, "bytes": outcome.range.len(), "brought_in": outcome.gained(),
                        "end": outcome.end,
                    },
                });
                self.event(&event)
            }
            Input::Removed { file, range } => self.count(at, *file, -(range.len().cast_signed())),
            _ => Ok(()),
        }
    }
}

impl<W: Write> Format for Chrome<W> {
    fn record(&mut self, record: &Record) -> io::Result<()> {
        self.names.learn(record);
        match record {
            Record::Input { at, input } => self.input(*at, input),
            Record::Brought {
                at,
                process,
                thread,
                file,
                range,
            } => {
                if *process != self.agent {
                    let arguments = json!({ "file": self.file(*file), "offset": range.start, "bytes": range.len() });
                    self.mark(*at, (*process, u64::from(*thread)), "brought in", arguments)?;
                }
                self.count(*at, *file, range.len().cast_signed())
            }
            Record::Call {
                at,
                process,
                thread,
                file,
                kind,
                direct,
                range,
            } => {
                let arguments = json!({ "file": self.file(*file), "offset": range.start, "bytes": range.len() });
                self.mark(*at, (*process, u64::from(*thread)), call_of(*kind, *direct), arguments)
            }
            Record::Receipt { receipt, .. } => {
                let event = json!({
                    "ph": "X", "cat": "load", "name": receipt.model, "pid": self.agent, "tid": LOADS,
                    "ts": self.time(receipt.began),
                    "dur": receipt.ended.since(receipt.began).as_nanos() as f64 / 1e3, "args": receipt,
                });
                self.event(&event)
            }
            Record::Process { process, name, .. } => self.name_process(*process, name),
            Record::Counts { .. } | Record::File { .. } | Record::Lost { .. } => Ok(()),
        }
    }

    fn end(mut self: Box<Self>) -> io::Result<()> {
        for access in std::mem::take(&mut self.open).into_values() {
            self.slice(&access, access.at)?;
        }
        self.out.write_all(b"\n]}\n")?;
        self.out.flush()
    }
}
