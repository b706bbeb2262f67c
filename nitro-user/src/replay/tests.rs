//! Traces made up for one thing each, and whatever else a trace may say.

use std::sync::Arc;

use proptest::{collection::vec, prelude::*};

use super::{
    compare::{Comparison, Help, Outcome, World},
    demand::{Collecting, Demand, DemandError, LeftOut},
    device::Choice,
    pace::Paced,
};
use crate::{
    catalog::model::{Description, LayoutKind, Model, Part, Place},
    engine::{Access, AccessKind, Input, Policy},
    sim::Style,
    trace::{CallKind, Header, Loss, Record, tests::record},
    units::{ByteCount, ByteRange, FileId, Moment, STEP},
};

const FILE: FileId = FileId { device: 1, inode: 7 };
const MS: u64 = 1_000_000;
const MIB: u64 = 1 << 20;

fn at(milliseconds: u64) -> Moment {
    Moment(5_000 * MS + milliseconds * MS)
}

fn header() -> Header {
    Header {
        mode: "page-cache".into(),
        process: 1,
        ceiling: ByteCount(1 << 30),
        ..Header::default()
    }
}

fn described(size: u64) -> Record {
    let part = Part {
        file: FILE,
        size,
        header: 0,
        place: Place {
            root: std::path::Path::new("/m").into(),
            below: "model.gguf".into(),
        },
        generation: 0,
        layer: None,
    };
    let model = Model {
        name: "model.gguf".into(),
        layout: LayoutKind::Single,
        parts: vec![part],
        observe_only: false,
        lent: false,
        changes_unseen: false,
    };
    let description = Description {
        file: FILE,
        model: Arc::new(model),
        position: 0,
        written: None,
    };
    Record::Input {
        at: at(0),
        input: Input::Described {
            file: FILE,
            description: Some(description),
        },
    }
}

fn access(when: u64, process: u32, start: u64, jump: bool) -> Record {
    let access = Access {
        at: at(when),
        process,
        thread: process,
        file: FILE,
        generation: 0,
        range: ByteRange::new(start, MIB),
        kind: AccessKind::Read,
        jump,
        in_order: false,
        written: false,
    };
    Record::Input {
        at: at(when),
        input: Input::Access(access),
    }
}

fn brought(when: u64, process: u32, step: u64) -> Record {
    Record::Brought {
        at: at(when),
        process,
        thread: process,
        file: FILE,
        range: ByteRange::new(step * STEP, STEP),
    }
}

fn counted(process: u32, bytes: u64) -> Record {
    Record::Counts {
        at: at(100_000),
        process,
        file: FILE,
        calls: 1,
        bytes,
        added: bytes,
        missed: bytes / 2,
    }
}

/// A process reads so many steps, one each so many milliseconds.
fn load(process: u32, from: u64, every: u64, steps: u64) -> Vec<Record> {
    let each = (0..steps).flat_map(|step| {
        let when = from + step * every;
        [
            brought(when, process, step),
            access(when, process, step * STEP, step == 0),
        ]
    });
    each.chain([counted(process, steps * STEP)]).collect()
}

fn demand(records: &[Record]) -> Result<Demand, DemandError> {
    let mut collecting = Collecting::new(&header());
    records.iter().for_each(|record| collecting.add(record));
    collecting.end()
}

/// A load of 64 MiB: 2 MiB each 31 ms, from a device of 100 MB/s.
fn a_load() -> Vec<Record> {
    let mut records = vec![described(32 * STEP)];
    records.extend(load(10, 0, 31, 32));
    records
}

fn comparison(records: &[Record]) -> Comparison {
    let demand = demand(records).unwrap();
    let recorded = "100MB".parse::<Choice>().unwrap().spec(None);
    Comparison::new(Paced::new(demand, recorded, None), Policy::default())
}

fn world(device: &str) -> World {
    World {
        device: device.parse().unwrap(),
        memory: None,
        ceiling: ByteCount(1 << 30),
        cold: false,
    }
}

fn run(comparison: &Comparison, world: World, help: Help) -> Outcome {
    let outcome = comparison.run(world, help);
    assert!(outcome.broken.is_empty(), "{:?}", outcome.broken);
    outcome
}

#[test]
fn what_was_read_in_order_is_one_visit_a_step_up_to_the_end() {
    let demand = demand(&a_load()).unwrap();
    let visits = &demand.readers[0].visits;
    assert_eq!(visits.len(), 32);
    for (step, visited) in visits.iter().enumerate() {
        assert_eq!(visited.range, ByteRange::of_step(step as u64, 32 * STEP));
        assert_eq!(visited.style, Style::Read { call: MIB });
        assert_eq!(visited.at, Moment(step as u64 * 31 * MS));
    }
    assert_eq!(demand.resident, []);
    let rate = demand.rate.unwrap().0;
    assert!(
        (60e6..80e6).contains(&rate),
        "2 MiB each 31 ms is 67 MB/s, and {rate} was seen"
    );
}

#[test]
fn what_nobody_brought_in_was_there() {
    let records: Vec<Record> = a_load()
        .into_iter()
        .filter(|record| !matches!(record, Record::Brought { at, .. } if *at > self::at(500)))
        .collect();
    let demand = demand(&records).unwrap();
    let first = demand.resident[0].1;
    assert_eq!(first, ByteRange::of_step(17, 32 * STEP));
    assert_eq!(demand.resident.len(), 15);
}

#[test]
fn what_left_and_was_not_brought_in_before_was_there_and_leaves_again() {
    let mut records = vec![described(32 * STEP)];
    records.push(access(0, 10, 0, true));
    records.push(Record::Input {
        at: at(10),
        input: Input::Removed {
            file: FILE,
            range: ByteRange::new(0, STEP),
        },
    });
    records.push(brought(20, 10, 0));
    records.push(access(20, 10, 0, true));
    let demand = demand(&records).unwrap();
    assert_eq!(demand.resident, [(0, ByteRange::new(0, STEP))]);
    assert_eq!(demand.evictions, [(Moment(10 * MS), 0, ByteRange::new(0, STEP))]);
}

#[test]
fn a_reader_that_jumps_read_as_much_as_was_counted() {
    let mut records = vec![described(64 * STEP)];
    records.extend((0..8).map(|piece| access(piece * 10, 10, (63 - 7 * piece) * STEP, true)));
    records.push(counted(10, 12 * MIB));
    let demand = demand(&records).unwrap();
    let lengths: Vec<u64> = demand.readers[0]
        .visits
        .iter()
        .map(|visited| visited.range.len())
        .collect();
    assert_eq!(lengths, [MIB + MIB / 2; 8]);
}

#[test]
fn exact_calls_go_before_events() {
    let call = |index: u64, direct| Record::Call {
        at: at(index),
        process: 10,
        thread: 10,
        file: FILE,
        kind: CallKind::Read,
        direct,
        range: ByteRange::new(index * 4096, 4096),
    };
    let mut collecting = Collecting::new(&Header {
        calls: true,
        ..header()
    });
    let mut records = vec![described(32 * STEP), access(0, 10, 0, true)];
    records.extend((0..600).map(|index| call(index, false)));
    records.extend((600..604).map(|index| call(index, true)));
    records.iter().for_each(|record| collecting.add(record));
    let demand = collecting.end().unwrap();
    let visits = &demand.readers[0].visits;
    let ranges: Vec<ByteRange> = visits.iter().map(|visited| visited.range).collect();
    let end = 600 * 4096;
    assert_eq!(
        ranges,
        [
            ByteRange { start: 0, end: STEP },
            ByteRange { start: STEP, end },
            ByteRange::new(end, 4 * 4096)
        ]
    );
    assert_eq!(visits[2].style, Style::Direct { call: 4096 });
}

#[test]
fn what_the_readers_did_themselves_takes_as_long_on_any_device() {
    let comparison = comparison(&a_load());
    let recorded = comparison.paced().recorded_seconds();
    assert!((recorded - 0.961).abs() < 1e-6, "{recorded}");
    let again = comparison.check(world("100MB"), false);
    assert!(
        (again / recorded - 1.0).abs() < 0.02,
        "{again} in the simulator, {recorded} recorded"
    );
    // 21 of the 31 ms were the device's; of these some while the reader did something else. On a fast one 10 stay, or somewhat more.
    let fast = run(&comparison, world("nvme"), Help::None);
    assert!((0.31..0.70).contains(&fast.seconds), "{}", fast.seconds);
    let slow = run(&comparison, world("50MB"), Help::None);
    assert!((1.2..1.7).contains(&slow.seconds), "{}", slow.seconds);
}

#[test]
fn help_shows_as_coverage_and_saved_time() {
    let comparison = comparison(&a_load());
    let world = world("100MB/100");
    let [none, cat, agent] = [Help::None, Help::Cat, Help::Agent].map(|help| run(&comparison, world, help));
    assert_eq!(
        (none.covered, none.wasted, none.needed),
        (ByteCount(0), ByteCount(0), ByteCount(32 * STEP))
    );
    assert!(
        agent.seconds < none.seconds,
        "{} with help, {} without",
        agent.seconds,
        none.seconds
    );
    assert!(agent.coverage().unwrap() > 0.8, "{:?}", agent.coverage());
    assert_eq!(cat.coverage(), Some(1.0));
    // Everything once, in order, and only then the reader.
    assert!(cat.seconds > 32.0 * 0.021 + 31.0 * 0.009, "{}", cat.seconds);
    assert_eq!((cat.read, cat.wasted), (ByteCount(32 * STEP), ByteCount(0)));
}

#[test]
fn what_nobody_reads_is_waste() {
    let mut records = vec![described(64 * STEP)];
    records.extend(load(10, 0, 31, 32));
    let cat = run(&comparison(&records), world("nvme"), Help::Cat);
    assert_eq!(cat.wasted, ByteCount(32 * STEP));
}

#[test]
fn who_began_after_another_does_so_again_and_finds_what_is_there() {
    let mut records = a_load();
    records.extend(load(11, 2000, 10, 32));
    // The first load ended at 961 ms; nothing left the page cache, and nobody brought in anything twice.
    records.retain(|record| !matches!(record, Record::Brought { process: 11, .. }));
    let comparison = comparison(&records);
    let slow = comparison.run(world("20MB"), Help::None);
    assert_eq!(slow.read, ByteCount(32 * STEP));
    assert!(slow.seconds > 3.3, "{}", slow.seconds);
    // With too little memory it is read twice.
    let small = World {
        memory: Some(ByteCount(16 * MIB)),
        ..world("20MB")
    };
    assert_eq!(comparison.run(small, Help::None).read, ByteCount(64 * STEP));
}

#[test]
fn what_was_in_the_page_cache_is_there_again_unless_it_is_to_be_cold() {
    let records: Vec<Record> = a_load()
        .into_iter()
        .filter(|record| !matches!(record, Record::Brought { .. }))
        .collect();
    let comparison = comparison(&records);
    assert_eq!(run(&comparison, world("gp3"), Help::None).read, ByteCount(0));
    let cold = World {
        cold: true,
        ..world("gp3")
    };
    assert_eq!(run(&comparison, cold, Help::None).read, ByteCount(32 * STEP));
}

#[test]
fn what_cannot_be_replayed_is_said() {
    assert!(matches!(demand(&[described(STEP)]), Err(DemandError::Nothing)));
    // The agent's own reading is nobody's demand.
    assert!(matches!(demand(&[access(0, 1, 0, true)]), Err(DemandError::Nothing)));
    assert!(matches!(
        demand(&[described(2 << 40), access(0, 10, 0, true)]),
        Err(DemandError::Large(ByteCount(bytes))) if bytes == 2 << 40
    ));
    let threads: Vec<Record> = (0..5000).map(|process| access(0, 10 + process, 0, true)).collect();
    assert!(matches!(demand(&threads), Err(DemandError::Threads)));
    let jumps = (0..1 << 20).map(|jump: u64| access(jump, 10, (jump * 7919 % 1024) * STEP, true));
    assert!(matches!(demand(&jumps.collect::<Vec<_>>()), Err(DemandError::Long)));
}

#[test]
fn what_is_missing_is_counted() {
    let mut records = a_load();
    let other = FileId { inode: 8, ..FILE };
    records.push(Record::Input {
        at: at(1),
        input: Input::Direct {
            process: 10,
            file: other,
        },
    });
    let loss = Loss {
        ring: 3,
        ..Loss::default()
    };
    records.push(Record::Lost { at: at(1), loss });
    assert_eq!(demand(&records).unwrap().left_out, LeftOut { direct: 1, lost: 3 });
}

#[test]
fn long_pauses_are_cut() {
    let hour = 3600 * 1000;
    let records = [access(0, 10, 0, true), access(48 * hour, 10, STEP, false)];
    let demand = demand(&records).unwrap();
    assert_eq!(demand.readers[0].ended(), Moment(hour * MS));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn whatever_a_trace_says_it_is_demand_or_an_error(records in vec(record(), 0..80)) {
        if let Ok(demand) = demand(&records) {
            for reader in &demand.readers {
                prop_assert!(!reader.visits.is_empty());
                prop_assert!(reader.visits.is_sorted_by_key(|visited| visited.at));
                for visited in &reader.visits {
                    prop_assert!(!visited.range.is_empty() && visited.range.end <= demand.files.size(visited.part));
                }
            }
        }
    }

    #[test]
    fn small_loads_replay_on_any_device_with_little_memory(
        jumps in vec((0u64..90, 1u64..40, any::<bool>(), 0u32..3), 1..40),
        device in prop::sample::select(vec!["nvme", "hdd", "nas", "recorded", "10MB/50"]),
        help in prop::sample::select(vec![Help::None, Help::Cat, Help::Agent]),
        // The least that the command takes, and more.
        memory in prop::option::of(64u64..128),
    ) {
        let mut records = vec![described(90 * STEP + 5)];
        let mut now = 0;
        for (step, pause, jump, process) in jumps {
            now += pause;
            records.push(access(now, 10 + process, step * STEP, jump));
        }
        let comparison = comparison(&records);
        let world = World { memory: memory.map(|memory| ByteCount(memory * MIB)), ..world(device) };
        let outcome = run(&comparison, world, help);
        prop_assert!(outcome.seconds.is_finite() && outcome.covered <= outcome.needed);
        // At worst each page of every visit is a request of its own, for each process: one in 20 ms, or 8 ms and the rest of an hdd's.
        let pages = 40 * (STEP / 4096) * 3;
        prop_assert!(outcome.seconds < pages as f64 * 0.02 * 1.2 + 600.0, "{outcome:?}");
    }
}
