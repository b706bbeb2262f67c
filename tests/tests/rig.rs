//! The rig itself on the real kernel: a measurement is worth what its instruments are worth.
//!
//! Needs root, loop devices and a group that limits reads; says so and passes without, except in CI, where a skip fails.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    time::{Duration, Instant},
};

use rig::{
    agent::Agent,
    disk::TestDisk,
    limit::{IoLimit, Limit},
    readers::{Kind, Reader},
    scratch::{Owner, ScratchDir},
    sweep, tree,
};

/// Whether the machine has what the test needs.
fn root_or_skip(test: &str) -> bool {
    if nix::unistd::geteuid().is_root() {
        return true;
    }
    assert!(std::env::var_os("CI").is_none(), "{test} needs root");
    eprintln!("{test}: skipped, needs root");
    false
}

fn reader(kind: Kind, tree: &tree::ModelTree) -> Reader {
    Reader::new(Path::new(env!("CARGO_BIN_EXE_nitro-bench")), kind, &tree.files)
}

#[test]
fn a_limited_disk_gives_what_its_limit_says() {
    if !root_or_skip("a_limited_disk_gives_what_its_limit_says") {
        return;
    }
    sweep::prepare(&std::env::temp_dir()).unwrap();
    let disk = TestDisk::new(&std::env::temp_dir(), 256 << 20).unwrap();
    let group = IoLimit::new().unwrap();
    let tree = tree::series::numbered(disk.path(), "part", 1, 2, 64 << 20).unwrap();
    disk.limit(
        &group,
        Limit {
            bytes_per_second: 64 << 20,
            operations_per_second: 1000,
        },
    )
    .unwrap();

    for file in &tree.files {
        rig::sys::drop_pages(&fs::File::open(file).unwrap()).unwrap();
    }
    assert!(tree.resident().unwrap() < 0.01, "cold");
    let (bytes, requests) = (
        disk.device_bytes_read().unwrap(),
        group.requests(disk.number()).unwrap(),
    );
    let report = reader(Kind::Direct, &tree).run(Some(&group)).unwrap();
    assert!(
        (0.85..1.15).contains(&report.seconds),
        "1 s nominal, took {}",
        report.seconds
    );
    assert!(
        (64 << 20..68 << 20).contains(&(disk.device_bytes_read().unwrap() - bytes)),
        "the device was read once"
    );
    assert!(
        (64..90).contains(&(group.requests(disk.number()).unwrap() - requests)),
        "in requests of 1 MiB"
    );
    assert!(
        tree.resident().unwrap() < 0.01,
        "direct reads leave nothing in the page cache"
    );

    disk.limit(&group, Limit::NONE).unwrap();
    reader(Kind::Read, &tree).run(Some(&group)).unwrap();
    assert_eq!(tree.resident().unwrap(), 1.0);
}

#[test]
fn an_agent_is_awaited_and_stopped() {
    let dir = ScratchDir::new(&std::env::temp_dir()).unwrap();
    let fake = |name: &str, script: &str| {
        let path = dir.path().join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        Agent::new(&path, dir.path())
    };
    let agent = fake(
        "good",
        "echo \"args $*\"; sleep 0.05; echo 'it is ready' >&2; exec sleep 100",
    )
    .start(None)
    .unwrap();
    assert!(agent.time_to_ready() >= Duration::from_millis(50));
    assert!(
        agent
            .wait_for_line(Duration::from_secs(5), |line| line.starts_with("args --watch"))
            .is_some()
    );
    assert!(agent.resident_bytes().unwrap() > 0);
    let stopped = agent.stop().unwrap();
    assert!(stopped.took < Duration::from_secs(2), "{stopped:?}");

    let error = fake("bad", "echo 'no kernel'; exit 3").start(None).unwrap_err();
    assert!(format!("{error:#}").contains("no kernel"), "{error:#}");
}

#[test]
fn what_a_dead_run_left_is_removed() {
    if !root_or_skip("what_a_dead_run_left_is_removed") {
        return;
    }
    let base = ScratchDir::new(&std::env::temp_dir()).unwrap();
    // Its name says that process 1 made it at another time than process 1 was started.
    let left = base.path().join("nitro-rig-1-1-0");
    fs::create_dir_all(left.join("disk")).unwrap();
    fs::write(left.join("image"), vec![0; 1 << 20]).unwrap();
    let output = std::process::Command::new("losetup")
        .args(["--find", "--show"])
        .arg(left.join("image"))
        .output()
        .unwrap();
    let device = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    sweep::remember_base(base.path());
    sweep::sweep(Owner::Gone);
    let backing = Path::new("/sys/block")
        .join(device.trim().trim_start_matches("/dev/"))
        .join("loop/backing_file");
    let deadline = Instant::now() + Duration::from_secs(2);
    while fs::read_to_string(&backing).is_ok_and(|path| path.contains("nitro-rig-1-1-0")) {
        assert!(Instant::now() < deadline, "the loop device is still attached");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(!left.exists());
}

#[test]
fn every_kind_reads_every_page_once() {
    // Not in /tmp, which may be a tmpfs without O_DIRECT.
    let dir = ScratchDir::new(Path::new("/var/tmp")).unwrap();
    let tree = tree::gguf::single(dir.path(), "m", 5, (9 << 20) + 12345).unwrap();
    let reports: Vec<_> = Kind::ALL
        .into_iter()
        .map(|kind| reader(kind, &tree).cpu(Duration::from_millis(1)).run(None).unwrap())
        .collect();
    for report in &reports {
        assert_eq!(report.checksum, reports[0].checksum, "{:?}", report.kind);
        assert_eq!(report.complete, 1.0);
        assert_eq!(report.bytes, tree.bytes, "{:?}", report.kind);
    }
}
