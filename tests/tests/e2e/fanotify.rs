//! The fanotify mode: no eBPF program, opens and closes told by the kernel, readers looked at while they have a watched file open.

use std::{
    fs::{File, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rig::{
    agent::{Agent, AgentProcess},
    tree::{ModelTree, gguf, series},
};
use serde_json::Value;

use super::{
    bed::{
        Bed, MIB, assert_adds_up, binary, brought, cool, cool_all, happenings, number, receipt, scenario, settled,
        until, warmed,
    },
    counters::at_rest,
    reader::StepReader,
};

const SIZE: u64 = 256 * MIB;

fn agent(bed: &Bed, mode: &str) -> AgentProcess {
    bed.start(Agent::new(&binary(), bed.disk.path()).arg("--events").arg(mode))
}

fn cold_model(bed: &Bed) -> ModelTree {
    let tree = gguf::single(&bed.dir("models"), "model", 1, SIZE).unwrap();
    cool_all(&tree.files);
    tree
}

/// A cold model of 256 MiB at 200 MB/s, read as `steps` say, and its receipt.
fn load(bed: &Bed, steps: &[String]) -> Value {
    let tree = cold_model(bed);
    let weights = &tree.files[0];
    let truth = bed.truth(weights);
    bed.limit(200);
    let agent = agent(bed, "fanotify");
    let mut reader = StepReader::of(weights, Some(&bed.group));
    for step in steps {
        let done = reader.step(step);
        if done.bytes == truth.bytes {
            assert_eq!(done, truth);
        }
    }
    let pid = reader.end();
    let receipt = receipt(&agent, pid);
    assert_adds_up(&receipt);
    assert_eq!(receipt["inferred"], true, "{receipt:#}");
    let status = agent.ask("status").unwrap();
    assert_eq!(status["mode"], "fanotify", "{status:#}");
    receipt
}

/// Nearly all of it was brought in by the agent, and most of that seen to be used: what was read in the last moments before the process ended, nobody saw.
fn assert_helped(receipt: &Value) {
    assert!(warmed(receipt) >= SIZE / 10 * 8, "{receipt:#}");
    let used = number(receipt, "warmed_in_time") + number(receipt, "warmed_late");
    assert!(used >= SIZE / 10 * 7, "{receipt:#}");
}

#[test]
fn a_map_reader_of_a_cold_model_is_helped() {
    scenario(384, |bed| {
        let receipt = load(bed, &["map".into(), format!("touch 0 {}", 2 * SIZE)]);
        assert_eq!(receipt["reader"], "sequential-map", "{receipt:#}");
        assert_helped(&receipt);
    });
}

#[test]
fn a_reader_of_a_cold_model_is_helped() {
    scenario(384, |bed| {
        let receipt = load(bed, &[format!("read {} {}", 2 * SIZE, 128 << 10)]);
        assert_eq!(receipt["reader"], "buffered", "{receipt:#}");
        assert_helped(&receipt);
    });
}

#[test]
fn a_reader_at_places_of_its_own_is_helped() {
    scenario(384, |bed| {
        let steps: Vec<String> = (0..SIZE / MIB)
            .map(|piece| format!("pread {} {MIB}", piece * MIB))
            .collect();
        let receipt = load(bed, &steps);
        assert_eq!(receipt["reader"], "buffered", "{receipt:#}");
        assert!(warmed(&receipt) >= SIZE / 2, "{receipt:#}");
    });
}

#[test]
fn who_has_the_file_open_already_and_whose_command_line_names_it_is_seen() {
    scenario(384, |bed| {
        let tree = cold_model(bed);
        bed.limit(200);
        let mut early = StepReader::of(&tree.files[0], Some(&bed.group));
        let agent = agent(bed, "fanotify");
        early.read_to_end(128 << 10);
        assert!(warmed(&receipt(&agent, early.end())) >= SIZE / 2);

        cool(&tree.files[0]);
        let mut announced = StepReader::announced(&tree.files[0], Some(&bed.group));
        announced.open(&tree.files[0]);
        until("its load is told", || {
            let told = happenings(&agent, announced.pid());
            told.iter().any(|(_, note)| note == "named on its command line")
        });
        until("it is warmed before it is read", || {
            brought(&tree.files[0], SIZE) >= 16 * MIB
        });
    });
}

#[test]
fn a_file_that_is_not_watched_raises_nothing() {
    scenario(384, |bed| {
        let tree = series::named(&bed.dir("other"), &["small.bin"], 1, MIB / 2).unwrap();
        let agent = agent(bed, "fanotify");
        let before = at_rest(&agent);
        let mut reader = bed.reader(&tree.files[0]);
        for _ in 0..100 {
            reader.step("seek 0");
            reader.read_to_end(4096);
            reader.open(&tree.files[0]);
        }
        reader.end();
        let after = at_rest(&agent);
        assert_eq!(after["counters"], before["counters"], "{after:#}");
    });
}

#[test]
fn a_header_is_no_load() {
    scenario(384, |bed| {
        let tree = cold_model(bed);
        let agent = agent(bed, "fanotify");
        let mut reader = bed.reader(&tree.files[0]);
        reader.read(4096, 4096);
        let here = settled(Duration::from_millis(500), || brought(&tree.files[0], SIZE));
        assert!(here <= MIB, "{} KiB", here >> 10);
        let pid = reader.end();
        assert_eq!(happenings(&agent, pid), []);
    });
}

#[test]
fn nothing_is_held_once_a_load_has_ended_and_stopping_takes_no_time() {
    scenario(384, |bed| {
        let tree = cold_model(bed);
        let agent = agent(bed, "fanotify");
        let mut reader = bed.reader(&tree.files[0]);
        reader.step("map");
        reader.step(&format!("touch 0 {}", SIZE / 2));
        receipt(&agent, reader.end());
        assert_eq!(open_below(bed.disk.path(), agent.pid().unwrap()), 0);
        // One has it open while the agent ends.
        let mut other = bed.reader(&tree.files[0]);
        other.read(SIZE / 4, MIB);
        let began = Instant::now();
        agent.stop().unwrap();
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        assert_eq!(other.read_to_end(MIB).bytes, tree.bytes - SIZE / 4);
    });
}

#[test]
fn auto_ends_here_where_no_program_can_be_loaded_and_says_why() {
    scenario(384, |bed| {
        let tree = cold_model(bed);
        // In a mount namespace of its own the agent finds no description of the kernel's types.
        let script = bed.dir("bin").join("agent");
        let hide = "mount --bind /dev/null /sys/kernel/btf/vmlinux";
        let exec = format!("exec {} \"$@\"", binary().display());
        let text = format!("#!/bin/sh\nexec unshare -m sh -c '{hide} && {exec}' agent \"$@\"\n");
        std::fs::write(&script, text).unwrap();
        std::fs::set_permissions(&script, Permissions::from_mode(0o755)).unwrap();
        let agent = bed.start(Agent::new(&script, &bed.dir("models")));
        let status = agent.ask("status").unwrap();
        assert_eq!(status["mode"], "fanotify", "{status:#}");
        assert!(status["mode_reason"].as_str().unwrap().contains("BTF"), "{status:#}");
        let mut reader = bed.reader(&tree.files[0]);
        reader.read_to_end(128 << 10);
        assert!(warmed(&receipt(&agent, reader.end())) >= SIZE / 2);
    });
}

#[test]
fn what_the_kernel_had_no_room_for_is_counted_and_made_up_for() {
    scenario(384, |bed| {
        let tree = cold_model(bed);
        // Twenty processes that open a thousand files: more events than the kernel queues, each for another process and file.
        let many = bed.dir("many");
        for index in 0..1000 {
            File::create(many.join(format!("{index}.bin")))
                .unwrap()
                .set_len(MIB)
                .unwrap();
        }
        let agent = agent(bed, "fanotify");
        let process = Pid::from_raw(agent.pid().unwrap() as i32);
        kill(process, Signal::SIGSTOP).unwrap();
        let open_all = || {
            let script = "for file in *; do : < $file; done";
            let mut shell = Command::new("sh")
                .args(["-c", script])
                .current_dir(&many)
                .spawn()
                .unwrap();
            assert!(shell.wait().unwrap().success());
        };
        (0..20).for_each(|_| open_all());
        // Nobody hears of this one.
        let mut reader = bed.reader(&tree.files[0]);
        kill(process, Signal::SIGCONT).unwrap();
        until("the loss is counted", || {
            number(&at_rest(&agent)["counters"], "dropped") > 0
        });
        bed.limit(200);
        reader.read_to_end(128 << 10);
        assert!(warmed(&receipt(&agent, reader.end())) >= SIZE / 2);
    });
}

/// Descriptors of a process that lead below `dir`.
fn open_below(dir: &Path, process: u32) -> usize {
    let entries = std::fs::read_dir(format!("/proc/{process}/fd")).unwrap().flatten();
    let links = entries.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    links.filter(|link| link.starts_with(dir)).count()
}

#[test]
fn an_agent_that_waits_for_a_silent_reader_sleeps_more_and_more() {
    scenario(384, |bed| {
        let tree = cold_model(bed);
        let agent = agent(bed, "fanotify");
        let mut reader = bed.reader(&tree.files[0]);
        reader.read(SIZE / 8, MIB);
        let switches = || agent.voluntary_switches().unwrap();
        // After a while it is looked at once a second.
        std::thread::sleep(Duration::from_secs(12));
        let before = switches();
        std::thread::sleep(Duration::from_secs(5));
        let woken = switches() - before;
        assert!(woken <= 40, "{woken} wake-ups in 5 s");
        reader.end();
    });
}
