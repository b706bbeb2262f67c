//! Limits of control groups and of watches: whose they are, and on what.

use super::{
    super::{Outcome, Running},
    *,
};

#[test]
fn limits_of_groups_are_told_in_both_versions() {
    let tree = Tree::whole();
    let group = "sys/fs/cgroup/user.slice";
    tree.file(&format!("{group}/memory.max"), "2147483648\n");
    tree.file(&format!("{group}/memory.current"), "1073741824\n");
    tree.file(
        &format!("{group}/io.max"),
        "259:0 rbps=1048576 wbps=max riops=max wiops=max\n",
    );
    let report = tree.report();
    assert_eq!(of(&report, "version").value, "2");
    assert_eq!(of(&report, "memory limit").state, State::Degraded);
    assert!(
        of(&report, "memory limit")
            .value
            .starts_with("1 GiB left to /user.slice")
    );
    assert!(of(&report, "read limits").value.contains("rbps=1048576"));

    tree.remove("sys/fs/cgroup");
    tree.file("proc/self/cgroup", "7:blkio:/a\n4:memory:/a/b\n1:name=systemd:/x\n");
    tree.file(
        "sys/fs/cgroup/memory/a/b/memory.limit_in_bytes",
        "9223372036854771712\n",
    );
    tree.file("sys/fs/cgroup/memory/a/b/memory.usage_in_bytes", "1\n");
    tree.file(
        "sys/fs/cgroup/blkio/a/blkio.throttle.read_bps_device",
        "259:0 1000000\n",
    );
    let report = tree.report();
    assert_eq!(of(&report, "version").value, "1");
    assert_eq!(state(&report, "memory limit"), State::Ok);
    assert!(of(&report, "read limits").value.contains("259:0 1000000"));

    tree.file("proc/self/cgroup", "0::/../../elsewhere\n");
    tree.remove("sys/fs/cgroup");
    assert_eq!(state(&tree.report(), "version"), State::Missing);
}

/// An agent that runs as process 812, in its own group.
fn with_agent(tree: &Tree) -> Report {
    let running = Running {
        version: env!("CARGO_PKG_VERSION").into(),
        pid: 812,
        mode: "page-cache".into(),
        directories: vec!["/models".into()],
    };
    let question = Question {
        agent: Some(Ok(running)),
        ..Question::default()
    };
    let report = Facts::gather(&tree.machine(), question, tried([true; 4]), Vec::new).report();
    assert_sound(&report);
    report
}

#[test]
fn the_limits_are_those_of_the_agent_that_runs() {
    let tree = Tree::whole();
    tree.file("sys/fs/cgroup/user.slice/memory.max", "1048576\n");
    tree.file("sys/fs/cgroup/user.slice/memory.current", "0\n");
    tree.file("sys/fs/cgroup/system.slice/agent/memory.max", "max\n");
    tree.file("sys/fs/cgroup/system.slice/memory.swap.max", "1073741824\n");
    tree.file("sys/fs/cgroup/system.slice/agent/memory.swap.max", "max\n");
    tree.file("proc/812/cgroup", "0::/system.slice/agent\n");
    let limit = |report: &Report| (state(report, "memory limit"), of(report, "memory limit").value.clone());
    let (state, value) = limit(&with_agent(&tree));
    assert_eq!(state, State::Degraded, "another program has that number");
    assert!(value.contains("/user.slice, the group of this process"), "{value}");
    tree.file("proc/812/comm", "nitro-agent\n");
    let report = with_agent(&tree);
    assert_eq!(
        limit(&report),
        (
            State::Ok,
            "none for /system.slice/agent, the group of the agent that runs".to_owned()
        )
    );
    assert!(
        of(&report, "swap limit")
            .value
            .starts_with("1 GiB for /system.slice/agent")
    );
}

#[test]
fn watches_are_short_when_the_agent_has_nearly_all() {
    let tree = Tree::whole();
    tree.file("proc/812/comm", "nitro-agent\n");
    tree.file("proc/812/cgroup", "0::/\n");
    let watches = "inotify wd:1 ino:2 sdev:800001 mask:fce ignored_mask:0 fhandle-bytes:8\n".repeat(100);
    tree.file("proc/812/fdinfo/7", format!("pos:\t0\nflags:\t02004000\n{watches}"));
    tree.file("proc/812/fdinfo/8", "pos:\t0\n");
    for (limit, expected) in [(100, State::Degraded), (125, State::Degraded), (126, State::Ok)] {
        tree.file("proc/sys/fs/inotify/max_user_watches", format!("{limit}\n"));
        let report = with_agent(&tree);
        let finding = of(&report, "inotify watches");
        assert_eq!(finding.state, expected, "{finding:?}");
        assert!(finding.value.contains("has 100"), "{finding:?}");
    }
    assert_eq!(
        state(&tree.report(), "inotify watches"),
        State::Degraded,
        "few for anybody"
    );
}

#[test]
fn idle_pages_of_files_are_room() {
    let tree = Tree::whole();
    let group = "sys/fs/cgroup/user.slice";
    for (file, text) in [
        ("memory.max", "12884901888\n"),
        ("memory.current", "12884901888\n"),
        ("memory.stat", "anon 1\ninactive_file 10737418240\n"),
    ] {
        tree.file(&format!("{group}/{file}"), text);
    }
    let report = tree.report();
    assert_eq!(
        of(&report, "memory limit").state,
        State::Ok,
        "it is full of what it read"
    );
    assert!(of(&report, "memory limit").value.starts_with("10 GiB left"));
}

#[test]
fn limits_on_other_disks_cost_nothing() {
    let tree = Tree::whole();
    tree.disk("sdb", (8, 16), "none", 128, 1280);
    let limits = "sys/fs/cgroup/user.slice/io.max";
    tree.file(limits, "8:16 rbps=1048576 wbps=max riops=max wiops=max\n");
    let report = tree.report();
    assert_eq!(state(&report, "read limits"), State::Ok);
    assert_eq!(state(&report, "other devices' read limits"), State::Info);
    assert_eq!(report.verdict.outcome, Outcome::Ok);
    // The limit is on the disk, the directory on a partition of it.
    tree.file(limits, "259:0 rbps=max wbps=max riops=100 wiops=max\n");
    assert_eq!(state(&tree.report(), "read limits"), State::Degraded);
}

#[test]
fn a_group_outside_of_what_is_seen_is_no_missing_controller() {
    let tree = Tree::whole();
    tree.file("proc/self/cgroup", "0::/../../elsewhere\n");
    let report = tree.report();
    assert_eq!(state(&report, "version"), State::Ok);
    assert!(of(&report, "limits").value.contains("outside"));
    assert!(report.findings.iter().all(|finding| finding.name != "memory limit"));
}
