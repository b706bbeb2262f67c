//! What the doctor says of this machine is what the agent finds when it starts, and nothing of its look stays.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::mpsc,
    time::Duration,
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::signal::Signal,
};
use rig::{agent::Agent, mute::Mute, scratch::ScratchDir, tracefs::Tracefs};
use serde_json::Value;

use super::{
    bed::{Bed, SOON, base, binary, number, scenario, until},
    killed::{loaded, programs_of},
    raw::{RawAgent, ask, command},
};

const MODES: [&str; 4] = ["page-cache", "fentry", "syscalls", "fanotify"];

/// Whom nothing belongs to.
const NOBODY: u32 = 65_534;

fn output(state: &Path, json: bool, watch: Option<&Path>) -> Output {
    let mut doctor = Command::new(binary());
    doctor.arg("doctor").arg("--socket").arg(state.join("socket"));
    if json {
        doctor.arg("--json");
    }
    if let Some(directory) = watch {
        doctor.arg("--watch").arg(directory);
    }
    doctor.output().unwrap()
}

/// What the doctor says of a directory, or of what it finds, and what it ends with.
fn doctor(state: &Path, watch: Option<&Path>) -> (Option<i32>, Value) {
    let Output { status, stdout, stderr } = output(state, true, watch);
    assert!(stderr.is_empty(), "{}", String::from_utf8_lossy(&stderr));
    (status.code(), serde_json::from_slice(&stdout).unwrap())
}

#[track_caller]
fn of<'a>(report: &'a Value, name: &str) -> &'a Value {
    let mut findings = report["findings"].as_array().unwrap().iter();
    let found = findings.find(|finding| finding["name"] == name);
    found.unwrap_or_else(|| panic!("nothing is said of {name}: {report:#}"))
}

/// Names of what costs something.
fn costly(report: &Value) -> Vec<String> {
    let findings = report["findings"].as_array().unwrap().iter();
    let bad = findings.filter(|finding| finding["state"] == "degraded" || finding["state"] == "missing");
    for finding in bad.clone() {
        assert!(
            finding["lost"].is_string() && finding["remedy"].is_string(),
            "{finding}"
        );
    }
    let useful = bad.filter(|finding| finding["weight"] == "useful");
    useful
        .map(|finding| finding["name"].as_str().unwrap().to_owned())
        .collect()
}

/// The name that the kernel has for the disk of a scenario.
fn device(bed: &Bed) -> String {
    let (major, minor) = bed.disk.number();
    let link = fs::read_link(format!("/sys/dev/block/{major}:{minor}")).unwrap();
    link.file_name().unwrap().to_string_lossy().into_owned()
}

#[test]
fn the_modes_that_it_finds_are_those_that_an_agent_starts_in() {
    scenario(64, |bed| {
        let state = ScratchDir::new(&base()).unwrap();
        // The syscalls mode needs it.
        let _tracefs = Tracefs::mounted().unwrap();
        let (code, report) = doctor(state.path(), Some(bed.disk.path()));
        assert!(matches!(code, Some(0 | 1)), "{code:?}: {report:#}");
        assert_eq!(code == Some(0), costly(&report).is_empty(), "{:?}", costly(&report));
        assert_eq!(report["verdict"]["exit_code"], code.unwrap());
        assert_eq!(of(&report, "tracefs")["state"], "ok");
        assert_eq!(of(&report, "capabilities")["state"], "ok");
        for mode in MODES {
            let finding = of(&report, mode);
            let started = bed_agent(bed, mode);
            match started {
                Ok(()) => assert_eq!(finding["state"], "ok", "{mode} works: {finding}"),
                Err(words) => {
                    assert_eq!(finding["state"], "missing", "{mode}: {words}");
                    let why = finding["value"].as_str().unwrap();
                    assert!(words.contains(why), "{mode}: {why}: {words}");
                }
            }
        }
        let agent = bed.agent();
        assert_eq!(agent.ask("status").unwrap()["mode"], report["mode"]);
    });
}

/// Whether an agent can be started in a mode.
fn bed_agent(bed: &Bed, mode: &str) -> Result<(), String> {
    let agent = Agent::new(&binary(), bed.disk.path()).arg("--events").arg(mode);
    match agent.start(Some(&bed.group)) {
        Ok(agent) => {
            assert_eq!(agent.ask("status").unwrap()["mode"], mode);
            Ok(())
        }
        Err(error) => Err(format!("{error:#}")),
    }
}

/// Settings that it speaks of.
fn settings(bed: &Bed) -> BTreeMap<String, String> {
    let queue = format!("/sys/block/{}/queue", device(bed));
    let mut places = vec![
        "/proc/sys/vm/swappiness".to_owned(),
        "/proc/sys/vm/vfs_cache_pressure".to_owned(),
        "/proc/sys/kernel/bpf_stats_enabled".to_owned(),
        "/proc/swaps".to_owned(),
        "/proc/mounts".to_owned(),
    ];
    places.extend(["read_ahead_kb", "max_sectors_kb", "scheduler"].map(|name| format!("{queue}/{name}")));
    let read = |place: String| (place.clone(), fs::read_to_string(&place).unwrap());
    places.into_iter().map(read).collect()
}

#[test]
fn nothing_is_changed_nothing_stays_attached_and_an_agent_goes_on() {
    scenario(64, |bed| {
        let _tracefs = Tracefs::mounted().unwrap();
        let state = ScratchDir::new(&base()).unwrap();
        let mut start = command(state.path());
        start.arg("--watch").arg(bed.disk.path());
        let mut agent = RawAgent::start(&mut start);
        let (programs, before, known) = (programs_of(agent.pid()), settings(bed), loaded());

        let (_, report) = doctor(state.path(), None);
        until("what it tried is gone", || loaded().is_subset(&known));
        assert!(doctors().is_empty(), "{:?}", doctors());
        assert_eq!(settings(bed), before);
        // It has asked the agent, and looked at its directory.
        let running = of(&report, "running");
        assert_eq!(running["state"], "ok", "{running}");
        assert!(
            running["value"]
                .as_str()
                .unwrap()
                .contains(&format!("pid {}", agent.pid()))
        );
        let watched = of(&report, &bed.disk.path().canonicalize().unwrap().to_string_lossy());
        assert!(
            watched["value"].as_str().unwrap().starts_with("ext4 from /dev/loop"),
            "{watched}"
        );

        assert_eq!(programs_of(agent.pid()), programs);
        let status = ask(state.path(), "status").unwrap().remove(0);
        assert_eq!(number(&status["counters"], "dropped"), 0);
        assert!(agent.stop(Signal::SIGTERM, SOON).success());
        until("the agent's are gone, too", || programs.is_disjoint(&loaded()));
    });
}

#[test]
fn what_is_less_than_it_could_be_is_in_the_exit_code_and_goes_with_its_remedy() {
    scenario(64, |bed| {
        let state = ScratchDir::new(&base()).unwrap();
        let name = format!("{} read_ahead_kb", device(bed));
        let (_, report) = doctor(state.path(), Some(bed.disk.path()));
        assert_eq!(of(&report, &name)["state"], "ok", "{report:#}");

        bed.disk.set_read_ahead_kb(0).unwrap();
        let (code, report) = doctor(state.path(), Some(bed.disk.path()));
        assert_eq!(code, Some(1));
        assert_eq!(report["verdict"]["outcome"], "degraded");
        assert!(
            report["verdict"]["words"].as_str().unwrap().contains(&name),
            "{report:#}"
        );
        let finding = of(&report, &name);
        assert_eq!(finding["state"], "degraded");

        // What it says to do is done as it stands there.
        let remedy = finding["remedy"].as_str().unwrap();
        assert!(
            Command::new("sh").args(["-c", remedy]).status().unwrap().success(),
            "{remedy}"
        );
        let (_, report) = doctor(state.path(), Some(bed.disk.path()));
        assert_eq!(of(&report, &name)["state"], "ok", "{report:#}");
    });
}

#[test]
fn who_is_not_root_hears_that_it_cannot_work_so() {
    scenario(64, |bed| {
        let mut doctor = Command::new("setpriv");
        doctor
            .args([format!("--reuid={NOBODY}"), format!("--regid={NOBODY}")])
            .args(["--clear-groups", "--inh-caps=-all", "--"])
            .arg(binary())
            .args(["doctor", "--json", "--watch"])
            .arg(bed.disk.path());
        let Output { status, stdout, .. } = doctor.output().unwrap();
        let report: Value = serde_json::from_slice(&stdout).unwrap();
        assert_eq!(status.code(), Some(2), "{report:#}");
        assert_eq!(report["verdict"]["outcome"], "cannot-work");
        assert!(report["verdict"]["words"].as_str().unwrap().contains("sudo"));
        assert_eq!(report["mode"], Value::Null);
        assert_eq!(of(&report, "capabilities")["weight"], "essential");
        for mode in MODES {
            assert_eq!(of(&report, mode)["state"], "missing", "{mode}");
        }
    });
}

#[test]
fn people_read_the_same_as_programs_without_colours_in_a_pipe() {
    scenario(64, |bed| {
        let state = ScratchDir::new(&base()).unwrap();
        let (code, report) = doctor(state.path(), Some(bed.disk.path()));
        let told = output(state.path(), false, Some(bed.disk.path()));
        assert_eq!(told.status.code(), code);
        let text = String::from_utf8(told.stdout).unwrap();
        assert!(!text.contains('\u{1b}'), "{text}");
        let words = report["verdict"]["words"].as_str().unwrap();
        let last = text.lines().last().unwrap();
        assert!(last.ends_with(words), "{last} / {words}");
        for finding in report["findings"].as_array().unwrap() {
            let name = finding["name"].as_str().unwrap();
            assert!(text.contains(name), "{name}: {text}");
            if let Some(remedy) = finding["remedy"].as_str() {
                assert!(text.contains(remedy), "{remedy}: {text}");
            }
        }
    });
}

/// Longer than the doctor waits for all that is silent together, and than its trials take.
const BOUNDED: Duration = Duration::from_secs(60);

/// What it says, if it ends: its report is read to the end, which does not come as long as anybody has its output.
fn doctor_in_time(state: &Path, watch: &[&Path]) -> Value {
    let mut doctor = Command::new(binary());
    doctor.args(["doctor", "--json", "--socket"]).arg(state.join("socket"));
    for directory in watch {
        doctor.arg("--watch").arg(directory);
    }
    let doctor = doctor.stdout(Stdio::piped()).spawn().unwrap();
    let (tell, told) = mpsc::sync_channel(1);
    std::thread::spawn(move || tell.send(doctor.wait_with_output()));
    let output = told.recv_timeout(BOUNDED).expect("the doctor does not end").unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

/// An overlay that goes with its test.
struct Overlay(PathBuf);

impl Drop for Overlay {
    fn drop(&mut self) {
        umount2(&self.0, MntFlags::MNT_DETACH).unwrap();
    }
}

#[test]
fn a_server_that_takes_requests_and_is_silent_holds_nobody() {
    scenario(64, |bed| {
        let state = ScratchDir::new(&base()).unwrap();
        let [net, low, merged, here] =
            ["net", "low", "merged", "here"].map(|name| bed.dir(name).canonicalize().unwrap());
        let mute = Mute::mounted(&net).unwrap();
        let layers = format!("lowerdir={}:{}", low.display(), net.display());
        mount(
            Some("overlay"),
            &merged,
            Some("overlay"),
            MsFlags::empty(),
            Some(layers.as_str()),
        )
        .unwrap();
        let overlay = Overlay(merged.clone());
        mute.be_silent();

        // The table knows that a server is there: it is not asked.
        let below = net.join("models");
        let report = doctor_in_time(state.path(), &[&below, &here]);
        assert_eq!(mute.taken(), 0);
        let finding = of(&report, &below.to_string_lossy());
        assert_eq!(finding["state"], "info", "{finding}");
        let value = finding["value"].as_str().unwrap();
        assert!(
            value.starts_with("fuse from mute") && value.contains("was not asked"),
            "{value}"
        );
        assert_eq!(of(&report, &here.to_string_lossy())["state"], "ok");

        // Behind an overlay it is asked all the same; those who ask are left behind, and the others are told.
        let behind = ["a", "b", "c"].map(|name| merged.join(name));
        let watch: Vec<&Path> = behind.iter().map(PathBuf::as_path).chain([here.as_path()]).collect();
        let report = doctor_in_time(state.path(), &watch);
        assert!(mute.taken() > 0, "nobody was asked");
        for path in &behind {
            let finding = of(&report, &path.to_string_lossy());
            assert_eq!(finding["state"], "missing", "{finding}");
            assert!(
                finding["value"].as_str().unwrap().contains("does not answer"),
                "{finding}"
            );
        }
        assert_eq!(of(&report, &here.to_string_lossy())["state"], "ok");
        assert_eq!(report["verdict"]["exit_code"], 1);

        drop(mute);
        drop(overlay);
        until("whoever asked has ended", || doctors().is_empty());
    });
}

/// Processes of the doctor.
fn doctors() -> Vec<String> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|process| fs::read_to_string(process.path().join("cmdline")).ok());
    let binary = binary().to_string_lossy().into_owned();
    lines
        .filter(|line| line.starts_with(&binary) && line.split('\0').nth(1) == Some("doctor"))
        .collect()
}
