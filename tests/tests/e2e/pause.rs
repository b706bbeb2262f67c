//! `nitro-agent pause` and `resume`.

use std::time::Duration;

use rig::{agent::AgentProcess, tree::gguf};

use super::bed::{
    Bed, MIB, assert_adds_up, cool, held, number, receipt, resident_all, scenario, settled, until, within,
};

const SIZE: u64 = 256 * MIB;

#[test]
fn a_pause_stops_all_reading_and_closes_all_files_within_a_second() {
    scenario(512, |bed| {
        let tree = gguf::single(&bed.dir("models"), "model", 1, SIZE).unwrap();
        let weights = &tree.files[0];
        cool(weights);
        bed.limit(20);
        let agent = bed.agent();
        let mut reader = bed.reader(weights);
        reader.read(8 * MIB, MIB);
        until("it is warmed", || resident_all(weights) >= 16 * MIB);
        assert!(held(agent.pid().unwrap(), bed.disk.path()) > 0);
        assert_eq!(agent.tell(&["pause"]).unwrap(), "paused until `nitro-agent resume`");
        within(Duration::from_secs(1), "everything is closed", || {
            held(agent.pid().unwrap(), bed.disk.path()) == 0
        });
        let read = bed.device_bytes();
        std::thread::sleep(Duration::from_millis(500));
        assert_eq!(bed.device_bytes(), read, "nothing is read");
        assert_eq!(agent.ask("status").unwrap()["paused"], true);

        assert_eq!(agent.tell(&["resume"]).unwrap(), "the agent goes on");
        assert_eq!(agent.ask("status").unwrap()["paused"], false);
        bed.limit(200);
        reader.read(8 * MIB, MIB);
        until("it is warmed again", || resident_all(weights) >= 64 * MIB);
        let receipt = receipt(&agent, reader.end());
        assert_adds_up(&receipt);
        assert_eq!(receipt["skipped"][0], "paused", "{receipt:#}");
    });
}

#[test]
fn a_pause_ends_by_itself_and_who_came_meanwhile_is_left_alone() {
    scenario(512, |bed| {
        let (weights, agent) = cold(bed);
        assert_eq!(agent.tell(&["pause", "3s"]).unwrap(), "paused for 3s");
        let mut reader = bed.reader(&weights);
        reader.read(16 * MIB, MIB);
        let here = settled(Duration::from_millis(300), || resident_all(&weights));
        assert!(here <= 18 * MIB, "{} MiB", here / MIB);
        until("it is over", || agent.ask("status").unwrap()["paused"] == false);
        // One that works on what it reads: a reader as fast as the device has nothing ahead of it, with us or without. It was met in the
        // middle of the file, so that its window is still small.
        for _ in 0..16 {
            reader.read(MIB, MIB);
            std::thread::sleep(Duration::from_millis(10));
        }
        until("it is warmed", || resident_all(&weights) >= 36 * MIB);
        let receipt = receipt(&agent, reader.end());
        assert!(number(&receipt, "demanded") <= 33 * MIB, "{receipt:#}");
    });
}

fn cold(bed: &Bed) -> (std::path::PathBuf, AgentProcess) {
    let tree = gguf::single(&bed.dir("models"), "model", 1, SIZE).unwrap();
    cool(&tree.files[0]);
    bed.limit(200);
    (tree.files[0].clone(), bed.agent())
}
