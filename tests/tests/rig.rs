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
        "echo \"args $*, ready\"; sleep 0.05; echo '{\"event\":\"ready\"}'; exec sleep 100",
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
    // A signal ended it, which is no clean end.
    assert!(!stopped.early && stopped.served().is_err(), "{stopped:?}");

    let served = |name: &str, script: &str| {
        let ready = "echo '{\"event\":\"ready\"}'";
        let agent = fake(name, &format!("{ready}; {script}")).start(None).unwrap();
        if script.starts_with("exit") {
            let process = agent.pid().unwrap();
            let state = || fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
            let deadline = Instant::now() + Duration::from_secs(20);
            while !state().contains(") Z ") {
                assert!(Instant::now() < deadline, "{}", state());
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        agent.stop().unwrap().served().map_err(|error| error.to_string())
    };
    served("clean", "trap 'exit 0' TERM; while :; do sleep 0.01; done").unwrap();
    let died = served("died", "exit 0").unwrap_err();
    assert!(died.contains("ended during the load"), "{died}");
    let failed = served("failed", "trap 'exit 3' TERM; while :; do sleep 0.01; done").unwrap_err();
    assert!(failed.contains("exit status: 3"), "{failed}");

    let error = fake("bad", "echo 'no kernel'; exit 3").start(None).unwrap_err();
    assert!(format!("{error:#}").contains("no kernel"), "{error:#}");
}

#[test]
fn what_a_dead_run_left_is_removed() {
    if !root_or_skip("what_a_dead_run_left_is_removed") {
        return;
    }
    let base = ScratchDir::new(&std::env::temp_dir()).unwrap();
    // Its name says that it was made before this machine was started.
    const NAME: &str = "nitro-rig-1-1-1-1-0";
    let left = base.path().join(NAME);
    // What somebody else may have made: another form, another user, not a directory; and a mount of another kind.
    let dated = base.path().join("nitro-rig-2024-10-05");
    let foreign = base.path().join("nitro-rig-1-1-1-1-1");
    let file = base.path().join("nitro-rig-1-1-1-1-2");
    let mounted = base.path().join("nitro-rig-1-1-1-1-3");
    for dir in [&dated, &foreign, &mounted] {
        fs::create_dir(dir).unwrap();
    }
    std::os::unix::fs::chown(&foreign, Some(65_534), Some(65_534)).unwrap();
    fs::write(&file, "precious").unwrap();
    let bound = mounted.join("bound");
    fs::create_dir(&bound).unwrap();
    fs::write(dated.join("precious"), "precious").unwrap();
    let bind = nix::mount::MsFlags::MS_BIND;
    nix::mount::mount(Some(&dated), &bound, None::<&str>, bind, None::<&str>).unwrap();
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
    while fs::read_to_string(&backing).is_ok_and(|path| path.contains(NAME)) {
        assert!(Instant::now() < deadline, "the loop device is still attached");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(!left.exists());
    assert!(foreign.exists() && file.exists() && bound.join("precious").exists());
    nix::mount::umount(&bound).unwrap();
    assert!(dated.join("precious").exists());
    sweep::sweep(Owner::Gone);
    assert!(!mounted.exists() && foreign.exists());
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
