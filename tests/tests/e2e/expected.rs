//! What loads teach, on the real kernel: what comes next, what is never read, what help saves; `explain` and `forget`.

use std::path::{Path, PathBuf};

use rig::{
    agent::{Agent, AgentProcess},
    tree::gguf,
};

use super::bed::{Bed, MIB, binary, cool_all, number, receipt, resident_all, scenario, until};

const SIZE: u64 = 16 * MIB;

/// An agent that brings nothing back for its heat, so that what comes was expected.
fn start(bed: &Bed, flags: &[&str]) -> AgentProcess {
    let agent = Agent::new(&binary(), bed.disk.path());
    let cold = ["--pin-above", "1000", "--unpin-below", "999"];
    let flags = cold.iter().chain(flags);
    bed.start(flags.fold(agent, |agent, flag| agent.arg(*flag)))
}

/// One process reads files from beginning to end; its receipt.
fn load(bed: &Bed, agent: &AgentProcess, files: &[&Path]) -> serde_json::Value {
    let mut reader = bed.reader(files[0]);
    reader.read_to_end(MIB);
    for file in &files[1..] {
        reader.open(file);
        reader.read_to_end(MIB);
    }
    receipt(agent, reader.end())
}

fn two(bed: &Bed) -> [PathBuf; 2] {
    ["one", "two"].map(|name| gguf::single(&bed.dir(name), name, 1, SIZE).unwrap().files.remove(0))
}

#[test]
fn what_usually_follows_is_there_before_it_is_read_until_it_is_forgotten() {
    scenario(384, |bed| {
        let [one, other] = two(bed);
        let both = [one.clone(), other.clone()];
        let agent = start(bed, &[]);
        for _ in 0..16 {
            cool_all(&both);
            load(bed, &agent, &[&one]);
            load(bed, &agent, &[&other]);
        }
        let said = agent.tell(&["explain", one.to_str().unwrap()]).unwrap();
        assert!(said.contains("from beginning to end"), "{said}");
        assert!(said.contains(other.to_str().unwrap()), "it is loaded next: {said}");
        cool_all(&both);
        load(bed, &agent, &[&one]);
        until("what comes next is there", || resident_all(&other) >= SIZE);
        let found = load(bed, &agent, &[&other]);
        assert!(number(&found, "brought_before") >= SIZE / 2, "{found:#}");
        agent.tell(&["forget", bed.disk.path().to_str().unwrap()]).unwrap();
        let json = agent.tell(&["explain", "--json", one.to_str().unwrap()]).unwrap();
        let known: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(known["next"].as_array().map(Vec::len), Some(0), "{known:#}");
        assert_eq!(known["readers"].as_array().map(Vec::len), Some(0), "{known:#}");
    });
}

#[test]
fn a_part_that_was_never_read_is_not_warmed() {
    scenario(512, |bed| {
        let parts = gguf::splits(&bed.dir("models"), "model", 1, 3, 4 * SIZE).unwrap().files;
        bed.limit(200);
        let agent = start(bed, &[]);
        let read: [&Path; 2] = [&parts[0], &parts[2]];
        for _ in 0..2 {
            cool_all(&parts);
            load(bed, &agent, &read);
        }
        cool_all(&parts);
        let found = load(bed, &agent, &read);
        assert!(
            number(&found, "warmed_in_time") + number(&found, "warmed_late") > SIZE,
            "{found:#}"
        );
        // Its header was looked at, to know what it is.
        assert!(resident_all(&parts[1]) <= MIB, "{}", resident_all(&parts[1]));
        assert!(number(&found, "wasted") <= 2 * MIB, "{found:#}");
        let said = agent.tell(&["explain", parts[0].to_str().unwrap()]).unwrap();
        let name = parts[1].file_name().unwrap().to_str().unwrap();
        assert!(said.contains("never reads") && said.contains(name), "{said}");
    });
}

#[test]
fn a_load_that_is_held_out_gets_no_help_and_the_next_one_says_what_help_saved() {
    scenario(384, |bed| {
        let file = gguf::single(&bed.dir("models"), "model", 1, 8 * SIZE)
            .unwrap()
            .files
            .remove(0);
        let state = tempfile::tempdir().unwrap();
        bed.limit(50);
        let agent = |flags: &[&str]| {
            let agent = Agent::new(&binary(), bed.disk.path()).state(state.path());
            bed.start(flags.iter().fold(agent, |agent, flag| agent.arg(*flag)))
        };
        super::bed::cool(&file);
        let held_out = agent(&["--holdout", "100%"]);
        let found = load(bed, &held_out, &[&file]);
        assert_eq!(found["skipped"][0], "held-out", "{found:#}");
        assert_eq!(
            number(&found, "warmed_in_time") + number(&found, "wasted"),
            0,
            "{found:#}"
        );
        assert!(found["saved"].is_null(), "{found:#}");
        held_out.stop().unwrap();
        super::bed::cool(&file);
        let helping = agent(&[]);
        let found = load(bed, &helping, &[&file]);
        assert_eq!(found["saved"]["by"], "held-out", "{found:#}");
    });
}

#[test]
fn a_share_that_is_none_is_refused() {
    let run = |share: &str| {
        let mut command = std::process::Command::new(binary());
        command.args(["--watch", "/", "--holdout", share]).output().unwrap()
    };
    for share in ["2", "101%", "many", "NaN"] {
        let output = run(share);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("--holdout"), "{said}");
    }
}
