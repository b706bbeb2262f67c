//! Days: what happens between loads.

use std::time::Duration;

use super::*;
use crate::{engine::retain, units::ByteCount};

const MIB: u64 = 1 << 20;

/// Moments are nanoseconds.
const SECOND: u64 = 1_000_000_000;

/// Two models of 64 MiB on a device that requests bind, and page cache for so much.
fn two_models(memory: u64, readers: Vec<ReaderSpec>) -> Scenario {
    let part = PartSpec {
        size: 64 * MIB,
        header: MIB,
    };
    let model = |name: &str, part| ModelSpec {
        name: name.into(),
        layout: LayoutKind::Gguf,
        parts: vec![part],
    };
    Scenario {
        device: DeviceSpec::bound_by(1e9, 1000.0),
        machine: Machine::default(),
        files: Files {
            parts: vec![part; 2],
            models: vec![model("one", 0), model("other", 1)],
        },
        resident: Vec::new(),
        evictions: Vec::new(),
        readers,
        memory,
        policy: None,
        course: Course {
            names: vec!["/m/a-1.gguf".into(), "/m/a-2.gguf".into()],
            ..Course::default()
        },
    }
}

/// Reads a whole model a second after the reader before has ended.
fn reader(part: usize, follows: Option<usize>) -> ReaderSpec {
    ReaderSpec {
        start: Moment(SECOND),
        follows,
        visits: vec![Visit::of(part, ByteRange::new(0, 64 * MIB))],
        style: Style::Map,
        ..ReaderSpec::in_order(&[])
    }
}

fn policy(memory: u64) -> Policy {
    Policy {
        ceiling: ByteCount(memory / 2),
        ..Policy::default()
    }
}

#[test]
fn what_a_reader_copies_the_page_cache_has_not_until_its_process_ends() {
    let copying = |lives_on| {
        let copies = ReaderSpec {
            copies: true,
            lives_on,
            ..reader(0, None)
        };
        let again = ReaderSpec {
            start: Moment(10 * SECOND),
            ..reader(1, Some(1))
        };
        run(&two_models(120 * MIB, vec![copies, reader(1, Some(0)), again])).served[2]
    };
    assert_eq!(copying(Duration::ZERO).resident, 64 * MIB);
    // Of 120 MiB the copy leaves 56.
    assert_eq!(copying(Duration::from_secs(60)).resident, 0);
}

#[test]
fn what_an_eviction_is_for_is_counted_until_its_reader_ends() {
    let mut scenario = two_models(1 << 30, vec![reader(0, None), reader(0, Some(0)), reader(1, Some(1))]);
    scenario.evictions = vec![Eviction {
        at: Moment(SECOND / 2),
        follows: Some(0),
        part: 0,
        range: ByteRange::new(0, 64 * MIB),
    }];
    scenario.course.tallies = vec![TallySpec { eviction: 0, reader: 1 }];
    scenario.course.simple = Some(Baseline::WholeFile);
    let report = run(&scenario);
    let tallied = report.tallies[0];
    assert!(tallied.brought > 60 * MIB && tallied.brought <= 64 * MIB, "{tallied:?}");
    assert_eq!(tallied.used, tallied.brought);
    assert_eq!(report.served[1].resident, 0);
    assert_eq!(report.served[1].demanded(), 64 * MIB);
    assert_eq!(report.wasted_bytes, 0);
}

#[test]
fn a_sibling_that_nobody_reads_is_waste() {
    let mut scenario = two_models(
        1 << 30,
        vec![
            reader(0, None),
            ReaderSpec {
                start: Moment(9 * SECOND),
                ..reader(0, Some(0))
            },
        ],
    );
    scenario.course.simple = Some(Baseline::Siblings);
    let report = run(&scenario);
    assert_eq!(report.wasted_bytes, 64 * MIB);
    assert_eq!(report.used.by_help, 0);
}

#[test]
fn an_agent_that_is_started_anew_knows_what_was_used() {
    let mut scenario = two_models(
        1 << 30,
        vec![
            reader(0, None),
            ReaderSpec {
                start: Moment(600 * SECOND),
                ..reader(0, Some(0))
            },
        ],
    );
    let memory = scenario.memory;
    scenario.evictions = vec![Eviction {
        at: Moment(100 * SECOND),
        follows: Some(0),
        part: 0,
        range: ByteRange::new(0, 64 * MIB),
    }];
    // It is down when the model goes, and comes up after.
    scenario.course.restarts = vec![Moment(102 * SECOND)];
    let resident = |rewarm| {
        let mut scenario = scenario.clone();
        scenario.policy = Some(Policy {
            retain: retain::Settings {
                rewarm,
                ..retain::Settings::default()
            },
            reserve: ByteCount(memory / 20),
            ..policy(memory)
        });
        let report = run(&scenario);
        assert!(report.broken.is_empty(), "{:?}", report.broken);
        report.served[1].in_time
    };
    assert_eq!(resident(true), 64 * MIB);
    assert!(resident(false) < 64 * MIB);
}

#[test]
fn what_is_locked_stays() {
    let readers = vec![
        reader(0, None),
        reader(0, Some(0)),
        reader(1, Some(1)),
        reader(0, Some(2)),
    ];
    let mut scenario = two_models(100 * MIB, readers);
    for reader in &mut scenario.readers {
        reader.start = Moment(60 * SECOND);
    }
    let served = |pin: u64| {
        let mut scenario = scenario.clone();
        scenario.policy = Some(Policy {
            ceiling: ByteCount(90 * MIB),
            retain: retain::Settings {
                pin: ByteCount(pin),
                ..retain::Settings::default()
            },
            ..Policy::default()
        });
        let report = run(&scenario);
        assert!(report.broken.is_empty(), "{:?}", report.broken);
        report.served[3].resident
    };
    // The hotter one of two.
    assert_eq!(served(80 * MIB), 64 * MIB);
    assert!(served(0) < 64 * MIB);
}

#[test]
fn whoever_warms_where_no_memory_is_left_comes_to_an_end() {
    let copies = ReaderSpec {
        copies: true,
        lives_on: Duration::from_secs(60),
        style: Style::Read { call: MIB },
        ..reader(0, None)
    };
    let mut scenario = two_models(64 * MIB, vec![copies, reader(1, Some(0))]);
    scenario.course.simple = Some(Baseline::WholeFile);
    assert_eq!(run(&scenario).reader_times.len(), 2);
}
