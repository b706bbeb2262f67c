//! Watched directories: file systems, devices, and the kernel's settings for them.

use super::{super::Outcome, *};

#[test]
fn a_partition_has_the_queue_of_its_disk() {
    let report = Tree::whole().report();
    assert_eq!(of(&report, "nvme0n1p1 read_ahead_kb").value, "128 KiB");
    assert!(of(&report, "nvme0n1p1 max_sectors_kb").value.starts_with("1280 KiB"));
    assert!(of(&report, "nvme0n1 scheduler").value.starts_with("none: ignores"));
    assert!(of(&report, "/models").value.starts_with("ext4 from /dev/nvme0n1p1"));
}

#[test]
fn readahead_that_keeps_the_chain_from_working_is_degraded() {
    for (read_ahead, request, remedy) in [
        (8192, 4096, "echo 1024 > /sys/block/nvme0n1/queue/read_ahead_kb"),
        (0, 1280, "echo 128 > /sys/block/nvme0n1/queue/read_ahead_kb"),
        (512, 256, "echo 512 > /sys/block/nvme0n1/queue/max_sectors_kb"),
    ] {
        let tree = Tree::whole();
        tree.file("sys/devices/nvme0n1/queue/read_ahead_kb", format!("{read_ahead}\n"));
        tree.file("sys/devices/nvme0n1/queue/max_sectors_kb", format!("{request}\n"));
        let report = tree.report();
        let finding = of(&report, "nvme0n1p1 read_ahead_kb");
        assert_eq!(finding.state, State::Degraded);
        assert!(finding.remedy.as_deref().unwrap().starts_with(remedy), "{finding:?}");
        assert_eq!(report.verdict.outcome, Outcome::Degraded);
        assert!(report.verdict.words.contains("nvme0n1p1 read_ahead_kb (devices)"));
    }
    let tree = Tree::whole();
    tree.file("sys/devices/nvme0n1/queue/max_sectors_kb", "64\n");
    tree.file("sys/devices/nvme0n1/queue/max_hw_sectors_kb", "64\n");
    let report = tree.report();
    let finding = of(&report, "nvme0n1p1 read_ahead_kb");
    assert!(
        finding.remedy.as_deref().unwrap().contains("echo 64 > "),
        "the hardware takes no more: {finding:?}"
    );
    tree.file("sys/devices/nvme0n1/queue/read_ahead_kb", "32\n");
    assert_eq!(state(&tree.report(), "nvme0n1p1 read_ahead_kb"), State::Info);
}

#[test]
fn the_scheduler_says_whether_priorities_count() {
    let tree = Tree::whole();
    tree.file("sys/devices/nvme0n1/queue/rotational", "1\n");
    for (scheduler, release, expected) in [
        ("none [mq-deadline]", "6.1.0", State::Ok),
        ("none [mq-deadline]", "5.10.0", State::Missing),
        ("mq-deadline [bfq] none", "5.10.0", State::Ok),
        ("[kyber] none", "6.18.0", State::Missing),
        ("none", "6.18.0", State::Missing),
    ] {
        tree.file("sys/devices/nvme0n1/queue/scheduler", format!("{scheduler}\n"));
        tree.file("proc/sys/kernel/osrelease", release);
        let report = tree.report();
        assert_eq!(
            state(&report, "nvme0n1 scheduler"),
            expected,
            "{scheduler} on {release}"
        );
        assert!(of(&report, "nvme0n1 scheduler").value.ends_with("; rotational"));
    }
}

#[test]
fn a_device_of_several_tells_of_its_disks() {
    let tree = Tree::whole();
    tree.disk("dm-0", (253, 0), "none", 128, 1280);
    tree.disk("sdb", (8, 16), "[bfq]", 128, 1280);
    tree.partition("sdb", "sdb1", (8, 17));
    for slave in ["nvme0n1", "sdb1"] {
        tree.file(&format!("sys/devices/dm-0/slaves/{slave}"), "");
    }
    tree.mounts("27 1 253:0 / / rw - xfs /dev/mapper/vg-models rw\n");
    let report = tree.report();
    assert_eq!(of(&report, "dm-0 read_ahead_kb").value, "128 KiB");
    assert!(of(&report, "sdb scheduler").value.starts_with("bfq"));
    assert!(of(&report, "nvme0n1 scheduler").value.starts_with("none"));
    assert!(report.findings.iter().all(|finding| finding.name != "dm-0 scheduler"));
    // A device that is below itself has an end.
    tree.remove("sys/devices/dm-0/slaves");
    tree.file("sys/devices/dm-0/slaves/dm-0", "");
    assert!(of(&tree.report(), "dm-0 scheduler").value.starts_with("none"));
}

#[test]
fn btrfs_has_a_readahead_of_its_own() {
    let tree = Tree::whole();
    tree.mounts("27 1 0:31 /root / rw - btrfs /dev/nvme0n1p1 rw,subvol=/root\n");
    let uuid = "sys/fs/btrfs/0c9e-11";
    tree.file(&format!("{uuid}/devices/nvme0n1p1"), "");
    tree.file(&format!("{uuid}/bdi/read_ahead_kb"), "4096\n");
    tree.file("sys/fs/btrfs/features/x", "");
    let report = tree.report();
    let finding = of(&report, "nvme0n1p1 read_ahead_kb");
    // More than the chain takes, which the agent does not use there.
    assert_eq!(finding.state, State::Info);
    assert!(finding.value.starts_with("4096 KiB"), "{finding:?}");
    assert_eq!(state(&report, "/models"), State::Ok);
}

#[test]
fn each_file_system_has_its_quirk() {
    for (mount, expected, words) in [
        ("ext4 /dev/nvme0n1p1 rw,dax=always", State::Degraded, "dax"),
        ("zfs tank/models rw", State::Degraded, "cache of its own"),
        ("tmpfs tmpfs rw,size=1g", State::Info, "in memory already"),
        ("nfs4 server:/models rw,vers=4.2", State::Info, "server"),
        (
            "fuse.sshfs host:/x rw,user_id=1000,group_id=1000",
            State::Info,
            "root is refused",
        ),
        (
            "fuse.sshfs host:/x rw,user_id=1000,allow_other",
            State::Info,
            "through a process",
        ),
        ("fuse.rclone s3:models rw,user_id=0", State::Degraded, "paid for"),
        ("squashfs /dev/loop7 ro", State::Info, "not tried"),
        (
            "overlay overlay rw,lowerdir=relative:/gone",
            State::Degraded,
            "none can be reached",
        ),
        (
            "overlay overlay rw,lowerdir=/low,upperdir=/up,workdir=/w",
            State::Ok,
            "in its layers",
        ),
        ("bcachefs /dev/sda1 rw", State::Info, "not tried"),
    ] {
        let tree = Tree::whole();
        tree.file("up/x", "");
        tree.mounts(&format!(
            "27 1 259:1 / / rw - ext4 /dev/nvme0n1p1 rw\n44 27 0:55 / /models rw - {mount}\n"
        ));
        let report = tree.report();
        let finding = of(&report, "/models");
        assert_eq!(finding.state, expected, "{mount}: {finding:?}");
        assert!(finding.value.contains(words), "{mount}: {finding:?}");
        if mount.starts_with("fuse.sshfs") && words == "root is refused" {
            let report = tree.report_on(&["/models"], tried([false, false, false, true]));
            assert_eq!(
                state(&report, "/models"),
                State::Degraded,
                "fanotify mode sees nothing there"
            );
        }
        if words == "in its layers" {
            assert_eq!(
                of(&report, "nvme0n1p1 read_ahead_kb").value,
                "128 KiB",
                "the layer's device"
            );
        }
    }
}

#[test]
fn file_systems_below_a_directory_are_told_without_those_that_have_no_files() {
    let tree = Tree::whole();
    tree.mounts(
        "27 1 259:1 / / rw - ext4 /dev/nvme0n1p1 rw\n\
         30 27 0:40 / /models/nas rw - nfs4 server:/x rw\n\
         31 27 0:41 / /models/proc rw - proc proc rw\n\
         32 27 0:42 / /models/auto rw - autofs auto rw\n\
         33 27 0:43 / /elsewhere rw - nfs4 server:/y rw\n",
    );
    let report = tree.report();
    assert!(of(&report, "/models/nas").value.starts_with("nfs4"));
    for name in ["/models/proc", "/models/auto", "/elsewhere"] {
        assert!(report.findings.iter().all(|finding| finding.name != name), "{name}");
    }
    assert!(of(&report, "nfs4 0:40").value.contains("no block device"));
}

#[test]
fn a_directory_that_is_not_there_is_told_and_where_there_is_none_how_to_give_one() {
    let tree = Tree::whole();
    let report = tree.report_on(&["/models", "/gone"], tried([true; 4]));
    assert_eq!(state(&report, "/gone"), State::Missing);
    assert_eq!(report.verdict.exit_code, 1);
    let report = tree.report_on(&[], tried([true; 4]));
    assert!(of(&report, "directories").value.contains("--watch DIR"));
    assert_eq!(report.verdict.exit_code, 0);
}

#[test]
fn directories_come_from_the_command_line_then_the_agent_then_a_look() {
    use super::super::{Facts, Running, roots::Chosen};
    let tree = Tree::whole();
    let running = Running {
        directories: vec!["/models".into()],
        ..Running::default()
    };
    let facts = |watch: &[&str], agent| {
        let question = Question {
            watch: watch.iter().map(PathBuf::from).collect(),
            agent: Some(agent),
            auto: watch == ["/etc"],
        };
        let facts = Facts::gather(&tree.machine(), question, tried([true; 4]), || vec![b"/".to_vec()]);
        (facts.chosen, facts.roots[0].path.clone())
    };
    let none = || Err("no agent answers".to_owned());
    assert_eq!(facts(&["/dev"], Ok(running.clone())), (Chosen::Named, "/dev".into()));
    assert_eq!(facts(&[], Ok(running)), (Chosen::Running, "/models".into()));
    assert_eq!(facts(&[], none()), (Chosen::Found, "/".into()));
    assert_eq!(
        facts(&["/etc"], none()),
        (Chosen::Found, "/etc".into()),
        "--watch auto besides"
    );
}

#[test]
fn a_server_is_not_asked_and_its_mount_is_told() {
    let tree = Tree::whole();
    // Nothing is below: whoever asks hears that nothing is there.
    fs::create_dir(tree.path("nas")).unwrap();
    tree.link("link", Path::new("/nas/models"));
    for kind in ["nfs4 server:/x", "fuse.sshfs host:/x"] {
        tree.mounts(&format!(
            "27 1 259:1 / / rw - ext4 /dev/nvme0n1p1 rw\n44 27 0:55 / /nas rw - {kind} rw,allow_other\n"
        ));
        let report = tree.report_on(&["/nas/models", "/nas", "/link"], tried([true; 4]));
        for name in ["/nas/models", "/nas"] {
            let finding = of(&report, name);
            assert_eq!(finding.state, State::Info, "{finding:?}");
            assert!(finding.value.contains("not asked whether"), "{finding:?}");
        }
        // By the link nothing is known but where it leads into it.
        let told = report.findings.iter().filter(|finding| finding.name == "/nas").count();
        assert_eq!(told, 2);
    }
}

#[test]
fn a_file_is_no_directory() {
    let tree = Tree::whole();
    tree.file("models/model.gguf", "x");
    let report = tree.report_on(&["/models/model.gguf"], tried([true; 4]));
    let finding = of(&report, "/models/model.gguf");
    assert_eq!(finding.state, State::Missing);
    assert!(finding.remedy.as_deref().unwrap().contains("directory"), "{finding:?}");
}

#[test]
fn what_a_container_sees_is_looked_for_there_and_its_layers_here() {
    let tree = Tree::whole();
    tree.disk("sdb", (8, 16), "[bfq]", 128, 1280);
    tree.file("layers/up/x", "");
    tree.file("proc/812/root/models/x", "");
    tree.file(
        "proc/812/mountinfo",
        "90 1 0:77 / / rw - overlay overlay rw,lowerdir=/gone,upperdir=/layers/up,workdir=/w\n",
    );
    tree.mounts("27 1 259:1 / / rw - ext4 /dev/nvme0n1p1 rw\n28 27 8:16 / /layers rw - xfs /dev/sdb rw\n");
    let path = "/proc/812/root/models";
    let report = tree.report_on(
        &[path, "/proc/812/root/gone", "/proc/813/root/models"],
        tried([true; 4]),
    );
    assert_eq!(state(&report, "/models"), State::Ok, "its layer is reached");
    assert_eq!(
        of(&report, "sdb read_ahead_kb").value,
        "128 KiB",
        "the device of the layer"
    );
    assert_eq!(state(&report, "/proc/812/root/gone"), State::Missing);
    assert!(of(&report, "/proc/813/root/models").value.contains("process"));
}

#[test]
fn layers_are_read_as_the_kernel_writes_them() {
    let tree = Tree::whole();
    tree.file("a:b/x", "");
    for options in ["lowerdir=/gone:/a\\134:b", "lowerdir+=/gone,lowerdir+=/a:b"] {
        tree.mounts(&format!(
            "27 1 259:1 / / rw - ext4 /dev/nvme0n1p1 rw\n44 27 0:55 / /models rw - overlay overlay ro,{options}\n"
        ));
        assert_eq!(state(&tree.report(), "/models"), State::Ok, "{options}");
    }
}

#[test]
fn directories_of_an_agent_are_told_though_they_are_gone_or_their_names_lost() {
    let tree = Tree::whole();
    let running = super::super::Running {
        version: env!("CARGO_PKG_VERSION").into(),
        mode: "page-cache".into(),
        directories: vec!["/models".into(), "/gone".into(), "/mod\u{fffd}els".into()],
        ..Default::default()
    };
    let question = Question {
        agent: Some(Ok(running)),
        ..Question::default()
    };
    let report = Facts::gather(&tree.machine(), question, tried([true; 4]), Vec::new).report();
    assert_sound(&report);
    assert_eq!(state(&report, "/models"), State::Ok);
    assert_eq!(state(&report, "/gone"), State::Missing);
    let lost = of(&report, "/mod\u{fffd}els");
    assert_eq!(lost.state, State::Info);
    assert!(lost.value.contains("not UTF-8"), "{lost:?}");
}

#[test]
fn a_remedy_for_readahead_is_the_last_one() {
    for read_ahead in [0, 4, 32, 64, 128, 256, 1024, 8192] {
        for request in [4, 32, 64, 127, 128, 512, 1280] {
            for hardware in [request, 4096] {
                let tree = Tree::whole();
                let queue = "sys/devices/nvme0n1/queue";
                tree.file(&format!("{queue}/read_ahead_kb"), format!("{read_ahead}\n"));
                tree.file(&format!("{queue}/max_sectors_kb"), format!("{request}\n"));
                tree.file(&format!("{queue}/max_hw_sectors_kb"), format!("{hardware}\n"));
                let report = tree.report();
                let Some(remedy) = &of(&report, "nvme0n1p1 read_ahead_kb").remedy else {
                    continue;
                };
                // What it says to do is done.
                let command = remedy.split(',').next().unwrap().strip_prefix("echo ").unwrap();
                let (value, file) = command.split_once(" > ").unwrap();
                tree.file(file.trim_start_matches('/'), value);
                let report = tree.report();
                let after = of(&report, "nvme0n1p1 read_ahead_kb");
                assert_eq!(
                    after.state,
                    State::Ok,
                    "{read_ahead} of {request} of {hardware}: {remedy}: {after:?}"
                );
            }
        }
    }
}
