//! `nitro-agent bench`: it ends with figures, and whatever becomes of it, nothing is left.

use std::{
    fs,
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rig::scratch::ScratchDir;
use serde_json::Value;

use super::bed::{MIB, SOON, base, binary, scenario, until, within};

/// Nobody's.
const NOBODY: u32 = 65_534;

/// `nitro-agent bench` in a directory; whatever agent may run on this machine is left alone.
fn bench(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.arg("bench").arg("--dir").arg(dir).args(arguments);
    command.arg("--socket").arg(dir.join("no-socket"));
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn said(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

/// Runs it to its end; its process, and what it did.
fn run(command: &mut Command) -> (u32, Output) {
    let child = command.spawn().unwrap();
    (child.id(), child.wait_with_output().unwrap())
}

/// What process `pid` has on this machine: mounts, loop devices, groups, directories.
pub fn left(pid: u32, dir: &Path) -> Vec<String> {
    let name = format!("nitro-rig-{pid}-");
    let mut left = Vec::new();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    left.extend(mounts.lines().filter(|line| line.contains(&name)).map(str::to_owned));
    for entry in fs::read_dir("/sys/block").unwrap().flatten() {
        let backing = fs::read_to_string(entry.path().join("loop/backing_file")).unwrap_or_default();
        if backing.contains(&name) {
            left.push(backing);
        }
    }
    for parent in ["/sys/fs/cgroup/blkio", "/sys/fs/cgroup", "/tmp", "/var/tmp", "/dev/shm"]
        .map(Path::new)
        .into_iter()
        .chain([dir])
    {
        let entries = fs::read_dir(parent).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        left.extend(names.filter(|other| other.starts_with(&name)));
    }
    left
}

/// Its children, by /proc.
pub fn children(pid: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// Whether an agent is among its children.
pub fn has_agent(pid: u32) -> bool {
    children(pid).iter().any(|pid| {
        let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&words).contains("--watch")
    })
}

/// A bench that would take long, in the middle of its loads: an agent runs, and something reads.
fn under_way(dir: &Path) -> Child {
    let arguments = [
        "--device", "gp3", "--size", "64MiB", "--reader", "mmap", "--runs", "100",
    ];
    let child = bench(dir, &arguments).spawn().unwrap();
    until("an agent was started", || has_agent(child.id()));
    assert!(left(child.id(), dir).len() >= 4, "{:?}", left(child.id(), dir));
    child
}

#[test]
fn a_bench_ends_with_figures_and_a_page_and_leaves_nothing() {
    scenario(64, |_| {
        let dir = ScratchDir::new(&base()).unwrap();
        let report = dir.path().join("report");
        let mut command = bench(
            dir.path(),
            &["--device", "gp3,as-is", "--size", "32MiB", "--reader", "mmap"],
        );
        command
            .args(["--runs", "3", "--against", "cat"])
            .arg("--report")
            .arg(&report);
        let (pid, output) = run(&mut command);
        let (out, err) = said(&output);
        assert!(output.status.success(), "{err}");
        for wanted in [
            "gp3",
            "as-is",
            "mmap",
            "none",
            "agent",
            "cat",
            "(device's limit)",
            "×",
            "± ",
            "range",
            "too few for a verdict: it takes 6",
        ] {
            assert!(out.contains(wanted), "{wanted} is not in\n{out}");
        }
        assert_eq!(left(pid, dir.path()), Vec::<String>::new());
        let names: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .flatten()
            .map(|entry| entry.file_name())
            .collect();
        assert_eq!(names, ["report"]);

        let figures: Value = serde_json::from_slice(&fs::read(report.join("nitro-agent-bench.json")).unwrap()).unwrap();
        let cells = figures["cells"].as_array().unwrap();
        assert_eq!(cells.len(), 2);
        for cell in cells {
            assert_eq!(cell["helped"].as_array().unwrap().len(), 3, "{cell:#}");
            let cached = cell["cached"].as_f64().unwrap();
            for helped in cell["helped"].as_array().unwrap() {
                assert_eq!(helped["seconds"].as_array().unwrap().len(), 3);
                assert!(helped["summary"]["median"].as_f64().unwrap() > cached, "cold: {cell:#}");
            }
        }
        // 0.27 s by its rate; loads this short have the limit's first burst for nothing.
        let limit = cells[0]["limit"].as_f64().unwrap();
        assert!((0.1..0.6).contains(&limit), "{limit} s");
        let page = fs::read_to_string(report.join("nitro-agent-bench.html")).unwrap();
        assert!(page.contains("<svg") && page.contains("</html>") && !page.contains("<script"));
    });
}

#[test]
fn stores_are_benched_and_take_no_room() {
    scenario(64, |_| {
        let dir = ScratchDir::new(&base()).unwrap();
        let arguments = [
            "--device", "nas,hdd", "--size", "16MiB", "--fill", "sparse", "--runs", "1", "--json",
        ];
        let (pid, output) = run(bench(dir.path(), &arguments).args(["--reader", "safetensors,ollama"]));
        let (out, err) = said(&output);
        assert!(output.status.success(), "{err}");
        let figures: Value = serde_json::from_str(&out).unwrap();
        let cells = figures["cells"].as_array().unwrap();
        assert_eq!(cells.len(), 4);
        for cell in cells {
            // 8 ms for each jump and 150 MB/s, or 280 MB/s: no reader is faster.
            let least = 0.95 * 16.0 * MIB as f64 / if cell["device"] == "hdd" { 150e6 } else { 280e6 };
            for helped in cell["helped"].as_array().unwrap() {
                assert!(helped["seconds"][0].as_f64().unwrap() > least, "{cell:#}");
            }
            assert!(cell["limit"].as_f64().unwrap() > least, "{cell:#}");
            assert_eq!(cell["verdict"]["outcome"], "too-few");
        }
        assert_eq!(left(pid, dir.path()), Vec::<String>::new());
    });
}

#[test]
fn ctrl_c_in_the_middle_leaves_nothing() {
    scenario(64, |_| {
        let dir = ScratchDir::new(&base()).unwrap();
        let child = under_way(dir.path());
        let (pid, started) = (child.id(), children(child.id()));
        kill(Pid::from_raw(pid.cast_signed()), Signal::SIGINT).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(130), "{:?}", said(&output));
        within(SOON, "all that it started has ended", || {
            started.iter().all(|pid| children_gone(*pid))
        });
        assert_eq!(left(pid, dir.path()), Vec::<String>::new(), "{:?}", said(&output));
    });
}

#[test]
fn a_closed_pipe_or_terminal_keeps_nothing_from_being_removed() {
    scenario(64, |_| {
        for signal in [Signal::SIGTERM, Signal::SIGHUP] {
            let dir = ScratchDir::new(&base()).unwrap();
            let mut child = under_way(dir.path());
            let started = children(child.id());
            // Nobody reads what it says any more.
            drop((child.stdout.take(), child.stderr.take()));
            kill(Pid::from_raw(child.id().cast_signed()), signal).unwrap();
            let mut status = None;
            within(SOON, "it has ended", || {
                status = child.try_wait().unwrap();
                status.is_some()
            });
            assert_eq!(status.unwrap().code(), Some(130));
            within(SOON, "all that it started has ended", || {
                started.iter().all(|pid| children_gone(*pid))
            });
            assert_eq!(left(child.id(), dir.path()), Vec::<String>::new());
        }
    });
}

pub fn children_gone(pid: u32) -> bool {
    let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // Nobody may wait for it any more but its new parent.
    state.is_empty() || state.contains(") Z ")
}

#[test]
fn what_a_killed_bench_left_is_removed_by_the_next() {
    scenario(64, |_| {
        let dir = ScratchDir::new(&base()).unwrap();
        let mut child = under_way(dir.path());
        let (pid, started) = (child.id(), children(child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
        within(SOON, "what it started has ended with it", || {
            started.iter().all(|pid| children_gone(*pid))
        });
        assert!(!left(pid, dir.path()).is_empty());

        // In another directory: what was made there is found all the same.
        let other = ScratchDir::new(&base()).unwrap();
        let arguments = ["--size", "16MiB", "--reader", "mmap", "--runs", "1"];
        let (next, output) = run(&mut bench(other.path(), &arguments));
        assert!(output.status.success(), "{:?}", said(&output));
        assert_eq!(left(pid, dir.path()), Vec::<String>::new());
        assert_eq!(left(next, other.path()), Vec::<String>::new());
    });
}

#[test]
fn what_cannot_be_is_refused_before_anything_is_made() {
    scenario(64, |bed| {
        let dir = bed.dir("small");
        let refused = |command: &mut Command, wanted: &str| {
            let (pid, output) = run(command);
            let (out, err) = said(&output);
            assert_eq!((output.status.code(), out.as_str()), (Some(1), ""), "{err}");
            assert!(err.contains(wanted), "{wanted} is not in {err}");
            assert_eq!(left(pid, &dir), Vec::<String>::new());
            assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
        };
        for device in ["as-is", "gp3", "nas"] {
            refused(&mut bench(&dir, &["--size", "256MiB", "--device", device]), "are free");
        }
        refused(bench(&dir, &["--size", "16MiB"]).uid(NOBODY).gid(NOBODY), "sudo");
        for device in ["as-is", "gp3", "nas"] {
            let arguments = ["--size", "16MiB", "--device", device];
            refused(&mut bench(Path::new("/dev/shm"), &arguments), "in memory");
        }
        refused(&mut bench(&dir, &["--size", "2TiB"]), "1 TiB at most");
        let roomy = ScratchDir::new(&base()).unwrap();
        let arguments = ["--size", "16MiB", "--report", "/proc/self/x"];
        refused(&mut bench(roomy.path(), &arguments), "--report");
        refused(&mut bench(&dir, &["--size", "16MiB", "--fill", "sparse"]), "holes");
    });
}

#[test]
fn where_nothing_limits_reads_what_has_no_limit_is_measured_all_the_same() {
    scenario(64, |_| {
        let without_groups = |device: &str| {
            let mut command = Command::new("unshare");
            let script = "mount -t tmpfs none /sys/fs/cgroup && exec \"$0\" \"$@\"";
            command.args(["--mount", "sh", "-c", script]).arg(binary());
            command.args(["bench", "--size", "16MiB", "--reader", "mmap", "--runs", "1"]);
            command.args(["--socket", "/nonexistent/socket", "--device", device]);
            let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            (child.id(), child.wait_with_output().unwrap())
        };
        // On a test disk, of which the directory is not said.
        let (pid, output) = without_groups("as-is");
        assert!(output.status.success(), "{:?}", said(&output));
        assert_eq!(left(pid, &base()), Vec::<String>::new());
        let (pid, output) = without_groups("gp3");
        let (out, err) = said(&output);
        assert_eq!((output.status.code(), out.as_str()), (Some(1), ""), "{err}");
        assert!(err.contains("gp3 cannot be made") && err.contains("as-is"), "{err}");
        assert_eq!(left(pid, &base()), Vec::<String>::new());
    });
}

#[test]
fn an_agent_that_runs_is_paused_meanwhile_and_goes_on_afterwards() {
    scenario(128, |bed| {
        let agent = bed.agent();
        let socket = agent.socket().to_owned();
        let dir = ScratchDir::new(&base()).unwrap();
        let mut command = Command::new(binary());
        command.args(["bench", "--size", "16MiB", "--reader", "mmap", "--runs", "1", "--dir"]);
        command.arg(dir.path()).arg("--socket").arg(&socket);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        until("it is paused", || agent.ask("status").unwrap()["paused"] == true);
        let left = agent.ask("status").unwrap()["paused_seconds"].as_f64().unwrap();
        assert!((1.0..=60.0).contains(&left), "{left}");
        let output = child.wait_with_output().unwrap();
        let (_, err) = said(&output);
        assert!(output.status.success() && err.contains("paused meanwhile"), "{err}");
        assert_eq!(agent.ask("status").unwrap()["paused"], false);

        // One that was paused by somebody stays so.
        agent.tell(&["pause"]).unwrap();
        assert!(command.output().unwrap().status.success());
        let status = agent.ask("status").unwrap();
        assert_eq!(
            (&status["paused"], &status["paused_seconds"]),
            (&true.into(), &Value::Null)
        );

        // After a kill the pause ends by itself.
        agent.tell(&["resume"]).unwrap();
        let mut child = command.spawn().unwrap();
        until("it is paused", || agent.ask("status").unwrap()["paused"] == true);
        child.kill().unwrap();
        child.wait().unwrap();
        let left = agent.ask("status").unwrap()["paused_seconds"].as_f64().unwrap();
        assert!(left <= 60.0, "{left}");
    });
}
