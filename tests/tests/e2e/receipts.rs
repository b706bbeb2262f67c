//! Receipts against the device's own count: every byte that was read is in exactly one part of the account, and nothing else is.

use std::path::PathBuf;

use rig::tree::ollama;

use super::{
    bed::{Bed, MIB, assert_adds_up, brought_in, cool, number, receipt, resident_all, scenario, settled, warmed},
    reader::StepReader,
};

const SIZE: u64 = 192 * MIB;

/// A disk with one model, half of it cached if asked for.
struct Account<'a> {
    bed: &'a Bed,
    weights: PathBuf,
    size: u64,
    cached: u64,
}

impl<'a> Account<'a> {
    fn new(bed: &'a Bed, half_cached: bool) -> Self {
        let tree = ollama::model(&bed.dir("models"), "llama", "8b", 1, SIZE).unwrap();
        let weights = tree.files.last().unwrap().clone();
        let size = weights.metadata().unwrap().len();
        cool(&weights);
        bed.limit(200);
        if half_cached {
            // Its middle: a reader meets a cold part, a cached one, and a cold one again.
            let mut earlier = StepReader::of(&weights, None);
            // Page by page: of large folios a mapping's faults tell only their beginning.
            earlier.step("random");
            earlier.step(&format!("seek {}", 48 * MIB));
            earlier.read(96 * MIB, MIB);
        }
        let cached = resident_all(&weights);
        Self {
            bed,
            weights,
            size,
            cached,
        }
    }

    /// Has a reader consume the whole model in `steps`, and compares the account with the device.
    fn check(&self, kind: &str, steps: &[String]) {
        let agent = self.bed.agent();
        let before = self.bed.device_bytes();
        let mut reader = self.bed.reader(&self.weights);
        let read: u64 = steps.iter().map(|step| reader.step(step).bytes).sum();
        assert_eq!(read, self.size);
        let receipt = receipt(&agent, reader.end());
        let device = settled(std::time::Duration::from_millis(300), || self.bed.device_bytes()) - before;
        assert_eq!(receipt["reader"], kind, "{receipt:#}");
        assert_adds_up(&receipt);
        let near = |what: &str, told: u64, is: u64| {
            assert!(
                told.abs_diff(is) <= SIZE / 50,
                "{what}: {told} told, {is} in truth, of {SIZE}: {receipt:#}"
            );
        };
        near("demanded", number(&receipt, "demanded"), self.size);
        near("resident before", number(&receipt, "resident_before"), self.cached);
        near("read from the device", brought_in(&receipt), device);
        near("wasted", number(&receipt, "wasted"), 0);
        assert!(
            warmed(&receipt) > self.size / 10,
            "the agent had its part in it: {receipt:#}"
        );
        // Machines reclaim in the background: hardly anything is missing.
        near("resident afterwards", resident_all(&self.weights), self.size);
    }
}

fn read(block: u64) -> Vec<String> {
    vec![format!("read {} {block}", 2 * SIZE)]
}

fn touch(how: &str) -> Vec<String> {
    vec![how.to_owned(), format!("touch 0 {}", 2 * SIZE)]
}

macro_rules! accounts {
    ($($name:ident: $kind:expr, $steps:expr, $half_cached:expr;)*) => {$(
        #[test]
        fn $name() {
            scenario(512, |bed| Account::new(bed, $half_cached).check($kind, &$steps));
        }
    )*};
}

accounts! {
    the_account_of_large_reads_is_the_devices: "buffered", read(MIB), false;
    the_account_of_small_reads_is_the_devices: "buffered", read(128 << 10), false;
    the_account_of_a_sequential_mapping_is_the_devices: "sequential-map", touch("map"), false;
    the_account_of_a_populated_mapping_is_the_devices: "populate", touch("populate"), false;
    the_account_of_large_reads_of_a_half_cached_model_is_the_devices: "buffered", read(MIB), true;
    the_account_of_small_reads_of_a_half_cached_model_is_the_devices: "buffered", read(128 << 10), true;
    the_account_of_a_sequential_mapping_of_a_half_cached_model_is_the_devices: "sequential-map", touch("map"), true;
    the_account_of_a_populated_mapping_of_a_half_cached_model_is_the_devices: "populate", touch("populate"), true;
}
