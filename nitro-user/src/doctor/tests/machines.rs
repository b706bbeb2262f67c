//! Machines of several kinds: what is said of each, and what that comes to.

use super::{
    super::{
        Outcome, Running,
        finding::{Subject, Weight},
        of_agent,
    },
    *,
};

#[test]
fn a_machine_with_all_that_the_agent_uses_is_ok() {
    let report = Tree::whole().report();
    let bad: Vec<_> = report
        .findings
        .iter()
        .filter(|finding| finding.is_bad() && finding.weight != Weight::Aside)
        .collect();
    assert!(bad.is_empty(), "{bad:#?}");
    assert_eq!((report.verdict.outcome, report.verdict.exit_code), (Outcome::Ok, 0));
    assert_eq!(report.mode, Some(EventMode::PageCache));
    assert!(
        report.verdict.words.contains("page-cache mode"),
        "{}",
        report.verdict.words
    );
}

#[test]
fn the_object_for_programs_names_what_people_read() {
    let value = serde_json::to_value(Tree::whole().report()).unwrap();
    assert_eq!(value["verdict"]["outcome"], "ok");
    assert_eq!(value["verdict"]["exit_code"], 0);
    assert_eq!(value["mode"], "page-cache");
    let finding = &value["findings"][0];
    for field in ["subject", "name", "state", "weight", "value", "lost", "remedy"] {
        assert!(finding.get(field).is_some(), "{field}: {finding}");
    }
    assert_eq!(finding["subject"], "kernel");
}

#[test]
fn without_rights_it_cannot_work_and_says_sudo() {
    let tree = Tree::whole();
    let mut tried = tried([false; 4]);
    tried.rights.user = 1000;
    tried.rights.ebpf = vec!["CAP_BPF".into(), "CAP_PERFMON".into()];
    tried.rights.fanotify = vec!["CAP_SYS_ADMIN".into()];
    tried.fuse = Err(std::io::ErrorKind::PermissionDenied.into());
    let report = tree.report_on(&["/models"], tried);
    assert_eq!(
        (report.verdict.outcome, report.verdict.exit_code),
        (Outcome::CannotWork, 2)
    );
    assert!(report.verdict.words.contains("CAP_BPF, CAP_PERFMON missing") && report.verdict.words.contains("sudo"));
    assert_eq!(of(&report, "capabilities").weight, Weight::Essential);
    for mode in MODES {
        let remedy = of(&report, &mode.to_string()).remedy.as_deref().unwrap();
        assert!(remedy.contains("sudo"), "{mode}: {remedy}");
    }
}

#[test]
fn where_no_mode_works_root_is_not_sent_to_sudo() {
    let report = Tree::whole().report_on(&["/models"], tried([false; 4]));
    assert_eq!(report.verdict.exit_code, 2);
    assert!(!report.verdict.words.contains("sudo"), "{}", report.verdict.words);
    assert_eq!(state(&report, "auto"), State::Missing);
}

#[test]
fn an_old_kernel_without_types_has_fanotify_mode() {
    let tree = Tree::whole();
    tree.file("proc/sys/kernel/osrelease", "5.4.0-42-generic\n");
    tree.remove("sys/kernel/btf");
    tree.remove("sys/kernel/tracing");
    let mut tried = tried([false, false, false, true]);
    tried.cachestat = false;
    tried.rights.memlock = (Some(64 << 10), Some(64 << 10));
    tried.fuse = Ok(false);
    let report = tree.report_on(&["/models"], tried);
    assert_eq!(report.verdict.outcome, Outcome::Degraded);
    for name in [
        "release",
        "BTF",
        "tracefs",
        "cachestat",
        "locked memory",
        "auto",
        "passthrough",
    ] {
        assert!(of(&report, name).is_bad(), "{name}");
    }
    assert!(
        of(&report, "BTF")
            .remedy
            .as_deref()
            .unwrap()
            .contains("CONFIG_DEBUG_INFO_BTF")
    );
    assert!(of(&report, "page-cache").remedy.as_deref().unwrap().contains("6.12"));
    assert!(of(&report, "auto").lost.as_deref().unwrap().contains("inferred"));
}

#[test]
fn tracefs_matters_where_syscalls_mode_would() {
    let tree = Tree::whole();
    tree.remove("sys/kernel/tracing");
    let report = tree.report();
    assert_eq!(of(&report, "tracefs").weight, Weight::Aside);
    assert_eq!(report.verdict.outcome, Outcome::Ok);
    let report = tree.report_on(&["/models"], tried([false, false, false, true]));
    assert_eq!(of(&report, "tracefs").weight, Weight::Useful);
    assert!(
        of(&report, "syscalls")
            .remedy
            .as_deref()
            .unwrap()
            .contains("mount -t tracefs")
    );
}

#[test]
fn a_mode_that_is_worse_than_the_one_that_works_is_not_missed() {
    let report = Tree::whole().report_on(&["/models"], tried([true, false, true, true]));
    let fentry = of(&report, "fentry");
    assert_eq!((fentry.state, fentry.weight), (State::Missing, Weight::Aside));
    assert!(fentry.lost.as_deref().unwrap().starts_with("nothing here"));
    assert_eq!(report.verdict.outcome, Outcome::Ok);
    let report = Tree::whole().report_on(&["/models"], tried([false, false, true, true]));
    assert!(of(&report, "auto").lost.as_deref().unwrap().contains("40 ns"));
    assert_eq!(report.verdict.outcome, Outcome::Degraded);
}

#[test]
fn a_program_that_was_refused_is_told() {
    let mut tried = tried([true; 4]);
    for trial in &mut tried.events {
        trial.outcome.as_mut().unwrap().programs = vec![crate::source::attach::ProgramReport {
            program: "process_exec",
            hook: "sched_process_exec",
            refused: Some("no such tracepoint".into()),
        }];
    }
    let report = Tree::whole().report_on(&["/models"], tried);
    assert_eq!(of(&report, "page-cache without process_exec").weight, Weight::Useful);
    assert_eq!(of(&report, "fentry without process_exec").weight, Weight::Aside);
    assert_eq!(report.verdict.outcome, Outcome::Degraded);
}

#[test]
fn pressure_is_switched_on_or_built_in() {
    let tree = Tree::whole();
    tree.remove("proc/pressure");
    let remedy = |report: &Report| of(report, "pressure (PSI)").remedy.clone().unwrap();
    let report = tree.report();
    assert!(remedy(&report).starts_with("boot with psi=1"), "{}", remedy(&report));
    assert_eq!(report.verdict.outcome, Outcome::Ok, "this version does without");
    tree.file("boot/config-6.18.1-generic", "# CONFIG_PSI is not set\n");
    assert!(remedy(&tree.report()).starts_with("use a kernel built"));
    tree.remove("boot");
    assert!(remedy(&tree.report()).contains(", or "));
}

#[test]
fn whoever_takes_pages_unasked_is_told() {
    let tree = Tree::whole();
    let scheme = "sys/kernel/mm/damon/admin/kdamonds/0";
    tree.file(&format!("{scheme}/state"), "on\n");
    tree.file(&format!("{scheme}/contexts/0/schemes/0/action"), "stat\n");
    assert_eq!(state(&tree.report(), "proactive reclaim"), State::Ok);
    tree.file(&format!("{scheme}/contexts/0/schemes/1/action"), "pageout\n");
    let report = tree.report();
    let finding = of(&report, "proactive reclaim");
    assert_eq!(finding.state, State::Degraded);
    let remedy = finding.remedy.as_deref().unwrap();
    assert!(
        remedy.starts_with("echo off > /sys/kernel/mm/damon/admin/kdamonds/0/state"),
        "{remedy}"
    );
    tree.file(&format!("{scheme}/state"), "off\n");
    assert_eq!(state(&tree.report(), "proactive reclaim"), State::Ok);
    tree.file("sys/module/damon_reclaim/parameters/enabled", "Y\n");
    assert!(of(&tree.report(), "proactive reclaim").value.contains("DAMON_RECLAIM"));
    tree.remove(&format!("{scheme}/state"));
    assert_eq!(
        state(&tree.report(), "proactive reclaim"),
        State::Info,
        "who may not look knows nothing"
    );
}

#[test]
fn swap_in_memory_wants_another_swappiness() {
    let tree = Tree::whole();
    assert_eq!(
        state(&tree.report(), "vm.swappiness"),
        State::Ok,
        "without swap it says nothing"
    );
    tree.file(
        "proc/swaps",
        "Filename\tType\tSize\tUsed\tPriority\n/dev/zram0  partition\t4194300\t0\t100\n",
    );
    for (file, text) in [
        ("disksize", "4294967296\n"),
        ("mm_stat", "0 0 0 1073741824 0 0 0 0 0\n"),
        ("comp_algorithm", "lzo [zstd]\n"),
    ] {
        tree.file(&format!("sys/block/zram0/{file}"), text);
    }
    let report = tree.report();
    let swappiness = of(&report, "vm.swappiness");
    assert_eq!(swappiness.state, State::Info);
    assert!(swappiness.remedy.as_deref().unwrap().contains("vm.swappiness=150"));
    assert_eq!(report.verdict.outcome, Outcome::Ok, "advice costs nothing");
    assert_eq!(
        of(&report, "zram0").value,
        "4 GiB before compression with zstd, 1 GiB of memory at most"
    );
    assert!(of(&report, "/dev/zram0").value.contains("priority 100"));
    assert!(of(&report, "largest area").value.starts_with("16.0 TiB"));
}

#[test]
fn zswap_is_told_where_it_is_on() {
    let tree = Tree::whole();
    for (file, text) in [
        ("enabled", "Y\n"),
        ("max_pool_percent", "20\n"),
        ("compressor", "lz4\n"),
    ] {
        tree.file(&format!("sys/module/zswap/parameters/{file}"), text);
    }
    assert_eq!(
        of(&tree.report(), "zswap").value,
        "on: up to 20 % of memory, compressed with lz4"
    );
}

#[test]
fn wsl_tells_its_cap_and_its_drives() {
    let tree = Tree::whole();
    assert!(
        tree.report()
            .findings
            .iter()
            .all(|finding| finding.name != "drives of Windows")
    );
    tree.file(
        "proc/version",
        "Linux version 5.15.167.4-microsoft-standard-WSL2 (root@x)\n",
    );
    tree.mounts(
        "27 1 259:1 / / rw - ext4 /dev/sdc rw\n\
         60 27 0:64 / /mnt/c rw,noatime - 9p C:\\134 rw,dirsync,aname=drvfs;path=C:\\;uid=1000,mmap,access=client,msize=65536\n",
    );
    tree.file("mnt/c/models/x", "");
    let report = tree.report_on(&["/mnt/c/models"], tried([false, true, true, true]));
    assert!(of(&report, "memory").value.starts_with("16 GiB"));
    let told: Vec<_> = report
        .findings
        .iter()
        .filter(|finding| finding.name == "memory")
        .collect();
    assert!(told[1].remedy.as_deref().unwrap().contains(".wslconfig"));
    assert_eq!(of(&report, "/mnt/c/models").state, State::Degraded);
    assert!(of(&report, "/mnt/c/models").value.contains("drive of Windows"));
    assert_eq!(of(&report, "drives of Windows").value, "/mnt/c");

    tree.file(
        "mnt/c/Users/Anna/.wslconfig",
        "[wsl2]\r\nmemory=6GB\r\nautoMemoryReclaim=dropCache\r\n",
    );
    let report = tree.report();
    let told: Vec<_> = report
        .findings
        .iter()
        .filter(|finding| finding.name == "memory")
        .collect();
    assert!(
        told[1].value.contains("memory=6GB in /mnt/c/Users/Anna/.wslconfig"),
        "{told:?}"
    );
    assert!(of(&report, "autoMemoryReclaim").remedy.is_some());

    tree.file("proc/version", "Linux version 4.4.0-19041-Microsoft (x)\n");
    assert_eq!(tree.report().verdict.exit_code, 2);
}

#[test]
fn settings_that_cost_cached_models_are_told_with_the_command() {
    let tree = Tree::whole();
    tree.file("proc/sys/vm/vfs_cache_pressure", "1000\n");
    tree.file("proc/sys/vm/zone_reclaim_mode", "1\n");
    tree.file("proc/sys/kernel/bpf_stats_enabled", "1\n");
    tree.file("proc/sys/fs/inotify/max_user_watches", "100\n");
    tree.file("proc/sys/net/core/bpf_jit_enable", "0\n");
    tree.file("sys/kernel/security/lockdown", "none integrity [confidentiality]\n");
    let report = tree.report();
    for name in [
        "vm.vfs_cache_pressure",
        "vm.zone_reclaim_mode",
        "kernel.bpf_stats_enabled",
    ] {
        assert_eq!(state(&report, name), State::Info);
        assert!(
            of(&report, name).remedy.as_deref().unwrap().starts_with("sysctl "),
            "{name}"
        );
    }
    assert_eq!(state(&report, "inotify watches"), State::Degraded);
    assert_eq!(state(&report, "eBPF compiler"), State::Degraded);
    assert_eq!(state(&report, "lockdown"), State::Missing);
}

#[test]
fn an_agent_that_could_do_better_is_told_to_start_again() {
    let running = |version: &str, mode: &str| {
        Ok(Running {
            version: version.into(),
            pid: 7,
            mode: mode.into(),
            directories: Vec::new(),
        })
    };
    let state = |agent: Result<Running, String>| of_agent(Some(&agent), Some(EventMode::PageCache))[0].state;
    let own = env!("CARGO_PKG_VERSION");
    assert_eq!(state(running(own, "page-cache")), State::Ok);
    assert_eq!(state(running(own, "syscalls")), State::Degraded);
    assert_eq!(state(running("0.0.1", "page-cache")), State::Degraded);
    assert_eq!(state(Err("no agent answers".into())), State::Info);
    assert!(of_agent(None, None).is_empty());
}

#[test]
fn root_in_a_container_hears_what_the_container_lacks() {
    let mut tried = tried([false; 4]);
    tried.rights.ebpf = vec!["CAP_BPF".into(), "CAP_SYS_PTRACE".into()];
    tried.rights.fanotify = vec!["CAP_SYS_ADMIN".into()];
    let report = Tree::whole().report_on(&["/models"], tried);
    let remedy = of(&report, "capabilities").remedy.as_deref().unwrap();
    assert!(
        remedy.contains("BPF, SYS_PTRACE") && remedy.contains("--cap-add"),
        "{remedy}"
    );
    for finding in &report.findings {
        let remedy = finding.remedy.as_deref().unwrap_or_default();
        let is_of_rights = !matches!(finding.subject, Subject::Fuse);
        assert!(!is_of_rights || !remedy.contains("sudo"), "{finding:?}");
    }
    assert!(!report.verdict.words.contains("sudo"), "{}", report.verdict.words);
}

#[test]
fn a_kernel_that_should_have_page_cache_mode_and_refuses_it_is_degraded() {
    let tree = Tree::whole();
    let works = [false, true, true, true];
    let report = tree.report_on(&["/models"], tried(works));
    assert_eq!(state(&report, "auto"), State::Degraded);
    assert_eq!(report.verdict.outcome, Outcome::Degraded);
    tree.file("proc/sys/kernel/osrelease", "6.11.5-generic\n");
    assert_eq!(state(&tree.report_on(&["/models"], tried(works)), "auto"), State::Ok);
}

#[test]
fn remedies_of_modes_follow_what_went_wrong() {
    let tree = Tree::whole();
    let remedy = |why: &str, mode: &str| {
        let mut tried = tried([false; 4]);
        for trial in &mut tried.events {
            trial.outcome = Err(why.to_owned());
        }
        let report = tree.report_on(&["/models"], tried);
        of(&report, mode).remedy.clone().unwrap()
    };
    assert!(remedy("EMFILE: Too many open files", "fanotify").contains("max_user_groups"));
    assert!(remedy("Operation not permitted (os error 1)", "fanotify").contains("sandbox"));
    assert!(remedy("ENOSYS: Function not implemented", "fanotify").contains("CONFIG_FANOTIFY"));
    assert!(remedy("Cannot allocate memory", "page-cache").contains("memory"));
}

#[test]
fn every_part_of_damon_that_takes_pages_is_stopped() {
    let tree = Tree::whole();
    tree.file("sys/module/damon_reclaim/parameters/enabled", "Y\n");
    for daemon in 0..2 {
        let place = format!("sys/kernel/mm/damon/admin/kdamonds/{daemon}");
        tree.file(&format!("{place}/state"), "on\n");
        for scheme in 0..2 {
            tree.file(&format!("{place}/contexts/0/schemes/{scheme}/action"), "pageout\n");
        }
    }
    let report = tree.report();
    let remedy = of(&report, "proactive reclaim").remedy.as_deref().unwrap();
    assert_eq!(remedy.matches("echo").count(), 3, "{remedy}");
}

#[test]
fn loop_devices_of_a_container_are_those_that_it_is_given() {
    let tree = Tree::whole();
    tree.remove("dev/loop-control");
    let remedy = |tree: &Tree| of(&tree.report(), "loop devices").remedy.clone().unwrap();
    assert!(
        remedy(&tree).contains("give it the devices"),
        "the driver is there: {}",
        remedy(&tree)
    );
    tree.remove("sys/module/loop");
    assert!(remedy(&tree).starts_with("modprobe loop"));
}
