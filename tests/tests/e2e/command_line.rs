//! What the command line promises.

use std::time::Duration;

use nix::sys::signal::Signal;
use rig::{
    agent::Agent,
    scratch::ScratchDir,
    tree::{ModelTree, ollama},
};

use super::{
    bed::{
        Bed, MIB, age, assert_adds_up, base, binary, cool, events, happenings, number, receipt, resident_all, scenario,
        until, warmed,
    },
    raw::{RawAgent, ask, command, refusal},
};

/// A clean stop takes less.
const STOP: Duration = Duration::from_secs(1);

fn model(bed: &Bed) -> ModelTree {
    let tree = ollama::model(&bed.dir("models"), "llama", "8b", 1, 128 * MIB).unwrap();
    cool(tree.files.last().unwrap());
    tree
}

#[test]
fn a_dry_run_tells_and_warms_nothing() {
    scenario(384, |bed| {
        let tree = model(bed);
        let weights = tree.files.last().unwrap();
        bed.limit(200);
        let agent = bed.start(Agent::new(&binary(), bed.disk.path()).arg("--dry-run"));
        let mut reader = bed.reader(weights);
        reader.read(32 * MIB, MIB);
        until("the load is told", || !happenings(&agent, reader.pid()).is_empty());
        // The kernel's own readahead is all that is ahead of the reader.
        let here = super::bed::settled(Duration::from_millis(500), || resident_all(weights));
        assert!(here <= 34 * MIB, "{} MiB", here / MIB);
        let pid = reader.pid();
        reader.read_to_end(MIB);
        let receipt = receipt(&agent, reader.end());
        assert_adds_up(&receipt);
        assert_eq!(warmed(&receipt), 0, "{receipt:#}");
        assert_eq!(receipt["skipped"][0], "dry-run", "{receipt:#}");
        let what: Vec<String> = happenings(&agent, pid).into_iter().map(|(what, _)| what).collect();
        assert_eq!(what, ["LOAD", "SKIP", "DONE"]);
    });
}

#[test]
fn every_line_of_json_parses_while_models_are_loaded() {
    scenario(384, |bed| {
        let tree = model(bed);
        let state = ScratchDir::new(&base()).unwrap();
        let mut agent = RawAgent::start(command(state.path()).arg("--json").arg("--watch").arg(bed.disk.path()));
        for _ in 0..2 {
            let mut reader = bed.reader(tree.files.last().unwrap());
            reader.read_to_end(MIB);
            reader.end();
            cool(tree.files.last().unwrap());
        }
        until("two receipts are kept", || {
            ask(state.path(), "loads").is_ok_and(|loads| loads.len() >= 2)
        });
        assert!(agent.stop(Signal::SIGTERM, STOP).success());
        let objects = agent
            .lines
            .iter()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let names: Vec<String> = objects
            .map(|object| object["event"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(names.first().map(String::as_str), Some("ready"));
        assert_eq!(names.last().map(String::as_str), Some("stopping"));
        assert_eq!(names.iter().filter(|name| *name == "receipt").count(), 2, "{names:?}");
    });
}

#[test]
fn it_stops_within_a_second_in_the_middle_of_warming() {
    scenario(384, |bed| {
        let tree = model(bed);
        let weights = tree.files.last().unwrap();
        let truth = bed.truth(weights);
        // So slow that there is always something under way.
        bed.limit(20);
        let state = ScratchDir::new(&base()).unwrap();
        for signal in [Signal::SIGINT, Signal::SIGTERM] {
            cool(weights);
            let mut start = command(state.path());
            start.arg("--watch").arg(bed.disk.path());
            bed.group.join(&mut start).unwrap();
            let mut agent = RawAgent::start(&mut start);
            let mut reader = bed.reader(weights);
            let first = reader.read(4 * MIB, MIB);
            until("something is under way", || {
                let status = ask(state.path(), "status").unwrap().remove(0);
                status["loads"][0]["in_flight"].as_u64() > Some(0)
            });
            assert!(agent.stop(signal, STOP).success());
            assert!(!state.path().join("socket").exists(), "the socket is removed");
            bed.limit(400);
            let rest = reader.read_to_end(MIB);
            assert_eq!(first.checksum.wrapping_add(rest.checksum), truth.checksum);
            bed.limit(20);
        }
    });
}

#[test]
fn a_missing_root_is_refused_with_a_remedy() {
    scenario(64, |bed| {
        let state = ScratchDir::new(&base()).unwrap();
        let missing = bed.disk.path().join("none");
        let (code, words) = refusal(command(state.path()).arg("--watch").arg(&missing));
        assert_eq!((code, words.lines().count()), (Some(1), 1), "{words}");
        assert!(words.contains("does not exist") && words.contains("--wait"), "{words}");
        assert!(!state.path().join("socket").exists());
    });
}

#[test]
fn a_root_that_is_waited_for_is_watched_when_it_comes() {
    scenario(384, |bed| {
        bed.limit(200);
        let root = bed.disk.path().join("later/models");
        let agent = bed.start(Agent::new(&binary(), &root).arg("--wait"));
        assert_eq!(number(&agent.ask("status").unwrap(), "watched"), 0);
        // All at once: while only the blob was there, it would be a file without a name.
        let staged = bed.disk.path().join("soon");
        let tree = ollama::model(&staged.join("models"), "llama", "8b", 1, 64 * MIB).unwrap();
        let below = tree.files.last().unwrap().strip_prefix(&staged).unwrap();
        let weights = &bed.disk.path().join("later").join(below);
        age(&staged.join(below));
        std::fs::rename(&staged, bed.disk.path().join("later")).unwrap();
        cool(weights);
        until("the model is watched", || {
            number(&agent.ask("status").unwrap(), "watched") == 1
        });
        let mut reader = bed.reader(weights);
        reader.read_to_end(MIB);
        let receipt = receipt(&agent, reader.end());
        assert_eq!(receipt["model"], "llama:8b");
        assert!(warmed(&receipt) > 8 * MIB, "{receipt:#}");
    });
}

#[test]
fn a_second_agent_is_refused_and_the_first_goes_on() {
    scenario(384, |bed| {
        let tree = model(bed);
        bed.limit(200);
        let state = ScratchDir::new(&base()).unwrap();
        let mut first = RawAgent::start(command(state.path()).arg("--watch").arg(bed.disk.path()));
        let (code, words) = refusal(command(state.path()).arg("--watch").arg(bed.disk.path()));
        assert_eq!(code, Some(1));
        assert!(
            words.contains(&format!("another agent (pid {}", first.pid())),
            "{words}"
        );
        assert!(first.is_running());
        let mut reader = bed.reader(tree.files.last().unwrap());
        reader.read_to_end(MIB);
        reader.end();
        until("its load is told", || {
            ask(state.path(), "loads").is_ok_and(|loads| loads.len() == 1 && loads[0]["model"] == "llama:8b")
        });
        assert!(first.stop(Signal::SIGTERM, STOP).success());
    });
}

#[test]
fn a_bare_number_for_memory_is_refused_with_a_suggestion() {
    let state = ScratchDir::new(&base()).unwrap();
    let (code, words) = refusal(command(state.path()).args(["--memory", "8", "--watch", "/tmp"]));
    assert_eq!(code, Some(2));
    assert!(words.contains("8GiB"), "{words}");
}

#[test]
fn a_command_line_that_asks_for_what_cannot_be_is_told_so_with_code_2() {
    let state = ScratchDir::new(&base()).unwrap();
    for (arguments, word) in [
        (vec![], "--watch ~/.ollama/models"),
        (vec!["--watch", "/tmp", "--events", "telepathy"], "page-cache"),
        (vec!["--watch", "/tmp", "--memory", "0%"], "--memory"),
        (vec!["--wtach", "/tmp"], "--watch"),
    ] {
        let (code, words) = refusal(command(state.path()).args(&arguments));
        assert_eq!(code, Some(2), "{arguments:?}: {words}");
        assert!(words.contains(word), "{arguments:?}: {words}");
    }
}

#[test]
fn a_loads_story_is_the_same_for_people_and_for_programs() {
    scenario(384, |bed| {
        let tree = model(bed);
        bed.limit(200);
        let agent = bed.agent();
        let mut reader = bed.reader(tree.files.last().unwrap());
        reader.read_to_end(MIB);
        let told = receipt(&agent, reader.end());
        let kept = agent.ask("loads").unwrap();
        for field in ["demanded", "warmed_in_time", "warmed_late", "missed", "model", "pids"] {
            assert_eq!(kept[field], told[field], "{field}");
        }
        assert_eq!(events(&agent, "receipt").len(), 1);
    });
}
