//! The ceiling: what was warmed and not used yet is never more, and a model larger than it is paced through it.

use std::time::Duration;

use rig::{
    agent::Agent,
    tree::{gguf, ollama},
};

use super::bed::{
    MIB, assert_adds_up, binary, cool, number, receipt, resident, resident_all, scenario, settled, until, warmed,
};

#[test]
fn no_more_than_the_ceiling_is_ahead_of_a_reader_that_stops() {
    scenario(768, |bed| {
        let tree = ollama::model(&bed.dir("models"), "llama", "8b", 1, 512 * MIB).unwrap();
        let weights = tree.files.last().unwrap();
        cool(weights);
        bed.limit(400);
        let agent = bed.start(Agent::new(&binary(), bed.disk.path()).arg("--memory").arg("64MiB"));
        let mut reader = bed.reader(weights);
        reader.read(8 * MIB, MIB);
        until("something is ahead", || {
            resident(weights, 8 * MIB, 512 * MIB) >= 40 * MIB
        });
        let ahead = settled(Duration::from_secs(1), || resident(weights, 8 * MIB, 512 * MIB));
        // And what the kernel itself reads ahead.
        assert!(ahead <= 65 * MIB, "{} KiB ahead", ahead >> 10);
        let status = agent.ask("status").unwrap();
        assert_eq!(number(&status, "ceiling"), 64 * MIB);
        let held = number(&status, "held");
        assert!(held <= 64 * MIB, "{held}");
        assert!(held.abs_diff(ahead) <= 3 * MIB, "{held} said to be held, {ahead} ahead");
        reader.end();
    });
}

#[test]
fn a_model_larger_than_the_ceiling_is_paced_and_read_once() {
    scenario(512, |bed| {
        let path = bed.dir("models").join("large.gguf");
        gguf::write(&path, 1, 256 * MIB, None).unwrap();
        let truth = bed.truth(&path);
        bed.limit(400);
        let agent = bed.start(Agent::new(&binary(), bed.disk.path()).arg("--memory").arg("32MiB"));
        let before = bed.device_bytes();
        let mut reader = bed.reader(&path);
        let (mut bytes, mut checksum, mut most) = (0, 0u64, 0);
        while bytes < truth.bytes {
            let read = reader.read(4 * MIB, MIB);
            bytes += read.bytes;
            checksum = checksum.wrapping_add(read.checksum);
            // A reader that works on what it has read.
            std::thread::sleep(Duration::from_millis(20));
            most = most.max(resident_all(&path).saturating_sub(bytes));
        }
        assert_eq!((bytes, checksum), (truth.bytes, truth.checksum));
        assert!(most <= 36 * MIB, "{} KiB ahead at a time", most >> 10);
        let receipt = receipt(&agent, reader.end());
        assert_adds_up(&receipt);
        let device = bed.device_bytes() - before;
        assert!(
            device as f64 <= 1.05 * truth.bytes as f64,
            "{device} read of {}: {receipt:#}",
            truth.bytes
        );
        assert!(
            warmed(&receipt) >= truth.bytes / 2,
            "it was helped all along: {receipt:#}"
        );
    });
}
