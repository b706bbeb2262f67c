//! The readers of a trace on other devices, with other memory, and helped in other ways.

use std::collections::{BTreeMap, BTreeSet};

use clap::ValueEnum;
use serde::Serialize;

use super::{
    device::Choice,
    pace::{ALL_FITS, Paced},
};
use crate::{
    engine::Policy,
    sim::{self, Course, Machine, ReaderSpec, Report, Scenario, Style, Visit},
    units::{ByteCount, ByteRange, Moment, Rate},
};

/// Who helps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Help {
    /// Nobody.
    None,
    /// `cat` of all files of its models before a process begins to read; that takes its time, too.
    Cat,
    /// The agent.
    Agent,
}

impl Help {
    /// As on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Cat => "cat",
            Self::Agent => "agent",
        }
    }
}

/// A world.
#[derive(Clone, Copy, Debug)]
pub struct World {
    /// Where the files are.
    pub device: Choice,
    /// Page cache; `None` for as much as is needed, of which goes what went in the recording.
    pub memory: Option<ByteCount>,
    /// What the agent may hold.
    pub ceiling: ByteCount,
    /// Nothing is in the page cache at the beginning, whatever was in the recording.
    pub cold: bool,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// Seconds from first to last access, summed over processes.
    pub seconds: f64,
    /// Bytes that were used and had not been there at the beginning.
    pub needed: ByteCount,
    /// Of these, bytes that whoever helped had brought in.
    pub covered: ByteCount,
    /// Bytes that whoever helped brought in and nobody used.
    pub wasted: ByteCount,
    /// Bytes that the device gave.
    pub read: ByteCount,
    /// Requests to it.
    pub requests: u64,
    /// Rules of the engine that were broken; none, or it has a fault.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub broken: Vec<String>,
}

impl Outcome {
    /// The share of what was needed that help had brought in, 0–1; `None` where nothing was needed.
    pub fn coverage(&self) -> Option<f64> {
        (self.needed.0 > 0).then(|| self.covered.0 as f64 / self.needed.0 as f64)
    }
}

/// A trace to be compared.
#[derive(Debug)]
pub struct Comparison {
    paced: Paced,
    rate: Option<Rate>,
    policy: Policy,
}

/// Bytes of a call of `cat`.
const CAT: u64 = 128 << 10;

impl Comparison {
    /// Of these readers; the agent is one of this policy, but for its ceiling.
    pub fn new(paced: Paced, policy: Policy) -> Self {
        Self {
            rate: paced.demand().rate,
            paced,
            policy,
        }
    }

    /// The readers.
    pub const fn paced(&self) -> &Paced {
        &self.paced
    }

    /// Simulates them with one kind of help.
    pub fn run(&self, world: World, help: Help) -> Outcome {
        let (readers, report) = self.report(world, help);
        let used = report.used;
        Outcome {
            seconds: self.seconds(&report, &readers),
            needed: ByteCount(used.by_readers + used.by_help),
            covered: ByteCount(used.by_help),
            wasted: ByteCount(report.wasted_bytes),
            read: ByteCount(report.device_bytes),
            requests: report.requests,
            broken: report.broken,
        }
    }

    /// What the simulator makes of the recorded world, in seconds between the accesses that were told of: what it should be is [`Paced::recorded_seconds`].
    pub fn check(&self, world: World, was_helped: bool) -> f64 {
        let help = if was_helped { Help::Agent } else { Help::None };
        self.paced.simulated_seconds(&self.report(world, help).1)
    }

    fn report(&self, world: World, help: Help) -> (Vec<ReaderSpec>, Report) {
        let demand = self.paced.demand();
        let mut readers = self.paced.readers();
        if help == Help::Cat {
            self.let_cat_read_first(&mut readers);
        }
        let scenario = Scenario {
            device: world.device.spec(self.rate),
            machine: Machine::default(),
            files: demand.files.clone(),
            resident: if world.cold {
                Vec::new()
            } else {
                demand.resident.clone()
            },
            evictions: if world.memory.is_some() {
                Vec::new()
            } else {
                self.paced.evictions()
            },
            readers,
            memory: world.memory.map_or(ALL_FITS, |memory| memory.0),
            course: Course::default(),
            policy: (help == Help::Agent).then(|| Policy {
                ceiling: world.ceiling,
                ..self.policy.clone()
            }),
        };
        let report = sim::run(&scenario);
        (scenario.readers, report)
    }

    /// Before each process somebody reads its models from front to back; the process begins when that is done.
    fn let_cat_read_first(&self, readers: &mut Vec<ReaderSpec>) {
        let demand = self.paced.demand();
        let mut of_process = BTreeMap::<usize, Vec<usize>>::new();
        for (index, reader) in readers.iter().enumerate() {
            of_process
                .entry(reader.thread_of.unwrap_or(index))
                .or_default()
                .push(index);
        }
        for (first, threads) in of_process {
            let of_threads = || threads.iter().filter_map(|index| readers.get(*index));
            let read: BTreeSet<usize> = of_threads()
                .flat_map(|reader| &reader.visits)
                .map(|visit| visit.part)
                .collect();
            let models = demand.files.models.iter().map(|model| &model.parts);
            let files: BTreeSet<usize> = models
                .filter(|parts| parts.iter().any(|part| read.contains(part)))
                .flatten()
                .copied()
                .collect();
            let whole = |part: usize| Visit::of(part, ByteRange::new(0, demand.files.size(part)));
            let Some(begins) = readers.get(first) else { continue };
            let cat = ReaderSpec {
                start: begins.start,
                follows: begins.follows,
                visits: files.into_iter().map(whole).collect(),
                style: Style::Read { call: CAT },
                helps: true,
                ..ReaderSpec::in_order(&[])
            };
            let (begins, follows) = (begins.start, begins.follows);
            let number = readers.len();
            for index in threads {
                // Whoever follows one of the process's own threads follows it still.
                if let Some(reader) = readers.get_mut(index).filter(|reader| reader.follows == follows) {
                    reader.start = Moment(reader.start.0.saturating_sub(begins.0));
                    reader.follows = Some(number);
                }
            }
            readers.push(cat);
        }
    }

    /// Seconds until the last byte, summed over processes; what `cat` took before a process counts as its own.
    fn seconds(&self, report: &Report, readers: &[ReaderSpec]) -> f64 {
        let mut spans = BTreeMap::<usize, (Moment, Moment)>::new();
        for (index, (reader, stays)) in readers.iter().zip(&report.stays).enumerate() {
            let Some((first, last)) = stays.first().zip(stays.last()) else {
                continue;
            };
            let process = match reader.helps {
                true => readers.iter().position(|reader| reader.follows == Some(index)),
                false => Some(index),
            };
            let process = process.map(|process| {
                readers
                    .get(process)
                    .and_then(|reader| reader.thread_of)
                    .unwrap_or(process)
            });
            let Some(process) = process else { continue };
            let span = spans.entry(process).or_insert((first.began, last.ended));
            *span = (span.0.min(first.began), span.1.max(last.ended));
        }
        spans
            .values()
            .map(|(began, ended)| ended.since(*began).as_secs_f64())
            .sum()
    }
}
