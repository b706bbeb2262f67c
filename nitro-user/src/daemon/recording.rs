//! What somebody records of all this: every input of the engine on its way there, and what only people want to know.

use tokio::sync::{mpsc, oneshot};

use super::wiring::Wiring;
use crate::{
    control::protocol::{Code, Refusal},
    engine::Input,
    source::{ebpf::ThreadCounts, events::EventSource},
    sys::clock,
    trace::{Frame, Header, Record, Recorder, VERSION},
    units::{FileId, Moment},
};

/// Frames that wait to be taken: 4 MiB of records.
const FRAMES: usize = 64;

/// The recording that goes on, if one does.
#[derive(Debug, Default)]
pub struct Recording {
    recorder: Option<Recorder>,
    /// Tells it from those before.
    number: u64,
}

/// A recording has begun: its number, and its frames.
pub type Begun = Result<(u64, mpsc::Receiver<Frame>), Refusal>;

impl Recording {
    /// Takes a record.
    pub fn note(&mut self, record: impl FnOnce() -> Record) {
        if let Some(recorder) = &mut self.recorder {
            recorder.take(&record());
        }
    }

    /// The engine is told.
    pub fn input(&mut self, at: Moment, input: &Input) {
        self.note(|| Record::Input {
            at,
            input: input.clone(),
        });
    }

    /// What threads did in files was taken.
    pub fn counts(&mut self, at: Moment, counts: &[ThreadCounts]) {
        let mut sums: Vec<(u32, FileId, [u64; 4])> = Vec::new();
        for count in counts.iter().filter(|_| self.recorder.is_some()) {
            let (process, state) = (count.state.process, &count.state);
            let values = [state.calls, state.bytes, state.added_bytes, state.missed_bytes];
            match sums.iter_mut().find(|sum| (sum.0, sum.1) == (process, count.file)) {
                Some(sum) => sum.2.iter_mut().zip(values).for_each(|(sum, value)| *sum += value),
                None => sums.push((process, count.file, values)),
            }
        }
        for (process, file, [calls, bytes, added, missed]) in sums {
            self.note(|| Record::Counts {
                at,
                process,
                file,
                calls,
                bytes,
                added,
                missed,
            });
        }
    }

    /// When it has something to hand over.
    pub fn deadline(&self) -> Option<Moment> {
        self.recorder.as_ref().and_then(Recorder::deadline)
    }

    /// Hands over what is due.
    pub fn turn(&mut self, source: &EventSource) {
        if let Some(recorder) = &mut self.recorder
            && !recorder.turn(clock::now(), || dropped(source))
        {
            self.recorder = None;
        }
    }

    /// Ends the recording of this number, if it goes on; any without.
    pub fn end(&mut self, number: Option<u64>) {
        if let Some(recorder) = &mut self.recorder
            && number.is_none_or(|number| number == self.number)
        {
            recorder.end(clock::now());
        }
    }

    fn begin(&mut self, header: &Header, rate: u64, source: &EventSource) -> Begun {
        if self.recorder.as_ref().is_some_and(Recorder::is_wanted) {
            let message = "somebody else records already: wait until that has ended";
            return Err(Refusal::new(Code::Busy, message));
        }
        let (tell, frames) = mpsc::channel(FRAMES);
        self.recorder = Some(Recorder::begin(header, tell, rate, dropped(source)));
        self.number += 1;
        Ok((self.number, frames))
    }
}

fn dropped(source: &EventSource) -> u64 {
    source.counters().map_or(0, |(counters, _)| counters.dropped)
}

impl Wiring {
    /// Somebody wants to record.
    pub(super) fn record(&mut self, rate: u64, answer: oneshot::Sender<Begun>, source: &EventSource) {
        let now = clock::now();
        let Some(header) = self.header(now) else { return };
        let begun = self.recording.begin(&header, rate, source);
        if begun.is_ok() {
            for input in self.engine.begin_again() {
                self.recording.input(now, &input);
            }
        }
        let _ = answer.send(begun);
    }

    fn header(&self, began: Moment) -> Option<Header> {
        let (started, _) = self.started.as_ref()?;
        let engine = &self.engine;
        let policy = engine.policy();
        Some(Header {
            format: VERSION,
            agent: started.version.to_owned(),
            kernel: started.kernel.clone(),
            mode: started.attachment.mode.to_string(),
            process: std::process::id(),
            began,
            began_unix_ns: i64::try_from(clock::unix_now_ns()).unwrap_or(i64::MAX),
            roots: started.found.roots.clone(),
            ceiling: engine.ceiling(),
            reserve: policy.reserve,
            dry_run: policy.dry_run,
            ignored: policy.ignored.clone(),
            inferred: policy.inferred,
            charge_consumer: policy.charge_consumer,
            retain: policy.retain,
            booted: policy.booted,
            holdout: policy.holdout,
            under_way: engine.loads().count() as u64,
            next_load: engine.next_load(),
            filter: Vec::new(),
            calls: false,
        })
    }
}
