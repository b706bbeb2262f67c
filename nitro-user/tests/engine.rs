//! Rules of the engine, over random scenarios in the simulator.

use std::time::Duration;

use nitro_user::{
    catalog::model::LayoutKind,
    engine::Policy,
    sim::{Course, DeviceSpec, Files, Limit, Machine, ReaderSpec, Report, Scenario, Service, Style, Visit, run},
    units::{ByteCount, Moment, STEP},
};
use proptest::prelude::*;

const GIB: u64 = 1 << 30;

/// 1 GB/s at 1000 requests a second: bound by requests.
const REQUEST_BOUND: DeviceSpec = DeviceSpec::bound_by(1e9, 1000.0);

fn up_to(ceiling: u64) -> Policy {
    Policy {
        ceiling: ByteCount(ceiling),
        ..Policy::default()
    }
}

fn scenario(parts: Vec<u64>, layout: LayoutKind) -> Scenario {
    Scenario {
        device: REQUEST_BOUND,
        machine: Machine::default(),
        files: Files::one_model(&parts, layout, 1 << 20),
        resident: Vec::new(),
        evictions: Vec::new(),
        readers: vec![ReaderSpec::in_order(&parts)],
        memory: 16 * GIB,
        course: Course::default(),
        policy: Some(up_to(4 * GIB)),
    }
}

fn unassisted(scenario: &Scenario) -> Report {
    run(&Scenario {
        policy: None,
        ..scenario.clone()
    })
}

fn check(report: &Report) {
    assert!(report.broken.is_empty(), "{:?}", report.broken);
    for receipt in &report.receipts {
        let parts = [
            receipt.resident_before,
            receipt.kernel_readahead,
            receipt.warmed_in_time,
            receipt.warmed_late,
            receipt.missed,
        ];
        assert_eq!(
            parts.iter().map(|part| part.0).sum::<u64>(),
            receipt.demanded.0,
            "{receipt:?}"
        );
    }
}

#[test]
fn a_sequential_map_ends_near_the_device_limit() {
    let scenario = scenario(vec![2 * GIB], LayoutKind::Single);
    let (with, without) = (run(&scenario), unassisted(&scenario));
    check(&with);
    let limit = 2 * GIB / 1_000_000_000 + 1;
    assert!(
        with.reader_times[0] < Duration::from_secs_f64(1.15 * 2.15),
        "{:?} where the device needs {limit} s",
        with.reader_times
    );
    assert!(
        without.reader_times[0] > 5 * with.reader_times[0],
        "{:?}",
        without.reader_times
    );
}

#[test]
fn the_receipt_of_a_whole_load_accounts_for_every_device_byte() {
    let scenario = scenario(vec![GIB, GIB / 2, 3 * STEP + 5], LayoutKind::Gguf);
    let report = run(&scenario);
    check(&report);
    let receipt = &report.receipts[0];
    assert_eq!(receipt.demanded.0, GIB + GIB / 2 + 3 * STEP + 5);
    let from_device = receipt.kernel_readahead.0
        + receipt.missed.0
        + receipt.warmed_in_time.0
        + receipt.warmed_late.0
        + receipt.wasted.0;
    assert_eq!(from_device, report.device_bytes);
}

#[test]
fn next_shards_are_read_while_the_reader_works_on_one() {
    let parts = vec![256 << 20; 8];
    let mut scenario = scenario(parts, LayoutKind::Safetensors);
    // As long as the shard's own read: 128 steps of 2.1 ms.
    scenario.readers[0].think = Duration::from_micros(2097);
    let report = run(&scenario);
    check(&report);
    assert!(
        report.reader_times[0] < Duration::from_secs_f64(1.15 * 2.15 + 0.3),
        "{:?}",
        report.reader_times
    );
}

#[test]
fn a_file_larger_than_the_ceiling_is_paced_and_read_once() {
    let mut scenario = scenario(vec![2 * GIB], LayoutKind::Single);
    scenario.policy = Some(up_to(64 << 20));
    scenario.memory = GIB;
    scenario.readers[0].think = Duration::from_millis(3);
    let report = run(&scenario);
    check(&report);
    assert!(
        report.device_bytes as f64 <= 1.05 * (2 * GIB) as f64,
        "{}",
        ByteCount(report.device_bytes)
    );
}

#[test]
fn tensors_in_an_order_of_their_own_end_near_the_device_limit() {
    let mut scenario = scenario(vec![2 * GIB], LayoutKind::Gguf);
    for part in &mut scenario.files.parts {
        part.header = 64 << 10;
    }
    // 16 MiB tensors, every seventh of 128, and each page by itself: MADV_RANDOM.
    let tensors = (0..128).map(|index| index * 7 % 128);
    scenario.readers[0].visits = tensors
        .flat_map(|tensor| (0..8).map(move |step| Visit::of_step(0, tensor * 8 + step)))
        .collect();
    scenario.readers[0].style = Style::MapRandom;
    let report = run(&scenario);
    check(&report);
    assert!(
        report.reader_times[0] < Duration::from_secs_f64(1.3 * 2.15),
        "{:?}",
        report.reader_times
    );
}

#[test]
fn a_reader_that_stops_wastes_no_more_than_a_window() {
    let mut scenario = scenario(vec![8 * GIB], LayoutKind::Single);
    scenario.readers[0].visits.truncate(3);
    let report = run(&scenario);
    check(&report);
    assert!(report.warmed_bytes <= 256 << 20, "{}", ByteCount(report.warmed_bytes));
}

#[test]
fn a_listing_warms_nothing() {
    let mut scenario = scenario(vec![GIB], LayoutKind::Ollama);
    for part in &mut scenario.files.parts {
        part.header = 7 << 20;
    }
    scenario.readers[0].visits = (0..3).map(|step| Visit::of_step(0, step)).collect();
    let report = run(&scenario);
    check(&report);
    assert_eq!(report.warmed_bytes, 0);
    assert!(report.receipts.is_empty());
}

#[test]
fn two_loads_share_the_device_fairly() {
    let mut scenario = scenario(vec![GIB, GIB], LayoutKind::Siblings);
    let all = scenario.readers[0].visits.clone();
    let of = |part: usize| all.iter().copied().filter(|visit| visit.part == part).collect();
    scenario.readers = vec![
        ReaderSpec {
            visits: of(0),
            ..scenario.readers[0].clone()
        },
        ReaderSpec {
            visits: of(1),
            ..scenario.readers[0].clone()
        },
    ];
    let report = run(&scenario);
    check(&report);
    for time in &report.reader_times {
        assert!(*time < Duration::from_secs_f64(1.1 * 2.15), "{:?}", report.reader_times);
    }
}

const APART: Duration = Duration::from_millis(20);

/// Several readers of one file of 2 GiB, each with the steps that `visits` gives it, which start `apart` after each other.
fn together(readers: u64, apart: Duration, visits: impl Fn(u64) -> Vec<u64>) -> Report {
    let mut scenario = scenario(vec![2 * GIB], LayoutKind::Gguf);
    let one = scenario.readers[0].clone();
    scenario.readers = (0..readers)
        .map(|reader| ReaderSpec {
            start: Moment(reader * apart.as_nanos() as u64),
            visits: visits(reader).into_iter().map(|step| Visit::of_step(0, step)).collect(),
            shares: visits(reader).is_empty().then_some(0),
            ..one.clone()
        })
        .collect();
    let report = run(&scenario);
    check(&report);
    let last = report.reader_times.iter().max().copied().unwrap_or_default();
    assert!(last < Duration::from_secs_f64(1.2 * 2.15), "{:?}", report.reader_times);
    assert_eq!(report.receipts.len(), 1, "{:#?}", report.receipts);
    assert_eq!(report.receipts[0].demanded.0, 2 * GIB);
    assert!(report.device_bytes <= 2 * GIB / 100 * 101, "{}", report.device_bytes);
    report
}

#[test]
fn eight_ranks_that_read_one_model_are_one_load() {
    let report = together(8, APART, |_| (0..1024).collect());
    assert_eq!(report.receipts[0].pids.len(), 8);
}

#[test]
fn eight_ranks_with_an_eighth_each_are_one_load() {
    let report = together(8, APART, |rank| (128 * rank..128 * (rank + 1)).collect());
    assert_eq!(report.receipts[0].pids.len(), 8);
}

#[test]
fn readers_that_take_turns_are_one_load() {
    // All from the first one's list.
    together(8, Duration::ZERO, |reader| {
        if reader == 0 { (0..1024).collect() } else { Vec::new() }
    });
}

#[test]
fn one_reader_with_sixteen_places_is_helped_at_each() {
    together(1, APART, |_| {
        (0..64)
            .flat_map(|turn| (0..16).map(move |place| place * 64 + turn))
            .collect()
    });
}

prop_compose! {
    fn any_reader(parts: usize)(
        start in 0u64..2_000_000_000,
        jumps in prop::collection::vec((0..parts, 0u64..300, 1u64..60), 1..12),
        announced in prop::option::of(0u64..2_000),
        style in prop::sample::select(vec![
            Style::Read { call: 64 << 10 }, Style::Read { call: 128 << 10 }, Style::Read { call: 1 << 20 },
            Style::Map, Style::MapRandom, Style::Populate, Style::Direct { call: 1 << 20 },
        ]),
        think in 0u64..8_000,
    ) -> ReaderSpec {
        let visits = jumps.into_iter().flat_map(|(part, from, count)| (from..from + count).map(move |step| Visit::of_step(part, step)));
        // A page at a time takes its time here, too.
        let most = if style == Style::MapRandom { 24 } else { usize::MAX };
        let visits = visits.take(most).collect();
        let announced = announced.map(Duration::from_micros);
        ReaderSpec {
            start: Moment(start),
            announced,
            visits,
            style,
            think: Duration::from_micros(think),
            ..ReaderSpec::in_order(&[])
        }
    }
}

prop_compose! {
    fn any_device()(
        rate in 20e6..4e9f64,
        requests in 100.0..200_000.0f64,
        is_sliced in prop::bool::ANY,
        each in 0u64..5_000,
        parallel in 1usize..9,
        seek in 0u64..10_000,
        request in prop::sample::select(vec![0u64, 128 << 10, 1 << 20, 1280 << 10]),
    ) -> DeviceSpec {
        let service = Service { each: Duration::from_micros(each), parallel, seek: Duration::from_micros(seek), ..Service::AT_ONCE };
        let bound = DeviceSpec::bound_by(rate, requests);
        let limit = if is_sliced { Some(Limit::throttle(rate, requests)) } else { bound.limit };
        DeviceSpec { limit, service, request, ..bound }
    }
}

prop_compose! {
    fn any_scenario()(parts in prop::collection::vec(1u64..(600 << 20), 1..5))(
        readers in prop::collection::vec(any_reader(parts.len()), 1..4),
        parts in Just(parts),
        layout in prop::sample::select(vec![
            LayoutKind::Ollama, LayoutKind::Gguf, LayoutKind::Numbered, LayoutKind::Siblings, LayoutKind::Single,
        ]),
        header in prop::sample::select(vec![0u64, 4096, 7 << 20]),
        device in any_device(),
        memory in (32u64 << 20)..(2 << 30),
        ceiling in (4u64 << 20)..(1 << 30),
    ) -> Scenario {
        let machine = Machine::default();
        Scenario {
            device,
            machine,
            files: Files::one_model(&parts, layout, header),
            resident: Vec::new(),
            evictions: Vec::new(),
            readers,
            memory,
            course: Course::default(),
            policy: Some(up_to(ceiling)),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// No window passes the end of a file, the ceiling is never exceeded, nothing is warmed after a load's end, receipts add up.
    #[test]
    fn the_rules_hold_in_any_scenario(scenario in any_scenario()) {
        let report = run(&scenario);
        check(&report);
        let total: u64 = report.receipts.iter().map(|receipt| receipt.warmed_in_time.0 + receipt.warmed_late.0 + receipt.wasted.0).sum();
        // What was in flight when its load ended is in no receipt. What lay beyond its step, was taken by the kernel and told again, is there twice.
        let told = report.warmed_bytes + report.evicted_bytes;
        prop_assert!(total <= told, "receipts say {total} were warmed, the workers {told}");
    }

    /// The same inputs give the same actions.
    #[test]
    fn a_run_is_deterministic(scenario in any_scenario()) {
        let (one, two) = (run(&scenario), run(&scenario));
        prop_assert_eq!(one.receipts, two.receipts);
        prop_assert_eq!(one.ended, two.ended);
    }
}
