//! Loads, not processes: who reads one model together gets one window each and one receipt for all.

use std::time::Duration;

use rig::{
    readers::{self, Kind, Reader},
    tree::gguf,
};
use serde_json::Value;

use super::bed::{Bed, MIB, assert_adds_up, brought_in, cool, events, number, scenario, settled, until, warmed};

const SIZE: u64 = 256 * MIB;

/// The one receipt of a reader that is in several places at once, compared with the device.
fn one_load(bed: &Bed, kind: Kind) -> Value {
    let tree = gguf::single(&bed.dir("models"), "model", 1, SIZE).unwrap();
    cool(&tree.files[0]);
    bed.limit(200);
    let agent = bed.agent();
    let before = bed.device_bytes();
    let reader = Reader::new(&readers::program().unwrap(), kind, &tree.files);
    let report = reader.run(Some(&bed.group)).unwrap();
    assert_eq!(report.bytes, tree.bytes);
    until("a receipt", || !events(&agent, "receipt").is_empty());
    let receipts = settled(Duration::from_millis(500), || events(&agent, "receipt"));
    assert_eq!(receipts.len(), 1, "{receipts:#?}");
    let receipt = receipts[0].clone();
    assert_adds_up(&receipt);
    let device = bed.device_bytes() - before;
    let near = |what: &str, told: u64, is: u64| {
        assert!(
            told.abs_diff(is) <= SIZE / 50,
            "{what}: {told} told, {is} in truth: {receipt:#}"
        );
    };
    near("demanded", number(&receipt, "demanded"), tree.bytes);
    near("read from the device", brought_in(&receipt), device);
    near("the device reads everything once", device, tree.bytes);
    assert!(
        warmed(&receipt) > SIZE / 2,
        "the agent brought in most of it: {receipt:#}"
    );
    receipt
}

#[test]
fn eight_ranks_on_one_model_are_one_load() {
    scenario(512, |bed| {
        let receipt = one_load(bed, Kind::Ranks);
        assert_eq!(receipt["pids"].as_array().unwrap().len(), 8, "{receipt:#}");
        assert_eq!(receipt["program"], "nitro-bench");
    });
}

#[test]
fn thirty_two_threads_that_share_a_file_are_one_load() {
    scenario(512, |bed| {
        let receipt = one_load(bed, Kind::Threads);
        assert_eq!(receipt["pids"].as_array().unwrap().len(), 1, "{receipt:#}");
        assert_eq!(receipt["reader"], "buffered");
    });
}

#[test]
fn sixteen_interleaved_cursors_are_helped_at_each_place() {
    scenario(512, |bed| {
        let receipt = one_load(bed, Kind::Cursors);
        // What the machine reclaims on the way is read again.
        assert!(number(&receipt, "wasted") <= SIZE / 100, "{receipt:#}");
    });
}
