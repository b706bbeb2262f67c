//! A cell of the matrix as a scenario: the same files, visits and device.

use std::time::Duration;

use anyhow::{Result, ensure};
use nitro_user::{
    catalog::model::LayoutKind,
    engine::Policy,
    sim::{Course, DeviceSpec, Files, Limit, Machine, ReaderSpec, Scenario, Service, Style, Visit},
    units::{ByteCount, ByteRange, Moment},
};

use super::cell::Cell;
use crate::{
    bench::cold::{Device, ORDER_SEED, Rig, SHARDS},
    readers::{CURSORS, Kind, PIECE, RANKS, THREADS},
    tree::gguf,
};

const MIB: u64 = 1 << 20;

/// Seed of the model that the bench writes.
const GGUF_SEED: u64 = 1;

/// The bench's reader begins its load so long after its command line is seen.
const START_OF_PROCESS: Duration = Duration::from_micros(300);

/// Readers start then: whatever the agent does before them has room.
const START: Moment = Moment(20_000_000);

/// Between the starts of two ranks.
const BETWEEN_RANKS: Duration = Duration::from_micros(700);

/// `BufReader` of the reader that looks for tensors.
const HEADER_CALL: u64 = 8 << 10;

/// Requests at once of a reader with `O_DIRECT`.
const DEPTH: usize = 8;

/// A loop device over a file in memory: one thread copies, into pages that were just taken, or into a reader's own buffers again and again.
const LOOP: Service = Service {
    delay: Duration::from_micros(12),
    each: Duration::from_micros(19),
    rate: 9.8e9,
    direct_rate: 22e9,
    parallel: 1,
    seek: Duration::ZERO,
};

/// What a request to a file system in user space takes beside the time that it sleeps: two switches of process, and the server's own read.
const SERVER: Duration = Duration::from_micros(250);

/// The cell with the agent at this ceiling, or without; and when the load begins in it.
///
/// # Errors
/// The cell's model is not one that the bench writes.
pub fn of(cell: &Cell, ceiling: Option<ByteCount>) -> Result<(Scenario, Moment)> {
    let rig = cell.rig();
    let (parts, layout, header) = files(cell)?;
    let readers = readers(cell, &parts)?;
    let files = Files::one_model(&parts, layout, header);
    let scenario = Scenario {
        device: device(rig),
        machine: machine(cell, rig),
        resident: if cell.device == Device::Cached {
            files.whole()
        } else {
            Vec::new()
        },
        files,
        evictions: Vec::new(),
        readers,
        memory: 1 << 40,
        course: Course::default(),
        policy: ceiling.map(|ceiling| Policy {
            ceiling,
            ..Policy::default()
        }),
    };
    Ok((scenario, START))
}

fn device(rig: Rig) -> DeviceSpec {
    let limit = (rig.limit != crate::limit::Limit::NONE).then(|| {
        Limit::throttle(
            rig.limit.bytes_per_second as f64,
            rig.limit.operations_per_second as f64,
        )
    });
    let service = rig.service.map_or(LOOP, |service| Service {
        delay: Duration::ZERO,
        each: SERVER + Duration::from_secs_f64(service.latency / 1e3),
        rate: service.rate * 1e6,
        direct_rate: 0.0,
        parallel: service.parallel,
        seek: Duration::from_secs_f64(service.seek / 1e3),
    });
    DeviceSpec {
        limit,
        service,
        read_ahead: rig.read_ahead,
        request: rig.request,
    }
}

/// What the reader costs the processors is what it takes when everything is cached.
fn machine(cell: &Cell, rig: Rig) -> Machine {
    let mut machine = Machine {
        processors: rig.processors,
        ..Machine::default()
    };
    let Some(cached) = cell.cached else { return machine };
    let rate = |times: f64| cell.bytes as f64 * times / (cached - cell.work);
    let processors = rig.processors as f64;
    match cell.reader {
        Kind::Map | Kind::MapRandom => machine.touch = rate(1.0),
        Kind::Populate => machine.populate = rate(1.0),
        Kind::Read | Kind::Cursors => machine.copy = rate(1.0),
        Kind::Threads => machine.copy = rate(1.0 / processors.min(THREADS as f64)),
        Kind::Ranks => machine.touch = rate(RANKS as f64 / processors.min(RANKS as f64)),
        // The difference of two long times is no measurement.
        Kind::Shards | Kind::Direct => {}
    }
    machine
}

fn nominal(cell: &Cell) -> u64 {
    cell.bytes / MIB * MIB
}

/// Sizes of the parts, what ties them together, and their headers.
fn files(cell: &Cell) -> Result<(Vec<u64>, LayoutKind, u64)> {
    if cell.reader == Kind::Shards {
        let each = cell.bytes / SHARDS as u64;
        return Ok((vec![each; SHARDS], LayoutKind::HuggingFace, each % MIB));
    }
    let (tensors, bytes) = gguf::plan(GGUF_SEED, nominal(cell));
    ensure!(
        bytes == cell.bytes,
        "{}: a model of {} bytes, and the bench would write one of {bytes}",
        cell.name(),
        cell.bytes
    );
    let header = tensors.first().map_or(0, |tensor| tensor.offset);
    Ok((vec![bytes], LayoutKind::Gguf, header))
}

fn whole(part: usize, bytes: u64) -> Visit {
    Visit::of(part, ByteRange::new(0, bytes))
}

/// Pieces of so many bytes, in order.
fn pieces(bytes: u64, of: u64) -> Vec<Visit> {
    let starts = (0..bytes.div_ceil(of)).map(|piece| piece * of);
    starts.map(|start| Visit::of(0, ByteRange::new(start, of))).collect()
}

fn readers(cell: &Cell, parts: &[u64]) -> Result<Vec<ReaderSpec>> {
    let bytes = parts.first().copied().unwrap_or(0);
    let one = ReaderSpec {
        start: START,
        announced: Some(START_OF_PROCESS),
        visits: vec![whole(0, bytes)],
        ..ReaderSpec::in_order(&[])
    };
    // Threads of one process that take the next piece in turn.
    let threads = |count: usize, style: Style, visits: Vec<Visit>| {
        let thread = |index: usize| ReaderSpec {
            announced: one.announced.filter(|_| index == 0),
            thread_of: Some(0),
            visits: if index == 0 { visits.clone() } else { Vec::new() },
            shares: Some(0),
            style,
            ..one.clone()
        };
        (0..count).map(thread).collect()
    };
    Ok(match cell.reader {
        Kind::Map => vec![one],
        Kind::Populate => vec![ReaderSpec {
            style: Style::Populate,
            ..one
        }],
        Kind::MapRandom => vec![ReaderSpec {
            visits: in_tensor_order(cell),
            style: Style::MapRandom,
            ..one
        }],
        Kind::Read => vec![ReaderSpec {
            style: Style::Read { call: MIB },
            ..one
        }],
        Kind::Shards => vec![ReaderSpec {
            visits: parts
                .iter()
                .enumerate()
                .map(|(part, bytes)| whole(part, *bytes))
                .collect(),
            style: Style::Read { call: MIB },
            think: Duration::from_secs_f64(cell.work / SHARDS as f64),
            ..one
        }],
        Kind::Direct => threads(DEPTH, Style::Direct { call: MIB }, pieces(bytes, MIB)),
        Kind::Cursors => vec![ReaderSpec {
            visits: in_turn(&pieces(bytes, PIECE), CURSORS as usize),
            style: Style::Read { call: PIECE },
            ..one
        }],
        Kind::Threads => threads(THREADS, Style::Read { call: PIECE }, pieces(bytes, PIECE)),
        Kind::Ranks => (0..RANKS)
            .map(|rank| ReaderSpec {
                start: START.after(BETWEEN_RANKS * rank as u32),
                ..one.clone()
            })
            .collect(),
    })
}

/// The header, read by a parser and then touched; then the tensors, shuffled as the reader does.
fn in_tensor_order(cell: &Cell) -> Vec<Visit> {
    let (mut tensors, _) = gguf::plan(GGUF_SEED, nominal(cell));
    let header = ByteRange::new(0, tensors.first().map_or(0, |tensor| tensor.offset));
    fastrand::Rng::with_seed(ORDER_SEED).shuffle(&mut tensors);
    let parsed = Visit {
        style: Some(Style::Read { call: HEADER_CALL }),
        ..Visit::of(0, header)
    };
    let tensors = tensors
        .iter()
        .map(|tensor| Visit::of(0, ByteRange::new(tensor.offset, tensor.bytes)));
    [parsed, Visit::of(0, header)].into_iter().chain(tensors).collect()
}

/// The visits of `places` equal stretches, one of each in turn.
fn in_turn(visits: &[Visit], places: usize) -> Vec<Visit> {
    let each = visits.len().div_ceil(places);
    let turns = (0..each).flat_map(|turn| (0..places).map(move |place| place * each + turn));
    turns.filter_map(|index| visits.get(index).copied()).collect()
}
