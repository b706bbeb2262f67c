//! Nothing is held longer than it is used: what is deleted frees its space, and what is unmounted goes.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use nix::{
    mount::{MntFlags, umount2},
    sys::statvfs::statvfs,
};
use rig::{agent::AgentProcess, tree::ollama};

use super::{
    bed::{Bed, MIB, cool, events, number, receipt, resident, scenario, until, within},
    reader::StepReader,
};

const SIZE: u64 = 256 * MIB;
const A_SECOND: Duration = Duration::from_secs(1);

fn free(disk: &Path) -> u64 {
    let state = statvfs(disk).unwrap();
    state.blocks_free() as u64 * state.fragment_size() as u64
}

/// What the agent holds of the disk: open files and mappings.
fn held(agent: &AgentProcess, disk: &Path) -> Vec<String> {
    let process = format!("/proc/{}", agent.pid().unwrap());
    let disk = disk.to_str().unwrap();
    let open = fs::read_dir(format!("{process}/fd")).unwrap().flatten();
    let open = open.filter_map(|entry| Some(fs::read_link(entry.path()).ok()?.to_string_lossy().into_owned()));
    let maps = fs::read_to_string(format!("{process}/maps")).unwrap();
    open.chain(maps.lines().map(ToOwned::to_owned))
        .filter(|name| name.contains(disk))
        .collect()
}

/// An agent that is warming for a reader that has stopped part-way.
fn under_way(bed: &Bed) -> (AgentProcess, StepReader, std::path::PathBuf) {
    let tree = ollama::model(&bed.dir("models"), "llama", "8b", 1, SIZE).unwrap();
    let weights = tree.files.last().unwrap().clone();
    cool(&weights);
    // The window is not full for seconds.
    bed.limit(40);
    let agent = bed.agent();
    let mut reader = bed.reader(&weights);
    reader.read(8 * MIB, MIB);
    until("it is being warmed", || resident(&weights, 12 * MIB, SIZE) >= 4 * MIB);
    assert!(!held(&agent, bed.disk.path()).is_empty());
    (agent, reader, weights)
}

#[test]
fn unlink_frees_the_space_within_a_second_of_the_readers_close() {
    scenario(512, |bed| {
        let (agent, mut reader, weights) = under_way(bed);
        let before = free(bed.disk.path());
        fs::remove_file(&weights).unwrap();
        within(A_SECOND, "the agent lets go", || {
            held(&agent, bed.disk.path()).is_empty()
        });
        reader.step("close");
        within(A_SECOND, "the space is free", || free(bed.disk.path()) >= before + SIZE);
        let receipt = receipt(&agent, reader.end());
        assert_eq!(receipt["skipped"][0], "gone", "{receipt:#}");
        // What was brought in for nothing is said, and does not count as held any more.
        assert!(number(&receipt, "wasted") > 0, "{receipt:#}");
        until("nothing is held", || number(&agent.ask("status").unwrap(), "held") == 0);
    });
}

#[test]
fn unlink_without_a_reader_frees_the_space_within_a_second() {
    scenario(512, |bed| {
        let (agent, mut reader, weights) = under_way(bed);
        reader.step("close");
        let before = free(bed.disk.path());
        fs::remove_file(&weights).unwrap();
        within(A_SECOND, "the space is free", || free(bed.disk.path()) >= before + SIZE);
        assert_eq!(held(&agent, bed.disk.path()), Vec::<String>::new());
        reader.end();
    });
}

#[test]
fn the_disk_can_be_unmounted_within_a_second_of_the_loads_end() {
    scenario(512, |bed| {
        let (agent, reader, _) = under_way(bed);
        let ended = Instant::now();
        reader.end();
        within(A_SECOND, "umount", || {
            umount2(bed.disk.path(), MntFlags::empty()).is_ok()
        });
        assert!(ended.elapsed() < A_SECOND * 2);
        // It goes on, and says that its root is gone by watching nothing.
        until("nothing is watched", || {
            number(&agent.ask("status").unwrap(), "watched") == 0
        });
        assert!(agent.stop().unwrap().status.success());
    });
}

#[test]
fn the_disk_can_be_unmounted_when_an_announced_runner_has_gone() {
    scenario(512, |bed| {
        let tree = ollama::model(&bed.dir("models"), "llama", "8b", 1, SIZE).unwrap();
        let weights = tree.files.last().unwrap();
        cool(weights);
        bed.limit(200);
        let agent = bed.agent();
        let runner = StepReader::announced(weights, Some(&bed.group));
        until("it is being warmed", || resident(weights, 0, SIZE) >= 8 * MIB);
        runner.end();
        within(A_SECOND, "umount", || {
            umount2(bed.disk.path(), MntFlags::empty()).is_ok()
        });
        until("its receipt", || !events(&agent, "receipt").is_empty());
    });
}
