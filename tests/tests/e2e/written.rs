//! Files that are being written, or were a moment ago: neither warmed nor counted.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::Duration,
};

use rig::{agent::AgentProcess, tree::gguf};

use super::bed::{Bed, MIB, age, cool, events, number, receipt, resident_all, scenario, settled, warmed};

const SIZE: u64 = 128 * MIB;

/// A cold model, complete for a minute, and an agent that knows it.
fn model(bed: &Bed) -> (PathBuf, AgentProcess) {
    let tree = gguf::single(&bed.dir("models"), "model", 1, SIZE).unwrap();
    let weights = tree.files[0].clone();
    age(&weights);
    cool(&weights);
    bed.limit(200);
    (weights, bed.agent())
}

/// Reads 16 MiB, and is left alone: what is there beyond them is the kernel's readahead.
fn is_left_alone(bed: &Bed, agent: &AgentProcess, weights: &Path) {
    let before = resident_all(weights);
    let receipts = events(agent, "receipt").len();
    let mut reader = bed.reader(weights);
    reader.read(16 * MIB, MIB);
    let here = settled(Duration::from_millis(500), || resident_all(weights)) - before;
    assert!(here <= 18 * MIB, "{} MiB", here / MIB);
    reader.end();
    let after = settled(Duration::from_millis(500), || events(agent, "receipt").len());
    assert_eq!(after, receipts, "{:#?}", events(agent, "receipt"));
}

/// Reads all of it, and is helped.
fn is_helped(bed: &Bed, agent: &AgentProcess, weights: &Path) {
    cool(weights);
    let mut reader = bed.reader(weights);
    reader.read_to_end(MIB);
    let receipt = receipt(agent, reader.end());
    assert!(warmed(&receipt) > SIZE / 10, "{receipt:#}");
}

#[test]
fn a_file_that_is_open_for_writing_is_left_alone_until_it_is_closed() {
    scenario(384, |bed| {
        let (weights, agent) = model(bed);
        let writer = File::options().write(true).open(&weights).unwrap();
        is_left_alone(bed, &agent, &weights);
        drop(writer);
        is_helped(bed, &agent, &weights);
    });
}

#[test]
fn a_file_that_changed_a_moment_ago_is_left_alone_until_it_has_been_at_rest() {
    scenario(384, |bed| {
        let (weights, agent) = model(bed);
        let file = File::options().write(true).open(&weights).unwrap();
        file.write_all_at(&[1; 4096], SIZE / 2).unwrap();
        file.sync_all().unwrap();
        drop(file);
        cool(&weights);
        is_left_alone(bed, &agent, &weights);
        age(&weights);
        is_helped(bed, &agent, &weights);
    });
}

#[test]
fn a_file_with_pages_that_are_not_on_the_disk_is_left_alone_for_longer() {
    scenario(384, |bed| {
        let (weights, agent) = model(bed);
        let file = File::options().write(true).open(&weights).unwrap();
        file.write_all_at(&[1; 4096], SIZE - MIB).unwrap();
        drop(file);
        // The kernel writes out after half a minute.
        std::thread::sleep(Duration::from_secs(11));
        is_left_alone(bed, &agent, &weights);
        age(&weights);
        is_helped(bed, &agent, &weights);
    });
}

#[test]
fn a_download_that_gets_its_name_at_its_end_is_warmed_at_once() {
    scenario(384, |bed| {
        let (weights, agent) = model(bed);
        let partial = bed.dir("models").join("partial");
        std::fs::copy(&weights, &partial).unwrap();
        let file = File::options().write(true).open(&partial).unwrap();
        file.write_all_at(&[1; 4096], SIZE / 2).unwrap();
        file.sync_all().unwrap();
        drop(file);
        std::thread::sleep(Duration::from_millis(20));
        std::fs::rename(&partial, &weights).unwrap();
        is_helped(bed, &agent, &weights);
    });
}

#[test]
fn what_was_complete_before_the_agent_began_is_warmed_at_once() {
    scenario(384, |bed| {
        let tree = gguf::single(&bed.dir("models"), "model", 1, SIZE).unwrap();
        let weights = &tree.files[0];
        cool(weights);
        bed.limit(200);
        let agent = bed.agent();
        is_helped(bed, &agent, weights);
        assert_eq!(number(&agent.ask("status").unwrap(), "watched"), 1);
    });
}
