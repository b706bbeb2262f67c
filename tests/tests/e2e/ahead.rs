//! What the agent is for: bytes that nobody has asked for yet are in memory when they are.

use rig::tree::ollama;

use super::bed::{
    MIB, assert_adds_up, brought, cool, happenings, number, receipt, resident, scenario, settled, within,
};

#[test]
fn a_cold_model_is_warmed_ahead_of_a_reader_that_stops_part_way() {
    scenario(512, |bed| {
        let tree = ollama::model(&bed.dir("models"), "llama", "8b", 1, 256 * MIB).unwrap();
        let weights = tree.files.last().unwrap();
        let truth = bed.truth(weights);
        bed.limit(200);
        let agent = bed.agent();
        let mut reader = bed.reader(weights);
        let mut read = reader.read(24 * MIB, MIB);
        assert_eq!(read.bytes, 24 * MIB);
        // The reader rests: what comes now, the agent brings.
        within(std::time::Duration::from_secs(5), "64 MiB ahead of the reader", || {
            resident(weights, 24 * MIB, 88 * MIB) >= 63 * MIB
        });
        let ahead = settled(std::time::Duration::from_millis(500), || brought(weights, 256 * MIB));
        assert!(ahead < 256 * MIB, "the window is bounded: {} MiB", ahead / MIB);
        assert_eq!(brought(weights, ahead), ahead, "in the reader's order, without a hole");

        let rest = reader.read_to_end(MIB);
        read.bytes += rest.bytes;
        read.checksum = read.checksum.wrapping_add(rest.checksum);
        assert_eq!(read, truth);
        let receipt = receipt(&agent, reader.end());
        assert_adds_up(&receipt);
        assert_eq!(receipt["model"], "llama:8b", "{receipt:#}");
        assert_eq!(receipt["layout"], "ollama");
        assert_eq!(receipt["reader"], "buffered");
        assert!(
            number(&receipt, "warmed_in_time") >= 64 * MIB,
            "what was ready when the reader came was in time: {receipt:#}"
        );
    });
}

#[test]
fn a_load_is_told_in_its_order() {
    scenario(256, |bed| {
        let tree = ollama::model(&bed.dir("models"), "llama", "1b", 1, 64 * MIB).unwrap();
        let weights = tree.files.last().unwrap();
        cool(weights);
        bed.limit(200);
        let agent = bed.agent();
        let mut reader = bed.reader(weights);
        reader.read_to_end(MIB);
        let pid = reader.end();
        receipt(&agent, pid);
        let told = happenings(&agent, pid);
        let what: Vec<&str> = told.iter().map(|(what, _)| what.as_str()).collect();
        assert_eq!(what, ["LOAD", "WARM", "DONE"], "{told:?}");
    });
}

#[test]
fn a_reader_at_the_speed_of_memory_ends_in_a_receipt_at_once() {
    scenario(512, |bed| {
        let tree = ollama::model(&bed.dir("models"), "llama", "8b", 1, 256 * MIB).unwrap();
        let weights = tree.files.last().unwrap();
        bed.reader(weights).read_to_end(MIB);
        let agent = bed.agent();
        for _ in 0..3 {
            let mut reader = bed.reader(weights);
            reader.read_to_end(MIB);
            let pid = reader.end();
            // Most of its steps woke nobody; its end does.
            let began = std::time::Instant::now();
            let receipt = receipt(&agent, pid);
            assert!(
                began.elapsed() < std::time::Duration::from_secs(1),
                "{:?}",
                began.elapsed()
            );
            assert_eq!(
                number(&receipt, "resident_before"),
                number(&receipt, "demanded"),
                "{receipt:#}"
            );
        }
    });
}
