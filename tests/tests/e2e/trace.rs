//! Recorded accesses: what is recorded is what happened, whatever ends the recording.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, Output, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rig::{
    scratch::ScratchDir,
    sweep,
    tracefs::Tracefs,
    tree::{gguf, ollama},
};
use serde_json::Value;

use super::{
    bed::{Bed, MIB, base, binary, brought_in, cool, number, receipt, scenario, until, warmed},
    counters::at_rest,
    reader::StepReader,
};

const SIZE: u64 = 96 * MIB;

/// A recording that goes on.
pub struct Recording {
    child: Child,
    said: BufReader<ChildStderr>,
    words: String,
    // Of the control socket of an agent that is not there.
    _place: ScratchDir,
}

impl Recording {
    /// Starts one and waits until it records.
    pub fn start(socket: Option<&Path>, out: &Path, arguments: &[&str]) -> Self {
        let place = ScratchDir::new(&base()).unwrap();
        let nobody = place.path().join("nobody");
        let mut child = Command::new(binary())
            .args(["trace", "record", "--out"])
            .arg(out)
            .arg("--socket")
            .arg(socket.unwrap_or(&nobody))
            .args(arguments)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        sweep::adopt(child.id());
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let mut words = String::new();
        while !words.contains("recording to") {
            assert!(said.read_line(&mut words).unwrap() > 0, "{words}");
        }
        Self {
            child,
            said,
            words,
            _place: place,
        }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    /// What it said, once it has ended by itself.
    fn ended(mut self) -> String {
        while self.said.read_line(&mut self.words).unwrap() > 0 {}
        assert!(self.child.wait().unwrap().success(), "{}", self.words);
        self.words
    }

    /// Ends it; what it said.
    pub fn stop(self) -> String {
        self.signal(Signal::SIGINT);
        self.ended()
    }
}

fn agent_says(arguments: &[&str]) -> Output {
    Command::new(binary()).args(arguments).output().unwrap()
}

fn show(trace: &Path) -> Value {
    let shown = agent_says(&["trace", "show", trace.to_str().unwrap(), "--json"]);
    assert!(shown.status.success(), "{}", String::from_utf8_lossy(&shown.stderr));
    serde_json::from_slice(&shown.stdout).unwrap()
}

/// The row of a process.
fn row(summary: &Value, process: u32) -> &Value {
    let rows = summary["rows"].as_array().unwrap();
    let mut mine = rows.iter().filter(|row| row["process"] == process);
    let row = mine
        .next()
        .unwrap_or_else(|| panic!("no row of {process}: {summary:#}"));
    assert!(mine.next().is_none(), "{summary:#}");
    row
}

fn a_model(bed: &Bed) -> (PathBuf, PathBuf, ScratchDir) {
    let tree = ollama::model(&bed.dir("models"), "llama", "8b", 1, SIZE).unwrap();
    let weights = tree.files.last().unwrap().clone();
    cool(&weights);
    let scratch = ScratchDir::new(&base()).unwrap();
    let out = scratch.path().join("load.trace");
    (weights, out, scratch)
}

/// Two loads of the same model, which had left the page cache in between.
fn replays_elsewhere(trace: &Path) {
    let trace = trace.to_str().unwrap();
    let said = agent_says(&[
        "replay",
        trace,
        "--device",
        "recorded,50MB/400",
        "--policy",
        "none,cat,agent",
        "--json",
    ]);
    let replayed: Value = serde_json::from_slice(&said.stdout).unwrap();
    assert_eq!(
        (number(&replayed, "processes"), &replayed["was_helped"]),
        (2, &Value::Bool(true)),
        "{replayed:#}"
    );
    let rows = replayed["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 6, "{replayed:#}");
    for row in rows {
        assert!(row.get("broken").is_none(), "{row:#}");
        assert!(
            number(row, "read") >= 2 * SIZE && number(row, "read") < 2 * SIZE + SIZE / 4,
            "{row:#}"
        );
    }
    for row in rows.iter().filter(|row| row["policy"] == "agent") {
        assert!(row["coverage"].as_f64().unwrap() > 0.5, "{row:#}");
    }
    // 128 MiB of two loads at 50 MB/s: the device decides, whoever helps.
    assert!(
        rows[3..]
            .iter()
            .all(|row| row["seconds"].as_f64().unwrap() > 2.0 * SIZE as f64 / 50e6),
        "{replayed:#}"
    );
    let table = agent_says(&["replay", trace, "--cold"]);
    assert!(String::from_utf8_lossy(&table.stdout).contains("all fits"));
    for wrong in [["--device", "floppy"], ["--memory", "1MiB"], ["--policy", "magic"]] {
        let said = agent_says(&["replay", trace, wrong[0], wrong[1]]);
        assert_eq!(said.status.code(), Some(2), "{wrong:?}");
    }
}

#[test]
fn a_recorded_load_is_shown_as_it_was_and_replays_exactly() {
    scenario(384, |bed| {
        let (weights, out, _scratch) = a_model(bed);
        bed.limit(200);
        let agent = bed.agent();
        let recording = Recording::start(Some(agent.socket()), &out, &[]);
        let mut receipts = Vec::new();
        for _ in 0..2 {
            cool(&weights);
            let mut reader = bed.reader(&weights);
            reader.read_to_end(MIB);
            receipts.push(receipt(&agent, reader.end()));
        }
        at_rest(&agent);
        let said = recording.stop();
        assert!(!said.contains("missing"), "{said}");
        let summary = show(&out);
        assert!(summary.get("torn").is_none(), "{summary:#}");
        for receipt in &receipts {
            let pid = receipt["pids"][0].as_u64().unwrap();
            let row = row(&summary, u32::try_from(pid).unwrap());
            let size = weights.metadata().unwrap().len();
            assert_eq!(number(row, "bytes"), size.next_multiple_of(4096), "{row:#}");
            assert_eq!(row["order"]["sequential"], 1.0, "{row:#}");
            assert_eq!(number(row, "missed"), number(receipt, "missed"), "{row:#}");
            assert_eq!(row["estimated"], false);
        }
        assert_eq!(summary["receipts"].as_array().unwrap().len(), 2);
        let brought: u64 = receipts.iter().map(warmed).sum();
        assert_eq!(number(&summary["warmed"][0], "bytes"), brought, "{summary:#}");
        assert!(receipts.iter().all(|receipt| brought_in(receipt) > SIZE / 2));
        let replayed = agent_says(&["replay", out.to_str().unwrap(), "--exact", "--json"]);
        let replayed: Value = serde_json::from_slice(&replayed.stdout).unwrap();
        assert_eq!(replayed["same"], true, "{replayed:#}");
        assert_eq!(number(&replayed, "receipts"), 2, "{replayed:#}");
        replays_elsewhere(&out);
        assert!(agent.stop().unwrap().status.success());
    });
}

#[test]
fn without_an_agent_it_is_recorded_and_nothing_warmed() {
    scenario(384, |bed| {
        let (weights, out, _scratch) = a_model(bed);
        let models = bed.dir("models");
        let recording = Recording::start(None, &out, &["--watch", models.to_str().unwrap()]);
        let mut reader = StepReader::of(&weights, None);
        let pid = reader.pid();
        reader.step("map");
        reader.step(&format!("touch 0 {SIZE}"));
        reader.end();
        let said = recording.stop();
        let summary = show(&out);
        let row = row(&summary, pid);
        assert!(number(row, "faults") > 0 && number(row, "calls") == 0, "{row:#} {said}");
        assert!(number(row, "bytes") >= SIZE - MIB, "{row:#}");
        assert!(number(row, "brought") >= SIZE - MIB, "{row:#}");
        assert_eq!(summary["warmed"].as_array().unwrap().len(), 0, "{summary:#}");
        assert_eq!(summary["header"]["dry_run"], true);
    });
}

#[test]
fn every_system_call_is_there_where_that_is_asked_for() {
    scenario(384, |bed| {
        let _tracefs = Tracefs::mounted().unwrap();
        let (weights, out, _scratch) = a_model(bed);
        let models = bed.dir("models");
        let recording = Recording::start(None, &out, &["--watch", models.to_str().unwrap(), "--syscalls"]);
        let mut reader = StepReader::of(&weights, None);
        let pid = reader.pid();
        for number in 0..50u64 {
            reader.step(&format!("pread {} 4096", (number * 7 % 50) * MIB));
        }
        reader.end();
        let said = recording.stop();
        assert!(said.contains("every system call on this machine takes"), "{said}");
        let summary = show(&out);
        let row = row(&summary, pid);
        assert_eq!(
            (number(row, "calls"), &row["exact_calls"]),
            (50, &Value::Bool(true)),
            "{row:#} {said}"
        );
        assert_eq!(number(row, "bytes"), 50 * 4096, "{row:#}");
        assert_eq!(row["order"]["sequential"], 0.0, "{row:#}");
    });
}

#[test]
fn a_recording_that_is_killed_is_read_up_to_there() {
    scenario(384, |bed| {
        let (weights, out, _scratch) = a_model(bed);
        let agent = bed.agent();
        let recording = Recording::start(Some(agent.socket()), &out, &[]);
        let mut reader = bed.reader(&weights);
        let pid = reader.pid();
        reader.read(32 * MIB, MIB);
        until("the first half is written", || {
            let rows = show(&out)["rows"].as_array().cloned().unwrap_or_default();
            rows.iter().any(|row| row["process"] == pid)
        });
        reader.read(32 * MIB, MIB);
        recording.signal(Signal::SIGKILL);
        let mut recording = recording;
        recording.child.wait().unwrap();
        reader.end();
        let summary = show(&out);
        assert!(number(row(&summary, pid), "bytes") > 0, "{summary:#}");
        // Cut anywhere, it is a trace, or none, and never more than an error.
        let whole = fs::read(&out).unwrap();
        let cut = out.with_extension("cut");
        for length in (0..whole.len()).step_by((whole.len() / 40).max(1)) {
            fs::write(&cut, &whole[..length]).unwrap();
            let shown = agent_says(&["trace", "show", cut.to_str().unwrap()]);
            let words = String::from_utf8_lossy(&shown.stderr).into_owned();
            assert!(
                shown.status.code() == Some(0) || words.starts_with("nitro-agent: "),
                "{length}: {words}"
            );
        }
        // The agent lets go of a recording that nobody takes any more.
        let again = Recording::start(Some(agent.socket()), &out.with_extension("again"), &[]);
        again.stop();
        assert!(agent.stop().unwrap().status.success());
    });
}

#[test]
fn only_what_is_asked_for_is_recorded() {
    scenario(384, |bed| {
        let (weights, out, _scratch) = a_model(bed);
        let other = bed.disk.path().join("other.gguf");
        gguf::write(&other, 2, 32 * MIB, None).unwrap();
        cool(&other);
        let agent = bed.agent();
        let mut one = bed.reader(&weights);
        let mut two = bed.reader(&other);
        let pid = one.pid().to_string();
        let by_pid = Recording::start(Some(agent.socket()), &out, &["--pid", &pid]);
        one.read(8 * MIB, MIB);
        two.read(8 * MIB, MIB);
        let (one, two) = (one.end(), two.end());
        // The only process that was asked for has ended.
        let said = by_pid.ended();
        assert!(said.contains("last process of --pid"), "{said}");
        let summary = show(&out);
        row(&summary, one);
        assert!(
            summary["rows"]
                .as_array()
                .unwrap()
                .iter()
                .all(|row| row["process"] != two)
        );
        assert_eq!(summary["header"]["filter"][0], format!("process {one}"));

        let out = out.with_extension("below");
        let below = bed.dir("models");
        let recording = Recording::start(Some(agent.socket()), &out, &["--watch", below.to_str().unwrap()]);
        cool(&other);
        cool(&weights);
        let (mut one, mut two) = (bed.reader(&weights), bed.reader(&other));
        one.read(8 * MIB, MIB);
        two.read(8 * MIB, MIB);
        let (one, two) = (one.end(), two.end());
        at_rest(&agent);
        recording.stop();
        let summary = show(&out);
        row(&summary, one);
        assert!(
            summary["rows"]
                .as_array()
                .unwrap()
                .iter()
                .all(|row| row["process"] != two),
            "{summary:#}"
        );
        assert!(agent.stop().unwrap().status.success());
    });
}

#[test]
fn what_cannot_be_recorded_is_said_at_once() {
    scenario(64, |bed| {
        let scratch = ScratchDir::new(&base()).unwrap();
        let out = scratch.path().join("a.trace");
        let nobody = scratch.path().join("nobody");
        let (out_text, nobody) = (out.to_str().unwrap(), nobody.to_str().unwrap());
        let fails = |arguments: &[&str]| {
            let arguments = [&["trace", "record", "--socket", nobody], arguments].concat();
            let done = agent_says(&arguments);
            assert!(!done.status.success());
            String::from_utf8_lossy(&done.stderr).into_owned()
        };
        assert!(fails(&["--out", out_text]).contains("--watch DIR"));
        assert!(fails(&["--out", out_text, "--watch", "/no/such/directory"]).contains("does not exist"));
        assert!(
            fails(&[
                "--out",
                "/no/such/place/a.trace",
                "--watch",
                bed.disk.path().to_str().unwrap()
            ])
            .contains("cannot make")
        );
        fs::write(&out, "mine").unwrap();
        assert!(fails(&["--out", out_text, "--watch", bed.disk.path().to_str().unwrap()]).contains("exists"));
        assert_eq!(fs::read(&out).unwrap(), b"mine");
        let shown = agent_says(&["trace", "show", out_text]);
        assert!(String::from_utf8_lossy(&shown.stderr).contains("is no trace"));
        assert!(!shown.status.success());
    });
}

#[test]
fn a_file_that_is_full_ends_the_recording_and_so_does_a_full_disk() {
    scenario(384, |bed| {
        let (weights, out, _scratch) = a_model(bed);
        let agent = bed.agent();
        let recording = Recording::start(Some(agent.socket()), &out, &["--max-size", "2KiB"]);
        let mut reader = bed.reader(&weights);
        reader.read_to_end(MIB);
        assert!(recording.ended().contains("--max-size"));
        assert!(fs::metadata(&out).unwrap().len() < 64 << 10);
        show(&out);
        reader.end();
        // What is left on the disk goes to a file that takes it all.
        let small = rig::disk::TestDisk::formatted(&base(), 16 * MIB, rig::disk::Format::Ext4).unwrap();
        let out = small.path().join("a.trace");
        let mut recording = Recording::start(Some(agent.socket()), &out, &[]);
        let filler = fs::File::create(small.path().join("filler")).unwrap();
        let _ = std::io::copy(&mut std::io::repeat(1), &mut &filler);
        // Every read a jump, every jump a record.
        let mut reader = bed.reader(&weights);
        reader.step("hop 1 2");
        reader.end();
        at_rest(&agent);
        recording.signal(Signal::SIGINT);
        while recording.said.read_line(&mut recording.words).unwrap() > 0 {}
        let ended = recording.child.wait().unwrap();
        assert!(
            !ended.success() && recording.words.contains("cannot write"),
            "{}",
            recording.words
        );
        drop(recording);
        assert!(agent.stop().unwrap().status.success());
        drop(small);
    });
}

#[test]
fn a_trace_comes_in_other_formats_and_as_a_picture() {
    scenario(384, |bed| {
        let (weights, out, scratch) = a_model(bed);
        bed.limit(200);
        let agent = bed.agent();
        let recording = Recording::start(Some(agent.socket()), &out, &[]);
        let mut reader = bed.reader(&weights);
        let pid = reader.pid();
        reader.read_to_end(MIB);
        reader.end();
        at_rest(&agent);
        recording.stop();
        let trace = out.to_str().unwrap();
        let export = |format: &str| {
            let done = agent_says(&["trace", "export", trace, "--format", format]);
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
            String::from_utf8(done.stdout).unwrap()
        };
        let chrome: Value = serde_json::from_str(&export("chrome")).unwrap();
        let events = chrome["traceEvents"].as_array().unwrap();
        let is = |event: &Value, kind: &str| event["cat"] == kind;
        assert!(
            events
                .iter()
                .any(|event| is(event, "access") && event["pid"] == pid && event["ts"].as_f64().is_some())
        );
        assert!(
            events
                .iter()
                .any(|event| is(event, "warm") && event["dur"].as_f64() > Some(0.0))
        );
        assert!(events.iter().any(|event| is(event, "load")));
        assert!(
            events
                .iter()
                .all(|event| event["ph"].is_string() && event["pid"].is_u64())
        );
        let lines: Vec<Value> = export("jsonl")
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines[0]["event"], "header");
        let accesses = lines.iter().filter(|line| line["event"] == "access").count();
        let csv = export("csv");
        let rows = csv
            .lines()
            .filter(|line| line.split(',').nth(1) == Some("access"))
            .count();
        assert_eq!((rows > 10, rows), (true, accesses));
        for name in ["a.svg", "a.html"] {
            let picture = scratch.path().join(name);
            let drawn = agent_says(&["trace", "plot", trace, "--out", picture.to_str().unwrap()]);
            assert!(drawn.status.success(), "{}", String::from_utf8_lossy(&drawn.stderr));
            let text = fs::read_to_string(&picture).unwrap();
            assert!(
                text.contains("<svg") && text.contains("warmed by the agent") && text.contains("prefers-color-scheme")
            );
            // What is there stays as it is.
            assert!(
                !agent_says(&["trace", "plot", trace, "--out", picture.to_str().unwrap()])
                    .status
                    .success()
            );
        }
        assert!(agent.stop().unwrap().status.success());
    });
}
