//! What comes next in a model of several files is warmed before the reader opens it.

use std::{path::PathBuf, time::Duration};

use rig::{agent::AgentProcess, tree};

use super::{
    bed::{Bed, MIB, assert_adds_up, cool_all, number, receipt, resident_all, scenario, settled, within},
    counters::at_rest,
    reader::StepReader,
};

/// Bytes of each file.
const EACH: u64 = 32 * MIB;

/// The first file was read, and half of the second.
fn read_one_and_a_half(bed: &Bed, files: &[PathBuf]) -> (AgentProcess, StepReader) {
    cool_all(files);
    bed.limit(200);
    let agent = bed.agent();
    let mut reader = bed.reader(&files[0]);
    reader.read_to_end(MIB);
    reader.open(&files[1]);
    reader.read(EACH / 2, MIB);
    (agent, reader)
}

/// The third file comes, though nobody has opened it, and the reader finds it there.
fn the_third_follows(bed: &Bed, files: &[PathBuf], layout: &str) {
    let (agent, mut reader) = read_one_and_a_half(bed, files);
    within(Duration::from_secs(5), "the third file is in memory", || {
        resident_all(&files[2]) >= EACH / 100 * 95
    });
    reader.read_to_end(MIB);
    reader.open(&files[2]);
    reader.read_to_end(MIB);
    let receipt = receipt(&agent, reader.end());
    assert_eq!(receipt["layout"], layout, "{receipt:#}");
    assert_adds_up(&receipt);
    assert!(number(&receipt, "warmed_in_time") >= EACH / 100 * 95, "{receipt:#}");
}

#[test]
fn the_next_split_of_a_gguf_follows() {
    scenario(384, |bed| {
        let tree = tree::gguf::splits(&bed.dir("models"), "llama", 1, 5, 5 * EACH).unwrap();
        the_third_follows(bed, &tree.files, "gguf");
    });
}

#[test]
fn the_next_shard_of_safetensors_follows() {
    scenario(384, |bed| {
        let dir = bed.dir("models");
        let name = |shard: u64| dir.join(format!("model-{shard:05}-of-00004.safetensors"));
        let files: Vec<PathBuf> = (1..=4).map(name).collect();
        for (index, file) in (0..).zip(&files) {
            tree::safetensors::write(file, index, EACH, &format!("layers.{index}"), 8).unwrap();
        }
        the_third_follows(bed, &files, "safetensors");
    });
}

#[test]
fn the_next_shard_behind_a_snapshots_links_follows() {
    scenario(384, |bed| {
        let tree = tree::hugging_face::snapshot(&bed.dir("cache"), "org", "name", 1, 4, 4 * EACH).unwrap();
        let is_shard = |path: &PathBuf| path.extension().is_some_and(|end| end == "safetensors");
        let shards: Vec<PathBuf> = tree.files.into_iter().filter(is_shard).collect();
        assert!(shards.iter().all(|path| path.is_symlink()));
        the_third_follows(bed, &shards, "hugging-face");
    });
}

#[test]
fn the_next_of_numbered_files_follows() {
    scenario(384, |bed| {
        let tree = tree::series::numbered(&bed.dir("data"), "part", 1, 4, 4 * EACH).unwrap();
        the_third_follows(bed, &tree.files, "numbered");
    });
}

fn siblings(bed: &Bed) -> Vec<PathBuf> {
    let dir = bed.dir("data");
    let source = tree::series::numbered(&dir, "x", 1, 4, 4 * EACH).unwrap();
    let names = ["alpha.bin", "beta.bin", "gamma.bin", "omega.bin"].map(|name| dir.join(name));
    for (old, new) in source.files.iter().zip(&names) {
        std::fs::rename(old, new).unwrap();
    }
    names.to_vec()
}

#[test]
fn siblings_follow_after_two_reads_in_order() {
    scenario(384, |bed| the_third_follows(bed, &siblings(bed), "siblings"));
}

#[test]
fn one_read_is_no_reason_to_take_up_siblings() {
    scenario(384, |bed| {
        let files = siblings(bed);
        cool_all(&files);
        bed.limit(200);
        let agent = bed.agent();
        let mut reader = bed.reader(&files[0]);
        reader.read_to_end(MIB);
        at_rest(&agent);
        let others = settled(Duration::from_millis(500), || {
            files[1..].iter().map(|file| resident_all(file)).sum::<u64>()
        });
        assert_eq!(others, 0, "{} KiB of its siblings were brought in", others >> 10);
        reader.end();
    });
}
