//! What the simulated kernel asks a device for, and how long it takes: as counted and timed on Linux 6.18 by `nitro-bench cold`.

use std::time::Duration;

use nitro_user::{
    catalog::model::LayoutKind,
    sim::{Course, DeviceSpec, Files, Limit, Machine, ReaderSpec, Report, Scenario, Service, Style, Visit, run},
    units::{ByteRange, Moment},
};

const MIB: u64 = 1 << 20;
const SIZE: u64 = 64 * MIB;

/// No time for anything but what `device` says.
fn load(device: DeviceSpec, readers: Vec<ReaderSpec>) -> Report {
    let report = run(&Scenario {
        device,
        machine: Machine::default(),
        files: Files::one_model(&[SIZE], LayoutKind::Single, 0),
        resident: Vec::new(),
        evictions: Vec::new(),
        readers,
        memory: 1 << 40,
        course: Course::default(),
        policy: None,
    });
    assert_eq!(report.device_bytes, SIZE);
    report
}

fn disk() -> DeviceSpec {
    DeviceSpec {
        limit: None,
        request: 1280 << 10,
        ..DeviceSpec::bound_by(0.0, 0.0)
    }
}

/// 10 ms a request, without a block device.
fn store(parallel: usize) -> DeviceSpec {
    DeviceSpec {
        service: Service {
            each: Duration::from_millis(10),
            parallel,
            ..Service::AT_ONCE
        },
        request: 0,
        ..disk()
    }
}

fn one(style: Style) -> ReaderSpec {
    ReaderSpec {
        visits: vec![Visit::of(0, ByteRange::new(0, SIZE))],
        style,
        ..ReaderSpec::in_order(&[])
    }
}

/// Visits of 128 KiB at so many places in turn.
fn places(places: u64) -> Vec<Visit> {
    let each = SIZE / places;
    (0..each / (128 << 10))
        .flat_map(|turn| (0..places).map(move |place| place * each + turn * (128 << 10)))
        .map(|start| Visit::of(0, ByteRange::new(start, 128 << 10)))
        .collect()
}

#[test]
fn each_kind_of_reader_asks_in_requests_of_its_own_size() {
    for (style, request) in [
        (Style::Map, 128 << 10),
        (Style::Populate, 256 << 10),
        (Style::MapRandom, 4096),
        (Style::Read { call: MIB }, MIB),
        (Style::Read { call: 128 << 10 }, 128 << 10),
        (Style::Direct { call: MIB }, MIB),
    ] {
        let report = load(disk(), vec![one(style)]);
        let least = SIZE / request;
        assert!(
            (least..least + 3).contains(&report.requests),
            "{style:?}: {} requests, {least} at least",
            report.requests
        );
    }
}

#[test]
fn one_that_goes_round_between_places_is_not_read_ahead_for() {
    let reader = ReaderSpec {
        visits: places(16),
        ..one(Style::Read { call: 128 << 10 })
    };
    let report = load(store(8), vec![reader]);
    assert_eq!(report.requests, SIZE >> 17);
    // One request after the other, though eight could be served; only where the file begins does the kernel expect more.
    let alone = Duration::from_millis(10) * u32::try_from(SIZE >> 17).unwrap_or(0);
    let time = report.reader_times[0];
    assert!(time >= alone / 16 * 15 && time < alone, "{time:?}, about {alone:?}");
}

#[test]
fn a_mapping_has_two_windows_on_their_way() {
    let report = load(store(8), vec![one(Style::Map)]);
    let half = Duration::from_millis(10) * u32::try_from(SIZE >> 18).unwrap_or(0);
    let time = report.reader_times[0];
    assert!(time > half && time < half + half / 20, "{time:?}, about {half:?}");
}

#[test]
fn threads_that_take_turns_have_a_request_each_on_its_way() {
    let thread = |index: usize| ReaderSpec {
        thread_of: Some(0),
        shares: Some(0),
        visits: if index == 0 { places(1) } else { Vec::new() },
        ..one(Style::Read { call: 128 << 10 })
    };
    let report = load(store(8), (0..8).map(thread).collect());
    let eighth = Duration::from_millis(10) * u32::try_from(SIZE >> 20).unwrap_or(0);
    let time = report.reader_times[0];
    assert!(
        time > eighth / 20 * 19 && time < eighth + eighth / 10,
        "{time:?}, about {eighth:?}"
    );
}

#[test]
fn a_limit_gives_a_slice_at_once() {
    let device = DeviceSpec {
        limit: Some(Limit::throttle(100e6, 0.0)),
        ..disk()
    };
    // 67.1 MB at 10 MB for each 100 ms: the seventh slice begins at 600 ms.
    let time = load(device, vec![one(Style::Read { call: MIB })]).reader_times[0];
    assert!((600..625).contains(&time.as_millis()), "{time:?}");
}

#[test]
fn whoever_comes_later_finds_what_is_there() {
    let late = ReaderSpec {
        start: Moment(100_000_000_000),
        ..one(Style::Map)
    };
    let report = load(store(1), vec![one(Style::Map), late]);
    assert!(
        report.reader_times[1] < Duration::from_millis(5),
        "{:?}",
        report.reader_times
    );
}
