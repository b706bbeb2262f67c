//! `nitro-agent prove`: the right direction on a disk that is bound by requests, and no harm to anybody's pages.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rig::{
    limit::Limit,
    sys,
    tree::{gguf, ollama},
};
use serde_json::Value;

use super::{
    bed::{Bed, MIB, SOON, binary, cool, resident_all, scenario, until, within},
    benching::{children, children_gone, has_agent, left},
};

/// Shares the readers' allowance, with all that it starts.
fn prove(bed: &Bed, what: &Path, options: &[&str], command: &[&str]) -> Command {
    let mut prove = Command::new(binary());
    prove.arg("prove").arg(what).args(options);
    prove.arg("--socket").arg(bed.disk.path().join("no-socket"));
    prove.arg("--").args(command);
    prove
        .env_remove("SUDO_UID")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    bed.group.join(&mut prove).unwrap();
    prove
}

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

/// A disk on which requests are few, and a model on it.
fn few_requests(bed: &Bed, mib: u64) -> PathBuf {
    let tree = gguf::single(&bed.dir("models"), "model", 1, mib * MIB).unwrap();
    let limit = Limit {
        bytes_per_second: 1 << 30,
        operations_per_second: 500,
    };
    bed.disk.limit(&bed.group, limit).unwrap();
    cool(&tree.files[0]);
    tree.files[0].clone()
}

#[test]
fn a_command_is_proved_faster_where_requests_are_few() {
    scenario(512, |bed| {
        let weights = few_requests(bed, 160);
        let path = weights.to_string_lossy().into_owned();
        let output = prove(bed, &weights, &["--runs", "6", "--json"], &["cat", &path])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", said(&output));
        let proof: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(proof["verdict"]["outcome"], "faster", "{proof:#}");
        assert_eq!(proof["verdict"]["bound"], "requests", "{proof:#}");
        // The lower end is the smallest of six pairs: that it excludes 1 is what the outcome says.
        assert!(
            proof["verdict"]["faster"]["middle"].as_f64().unwrap() > 1.3,
            "{proof:#}"
        );
        assert_eq!(
            (
                &proof["without"].as_array().unwrap().len(),
                &proof["with"].as_array().unwrap().len()
            ),
            (&6, &6)
        );
        assert!(proof["warmed"].as_u64().unwrap() > 80 * MIB, "{proof:#}");
        assert!(proof["read"].as_u64().unwrap() > 150 * MIB, "{proof:#}");
        // What is in memory for the run from there was brought in by the one before it.
        assert!(proof["cached_bytes"].as_u64().unwrap() > 150 * MIB, "{proof:#}");
        let (cached, without) = (&proof["cached"], &proof["without_summary"]["median"]);
        assert!(cached.as_f64().unwrap() < without.as_f64().unwrap() / 2.0, "{proof:#}");
        assert!(proof["program"].as_str().unwrap().ends_with("bin/cat"), "{proof:#}");

        // In words, of a directory and of a command that reads nothing of it.
        let output = prove(bed, weights.parent().unwrap(), &["--runs", "3"], &["true"])
            .output()
            .unwrap();
        let text = said(&output);
        assert!(output.status.success(), "{text}");
        for wanted in [
            "without",
            "with the agent",
            "device limit",
            "left 0 B of these files in memory",
            "it saw no load",
            "range ",
            "too few for a verdict",
            "/true; the agent watches ",
        ] {
            assert!(text.contains(wanted), "{wanted} is not in\n{text}");
        }
        assert!(!text.lines().last().unwrap().contains("bound by"), "{text}");
    });
}

#[test]
fn files_that_somebody_has_mapped_stay_in_memory() {
    scenario(128, |bed| {
        let weights = few_requests(bed, 16);
        let map = sys::map_file(&File::open(&weights).unwrap(), true).unwrap();
        let here = resident_all(&weights);
        assert!(here >= 15 * MIB);
        let output = prove(bed, &weights, &[], &["true"]).output().unwrap();
        let text = said(&output);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains(&format!("[{}] has", std::process::id())), "{text}");
        assert_eq!(resident_all(&weights), here);
        drop(map);
        assert!(
            prove(bed, &weights, &["--runs", "1"], &["true"])
                .status()
                .unwrap()
                .success()
        );
    });
}

#[test]
fn only_the_files_own_pages_are_evicted() {
    scenario(128, |bed| {
        let weights = few_requests(bed, 16);
        let other = gguf::single(&bed.dir("models"), "other", 2, 16 * MIB)
            .unwrap()
            .files
            .remove(0);
        File::open(&other).unwrap().sync_all().unwrap();
        let here = resident_all(&other);
        assert!(here >= 15 * MIB);
        let (times, bytes) = (
            fs::metadata(&weights).unwrap().modified().unwrap(),
            fs::read(&weights).unwrap(),
        );
        assert!(
            prove(bed, &weights, &["--runs", "1"], &["true"])
                .status()
                .unwrap()
                .success()
        );
        assert_eq!(resident_all(&other), here);
        assert_eq!(fs::metadata(&weights).unwrap().modified().unwrap(), times);
        assert_eq!(fs::read(&weights).unwrap(), bytes);
    });
}

#[test]
fn a_command_that_fails_proves_nothing() {
    scenario(128, |bed| {
        let weights = few_requests(bed, 16);
        let output = prove(bed, &weights, &[], &["sh", "-c", "exit 7"]).output().unwrap();
        let text = said(&output);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(
            text.contains("the run before the first") && text.contains("exit status: 7"),
            "{text}"
        );
        let output = prove(
            bed,
            Path::new("no-such-model"),
            &["--watch", "/var/tmp/none"],
            &["true"],
        )
        .output()
        .unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    });
}

#[test]
fn a_model_is_meant_by_its_name_and_what_the_command_says_is_shown() {
    scenario(128, |bed| {
        let dir = bed.dir("ollama");
        ollama::model(&dir, "llama", "8b", 1, 16 * MIB).unwrap();
        nix::unistd::sync();
        let watch = dir.to_string_lossy().into_owned();
        let options = ["--runs", "1", "--watch", &watch, "--show-output"];
        let output = prove(bed, Path::new("llama:8b"), &options, &["echo", "hello there"])
            .output()
            .unwrap();
        let text = said(&output);
        assert!(
            output.status.success() && text.matches("hello there\n").count() >= 4,
            "{text}"
        );
        // With figures on standard output it goes to standard error.
        let output = prove(
            bed,
            Path::new("llama:8b"),
            &[&options[..], &["--json"]].concat(),
            &["echo", "hello there"],
        )
        .output()
        .unwrap();
        serde_json::from_slice::<Value>(&output.stdout).unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.matches("hello there\n").count() >= 3, "{error}");
        let output = prove(bed, Path::new("lama:8b"), &options, &["true"]).output().unwrap();
        assert!(said(&output).contains("known here: llama:8b"), "{}", said(&output));
    });
}

#[test]
fn ctrl_c_ends_the_command_and_all_that_it_started() {
    scenario(128, |bed| {
        let weights = few_requests(bed, 16);
        let child = prove(bed, &weights, &[], &["sh", "-c", "sleep 987654 & sleep 987654; true"])
            .spawn()
            .unwrap();
        let sleeping = || {
            let entries = fs::read_dir("/proc").unwrap().flatten();
            entries
                .filter(|entry| fs::read(entry.path().join("cmdline")).is_ok_and(|words| words == b"sleep\x00987654\0"))
                .count()
        };
        until("it is under way", || sleeping() == 2);
        kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGINT).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(130), "{}", said(&output));
        within(SOON, "all of it has ended", || sleeping() == 0);
    });
}

#[test]
fn a_signal_leaves_nothing_of_the_proof_whoever_listens() {
    scenario(128, |bed| {
        let weights = few_requests(bed, 16);
        let others = bed.disk.path();
        for (signal, listening) in [
            (Signal::SIGINT, true),
            (Signal::SIGTERM, true),
            (Signal::SIGTERM, false),
        ] {
            let mut child = prove(bed, &weights, &["--runs", "100"], &["sleep", "1"])
                .spawn()
                .unwrap();
            until("an agent was started", || has_agent(child.id()));
            let (pid, started) = (child.id(), children(child.id()));
            assert!(!left(pid, others).is_empty());
            if !listening {
                drop((child.stdout.take(), child.stderr.take()));
            }
            kill(Pid::from_raw(pid.cast_signed()), signal).unwrap();
            let mut status = None;
            within(SOON, "it has ended", || {
                status = child.try_wait().unwrap();
                status.is_some()
            });
            assert_eq!(status.unwrap().code(), Some(130));
            within(SOON, "all that it started has ended", || {
                started.iter().all(|pid| children_gone(*pid))
            });
            assert_eq!(left(pid, others), Vec::<String>::new());
        }
    });
}

#[test]
fn what_the_command_leaves_running_is_ended_and_told() {
    scenario(128, |bed| {
        let weights = few_requests(bed, 16);
        let script = "sleep 987653 & exit 0";
        let output = prove(bed, &weights, &["--runs", "1"], &["sh", "-c", script])
            .output()
            .unwrap();
        let text = said(&output);
        assert!(output.status.success(), "{text}");
        assert!(
            text.contains("left processes behind") && text.contains("sleep["),
            "{text}"
        );
        let entries = fs::read_dir("/proc").unwrap().flatten();
        let left = entries
            .filter(|entry| fs::read(entry.path().join("cmdline")).is_ok_and(|words| words == b"sleep\x00987653\0"));
        assert_eq!(left.count(), 0);
    });
}

#[test]
fn the_command_is_run_as_whoever_called_sudo() {
    scenario(128, |bed| {
        let weights = few_requests(bed, 16);
        let nobody = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(65_534))
            .unwrap()
            .unwrap();
        let script = "echo \"is $(id -u) $(id -g) $(id -G) $(id -un) $HOME $USER $LOGNAME.\"";
        let mut prove = prove(bed, &weights, &["--runs", "1", "--show-output"], &["sh", "-c", script]);
        let output = prove
            .env("SUDO_UID", "65534")
            .env("SUDO_GID", "65534")
            .output()
            .unwrap();
        let text = said(&output);
        assert!(output.status.success(), "{text}");
        let (name, group) = (&nobody.name, nobody.gid);
        let wanted = format!(
            "is 65534 {group} {group} {name} {} {name} {name}.\n",
            nobody.dir.display()
        );
        assert_eq!(text.matches(&wanted).count(), 4, "{text}");
        assert!(text.contains(&format!("run as {name}, who called sudo")), "{text}");
    });
}
