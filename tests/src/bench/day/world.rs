//! A day as the simulator's scenario, with one of the contenders in it.

use std::time::Duration;

use nitro_user::{
    engine::{Policy, retain},
    sim::{
        Course, DeviceSpec, Eviction, Files, Limit, Machine, ModelSpec, PartSpec, ReaderSpec, Scenario, Service, Style,
        TallySpec, Visit, baseline::Baseline,
    },
    units::{ByteCount, ByteRange, Moment},
};
use serde::Serialize;

use super::{
    definition::{DeviceDef, How},
    record::{Cold, Day, Load, Piece},
};

const MIB: u64 = 1 << 20;

/// What is read without a stop for work.
const AT_ONCE: u64 = 8 * MIB;

/// Its process begins its load so long after its command line is seen.
const START_OF_PROCESS: Duration = Duration::from_millis(5);

/// The clock of a day begins so long after 1970.
const BOOTED: Duration = Duration::from_secs(1_700_000_000);

/// Between an eviction and what it is for.
const APART: u64 = 1000;

/// Who helps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Contender {
    /// Nobody.
    None,
    /// The agent as it is by default.
    Agent,
    /// The agent with a quarter of the memory to lock models in, and those that were hot brought in when it starts.
    Keeping,
    /// The next five files of the directory when a file is opened.
    Siblings,
    /// Straight ahead of the reader, on into the next file.
    Sequence,
    /// The file that is opened, as a whole.
    WholeFile,
}

impl Contender {
    /// All of them, whom the others are compared with first.
    pub const ALL: [Self; 6] = [
        Self::None,
        Self::Agent,
        Self::Keeping,
        Self::Siblings,
        Self::Sequence,
        Self::WholeFile,
    ];

    /// For people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "no agent",
            Self::Agent => "agent",
            Self::Keeping => "agent --pin 25% --rewarm",
            Self::Siblings => "next five siblings",
            Self::Sequence => "sequence",
            Self::WholeFile => "whole file",
        }
    }

    fn policy(self, memory: u64) -> Option<Policy> {
        let retain = match self {
            Self::Agent => retain::Settings::default(),
            Self::Keeping => retain::Settings {
                pin: ByteCount(memory / 4),
                rewarm: true,
                ..retain::Settings::default()
            },
            Self::None | Self::Siblings | Self::Sequence | Self::WholeFile => return None,
        };
        // As the command line has them: half of the memory, and a twentieth of it left alone.
        Some(Policy {
            ceiling: ByteCount(memory / 2),
            reserve: ByteCount(memory / 20),
            retain,
            booted: BOOTED,
            ..Policy::default()
        })
    }

    /// The names that it goes by, if it knows no more than names.
    pub const fn simple(self) -> Option<Baseline> {
        match self {
            Self::None | Self::Agent | Self::Keeping => None,
            Self::Siblings => Some(Baseline::Siblings),
            Self::Sequence => Some(Baseline::Sequence),
            Self::WholeFile => Some(Baseline::WholeFile),
        }
    }
}

/// A day with somebody who helps, or nobody.
pub fn scenario(day: &Day, contender: Contender) -> Scenario {
    let (evictions, tallies) = evictions(day);
    let parts = day.files.iter().map(|file| PartSpec {
        size: file.size,
        header: file.header,
    });
    let models = day.models.iter().map(|model| ModelSpec {
        name: model.name.clone(),
        layout: model.layout,
        parts: model.parts.clone(),
    });
    Scenario {
        device: device(day.device),
        machine: Machine::default(),
        files: Files {
            parts: parts.collect(),
            models: models.collect(),
        },
        resident: Vec::new(),
        evictions,
        readers: day.loads.iter().map(reader).collect(),
        memory: day.memory,
        policy: contender.policy(day.memory),
        course: Course {
            names: day.paths(),
            simple: contender.simple(),
            restarts: day.restarts.iter().map(|at| moment(*at)).collect(),
            tallies,
        },
    }
}

const fn moment(milliseconds: u64) -> Moment {
    Moment(milliseconds * 1_000_000)
}

fn device(device: DeviceDef) -> DeviceSpec {
    let is_limited = device.limit > 0.0 || device.requests > 0.0;
    DeviceSpec {
        limit: is_limited.then(|| Limit::throttle(device.limit * 1e6, device.requests)),
        service: Service {
            each: Duration::from_secs_f64(device.latency / 1e3),
            rate: device.rate * 1e6,
            parallel: device.parallel,
            seek: Duration::from_secs_f64(device.seek / 1e3),
            ..Service::AT_ONCE
        },
        read_ahead: device.read_ahead << 10,
        request: device.request << 10,
    }
}

fn reader(load: &Load) -> ReaderSpec {
    let visits: Vec<Visit> = load.pieces.iter().flat_map(|piece| visits(load, *piece)).collect();
    let bytes: u64 = visits.iter().map(|visit| visit.range.len()).sum();
    // Work is the same after each visit.
    let mean = bytes as f64 / MIB as f64 / visits.len().max(1) as f64;
    ReaderSpec {
        start: moment(load.gap),
        follows: load.after,
        announced: load.announced.then_some(START_OF_PROCESS),
        thread_of: load.process,
        visits,
        style: style(load.how),
        program: load.program.clone(),
        copies: load.copies,
        lives_on: Duration::from_millis(load.stays),
        think: Duration::from_micros(load.think).mul_f64(mean),
        ..ReaderSpec::in_order(&[])
    }
}

fn visits(load: &Load, Piece(part, start, end): Piece) -> impl Iterator<Item = Visit> {
    let pause = Duration::from_micros(load.pause);
    (start..end).step_by(AT_ONCE as usize).map(move |from| {
        let range = ByteRange {
            start: from,
            end: (from + AT_ONCE).min(end),
        };
        Visit {
            pause: pause.mul_f64(range.len() as f64 / MIB as f64),
            ..Visit::of(part, range)
        }
    })
}

const fn style(how: How) -> Style {
    match how {
        How::Map => Style::Map,
        How::MapRandom => Style::MapRandom,
        How::Populate => Style::Populate,
        How::Read => Style::Read { call: MIB },
        How::ReadSmall => Style::Read { call: 128 << 10 },
    }
}

/// A load that is to be cold has its model taken out of the page cache before; from then on is counted what help does for it.
fn evictions(day: &Day) -> (Vec<Eviction>, Vec<TallySpec>) {
    let (mut evictions, mut tallies) = (Vec::new(), Vec::new());
    for (reader, load) in day.loads.iter().enumerate() {
        let Some(cold) = load.cold else { continue };
        let at = match cold {
            Cold::Early => APART.min(load.gap),
            Cold::Late => load.gap.saturating_sub(APART),
        };
        tallies.push(TallySpec {
            eviction: evictions.len(),
            reader,
        });
        for part in day.models.get(load.model).into_iter().flat_map(|model| &model.parts) {
            let size = day.files.get(*part).map_or(0, |file| file.size);
            evictions.push(Eviction {
                at: moment(at),
                follows: load.after,
                part: *part,
                range: ByteRange::new(0, size),
            });
        }
    }
    (evictions, tallies)
}
