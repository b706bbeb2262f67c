//! A reader of a mapping in the syscalls mode: only the pages it brings in itself tell where it is.

use rig::{agent::Agent, tracefs::Tracefs, tree::ollama};

use super::{
    bed::{Bed, MIB, assert_adds_up, binary, cool, number, receipt, scenario, warmed},
    reader::StepReader,
};

const SIZE: u64 = 512 * MIB;

fn load(bed: &Bed, steps: &[&str]) -> (serde_json::Value, u64) {
    let tree = ollama::model(&bed.dir("models"), "llama", "8b", 1, SIZE).unwrap();
    let weights = tree.files.last().unwrap();
    let truth = bed.truth(weights);
    cool(weights);
    bed.limit(200);
    let _tracefs = Tracefs::mounted().unwrap();
    let agent = bed.start(Agent::new(&binary(), bed.disk.path()).arg("--events").arg("syscalls"));
    let mut reader = StepReader::of(weights, Some(&bed.group));
    let mut read = 0;
    for step in steps {
        let done = reader.step(step);
        read += done.bytes;
        if done.bytes == truth.bytes {
            assert_eq!(done, truth);
        }
    }
    (receipt(&agent, reader.end()), read)
}

#[test]
fn a_mapping_is_warmed_ahead_though_most_of_its_touches_are_not_seen() {
    scenario(768, |bed| {
        let (receipt, read) = load(bed, &["map", &format!("touch 0 {}", 2 * SIZE)]);
        assert!(read >= SIZE);
        assert_adds_up(&receipt);
        assert_eq!(receipt["reader"], "sequential-map", "{receipt:#}");
        // What it went through last nobody saw.
        assert!(warmed(&receipt) >= SIZE / 4 * 3, "{receipt:#}");
        assert!(number(&receipt, "demanded") >= SIZE / 4, "{receipt:#}");
    });
}

#[test]
fn a_buffered_reader_is_not_counted_twice() {
    scenario(768, |bed| {
        let (receipt, read) = load(bed, &[&format!("read {} {MIB}", 2 * SIZE)]);
        assert_adds_up(&receipt);
        assert_eq!(receipt["reader"], "buffered", "{receipt:#}");
        assert!(number(&receipt, "demanded").abs_diff(read) <= SIZE / 50, "{receipt:#}");
    });
}
