//! What the user does not want helped: `--exclude`, `--ignore-program`.

use std::time::Duration;

use rig::{
    agent::Agent,
    readers::{self, Kind, Reader},
    scratch::ScratchDir,
    tree::gguf,
};

use super::{
    bed::{MIB, base, binary, cool_all, events, number, receipt, resident_all, scenario, settled},
    raw::{command, refusal},
};

#[test]
fn excluded_files_are_neither_warmed_nor_counted() {
    scenario(512, |bed| {
        let files: Vec<_> = ["scratch-model", "model"]
            .iter()
            .map(|name| {
                gguf::single(&bed.dir("models"), name, 1, 64 * MIB)
                    .unwrap()
                    .files
                    .remove(0)
            })
            .collect();
        let below = bed.dir("models/old");
        let old = gguf::single(&below, "model", 1, 64 * MIB).unwrap().files.remove(0);
        cool_all(&files);
        cool_all(std::slice::from_ref(&old));
        bed.limit(200);
        let excludes = ["--exclude", "scratch-*", "--exclude", "models/old/**"];
        let agent = excludes
            .iter()
            .fold(Agent::new(&binary(), bed.disk.path()), |agent, argument| {
                agent.arg(*argument)
            });
        let agent = bed.start(agent);
        for file in [&files[0], &old] {
            let mut reader = bed.reader(file);
            reader.read(16 * MIB, MIB);
            let here = settled(Duration::from_millis(500), || resident_all(file));
            assert!(here <= 18 * MIB, "{} MiB of {}", here / MIB, file.display());
            reader.end();
        }
        let mut reader = bed.reader(&files[1]);
        reader.read_to_end(MIB);
        receipt(&agent, reader.end());
        assert_eq!(events(&agent, "receipt").len(), 1);
        assert_eq!(number(&agent.ask("status").unwrap(), "watched"), 1);
    });
}

#[test]
fn a_program_that_is_ignored_is_neither_helped_nor_counted() {
    scenario(512, |bed| {
        let tree = gguf::single(&bed.dir("models"), "model", 1, 128 * MIB).unwrap();
        let weights = &tree.files[0];
        cool_all(&tree.files);
        bed.limit(200);
        // The step reader is this very binary, by a name that the kernel cuts.
        let name = std::env::current_exe().unwrap().file_name().unwrap().to_owned();
        let agent = bed.start(Agent::new(&binary(), bed.disk.path()).arg("--ignore-program").arg(name));
        let mut ignored = bed.reader(weights);
        ignored.read(16 * MIB, MIB);
        let here = settled(Duration::from_millis(500), || resident_all(weights));
        assert!(here <= 18 * MIB, "{} MiB", here / MIB);
        // Who reads the same model is helped all the same, and alone in the receipt.
        let other = Reader::new(&readers::program().unwrap(), Kind::Read, &tree.files)
            .start(Some(&bed.group))
            .unwrap();
        let pid = other.pid().unwrap();
        other.wait().unwrap();
        let receipt = receipt(&agent, pid);
        assert_eq!(receipt["pids"].as_array().unwrap().len(), 1, "{receipt:#}");
        ignored.end();
        let receipts = settled(Duration::from_millis(500), || events(&agent, "receipt").len());
        assert_eq!(receipts, 1);
    });
}

#[test]
fn a_pattern_that_is_none_is_refused() {
    let state = ScratchDir::new(&base()).unwrap();
    let (code, said) = refusal(command(state.path()).args(["--watch", "/tmp", "--exclude", "a{b"]));
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("--exclude") && said.contains("a{b"), "{said}");
}
