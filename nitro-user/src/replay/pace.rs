//! What readers do between their accesses.
//!
//! A trace tells when a thread was where, not how long it waited there. The recorded world is simulated once more, with its device, what was in its page cache, and the agent if it helped;
//! there each reader begins a visit no sooner than it did. What is left of the time until its next one is its own: it computes, or waits for something else. On another device
//! that takes as long, and the waiting for the device does not.
//!
//! This is the least that a reader did: what it did while the device was at work for it does not show. Looking for the most, by adding what is left over as long as something is,
//! takes the noise of a reader that waits all the time for its own work.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use super::demand::{Demand, Reader};
use crate::{
    engine::Policy,
    sim::{self, Course, DeviceSpec, Eviction, Machine, ReaderSpec, Report, Scenario, Visit},
    units::Moment,
};

/// A trace's readers with what they do between their accesses.
#[derive(Clone, Debug)]
pub struct Paced {
    demand: Demand,
    /// What each does beside waiting for its data, by reader and visit.
    pauses: Vec<Vec<Duration>>,
}

/// Page cache of a machine that evicts nothing by itself.
pub const ALL_FITS: u64 = 1 << 50;

impl Paced {
    /// Finds out, given the device of the recording and what the agent did in it.
    pub fn new(demand: Demand, device: DeviceSpec, policy: Option<Policy>) -> Self {
        let nothing = demand
            .readers
            .iter()
            .map(|reader| vec![Duration::ZERO; reader.visits.len()]);
        let mut paced = Self {
            pauses: nothing.collect(),
            demand,
        };
        let demand = &paced.demand;
        let report = sim::run(&Scenario {
            device,
            machine: Machine::default(),
            files: demand.files.clone(),
            resident: demand.resident.clone(),
            evictions: evictions(demand, |_| None),
            readers: paced.specs(true),
            memory: ALL_FITS,
            course: Course::default(),
            policy,
        });
        for ((reader, pauses), stays) in paced.demand.readers.iter().zip(&mut paced.pauses).zip(&report.stays) {
            let next = reader.visits.iter().skip(1).map(|visited| visited.at);
            for ((pause, stay), next) in pauses.iter_mut().zip(stays).zip(next) {
                *pause = next.since(stay.ended);
            }
        }
        paced
    }

    /// The readers; `pinned` ones begin a visit no sooner than in the recording.
    fn specs(&self, pinned: bool) -> Vec<ReaderSpec> {
        let mut first = HashMap::new();
        let readers = self.demand.readers.iter().zip(&self.pauses).enumerate();
        let specs = readers.map(|(index, (reader, pauses))| {
            let of = *first.entry(reader.process).or_insert(index);
            let began = reader.began();
            let named = reader.named.filter(|named| of == index && *named < began);
            let visits = reader.visits.iter().zip(pauses).map(|(visited, pause)| Visit {
                style: Some(visited.style),
                not_before: pinned.then_some(visited.at),
                pause: *pause,
                ..Visit::of(visited.part, visited.range)
            });
            ReaderSpec {
                start: began,
                announced: named.map(|named| began.since(named)),
                thread_of: Some(of).filter(|of| *of != index),
                visits: visits.collect(),
                program: reader.program.clone(),
                ..ReaderSpec::in_order(&[])
            }
        });
        specs.collect()
    }

    /// What was read.
    pub const fn demand(&self) -> &Demand {
        &self.demand
    }

    /// The readers in a world of their own time: who began after another had ended does so again, as much later.
    pub fn readers(&self) -> Vec<ReaderSpec> {
        let ends = Ends::new(&self.demand.readers);
        let mut specs = self.specs(false);
        for spec in &mut specs {
            spec.follows = ends.before(spec.start);
            spec.start = since(spec.start, spec.follows, &self.demand.readers);
        }
        specs
    }

    /// What leaves the page cache, in the same time.
    pub fn evictions(&self) -> Vec<Eviction> {
        let ends = Ends::new(&self.demand.readers);
        evictions(&self.demand, |at| ends.before(at))
    }

    /// Seconds from first to last access, summed over processes, as recorded.
    pub fn recorded_seconds(&self) -> f64 {
        let spans = self
            .demand
            .readers
            .iter()
            .map(|reader| (reader.began(), reader.ended()));
        self.seconds(spans)
    }

    /// The same of a world in which [`Self::readers`] read; until the last visit began, as a trace tells it.
    pub fn simulated_seconds(&self, report: &Report) -> f64 {
        let spans = report.stays.iter().map(|stays| {
            let first = stays.first().map_or(Moment(0), |stay| stay.began);
            (first, stays.last().map_or(first, |stay| stay.began))
        });
        self.seconds(spans)
    }

    fn seconds(&self, spans: impl Iterator<Item = (Moment, Moment)>) -> f64 {
        let mut processes = BTreeMap::<u32, (Moment, Moment)>::new();
        for (reader, (began, ended)) in self.demand.readers.iter().zip(spans) {
            let span = processes.entry(reader.process).or_insert((began, ended));
            *span = (span.0.min(began), span.1.max(ended));
        }
        let times = processes.values().map(|(began, ended)| ended.since(*began));
        times.map(|time| time.as_secs_f64()).sum()
    }
}

fn evictions(demand: &Demand, follows: impl Fn(Moment) -> Option<usize>) -> Vec<Eviction> {
    let evictions = demand.evictions.iter().map(|(at, part, range)| {
        let follows = follows(*at);
        Eviction {
            at: since(*at, follows, &demand.readers),
            follows,
            part: *part,
            range: *range,
        }
    });
    evictions.collect()
}

/// How long after the end of a reader that is; after the beginning without one.
fn since(at: Moment, follows: Option<usize>, readers: &[Reader]) -> Moment {
    let end = follows.and_then(|index| readers.get(index)).map(Reader::ended);
    Moment(at.0 - end.map_or(0, |end| end.0.min(at.0)))
}

/// When readers ended.
struct Ends(Vec<(Moment, usize)>);

impl Ends {
    fn new(readers: &[Reader]) -> Self {
        let ends = readers
            .iter()
            .enumerate()
            .map(|(index, reader)| (reader.ended(), index));
        let mut ends: Vec<_> = ends.collect();
        ends.sort_unstable();
        Self(ends)
    }

    /// The last one that had ended before.
    fn before(&self, at: Moment) -> Option<usize> {
        let number = self.0.partition_point(|(end, _)| *end < at);
        Some(self.0.get(number.checked_sub(1)?)?.1)
    }
}
