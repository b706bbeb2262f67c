//! Kinds of readers that are recognised and named: scanners, loaders that prefetch by themselves, those that read here and there; and the layouts that say how they read.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use rig::tree::{gguf, safetensors, series};
use serde_json::Value;

use super::{
    bed::{
        Bed, MIB, assert_adds_up, brought, cool, cool_all, events, number, receipt, receipts, resident_all, scenario,
        settled, until, warmed,
    },
    reader::StepReader,
};

/// Files of 16 MiB that only a directory and an extension tie together.
fn siblings(bed: &Bed) -> Vec<PathBuf> {
    let names = ["alder.dat", "birch.dat", "cedar.dat", "elder.dat", "fir.dat", "gum.dat"];
    let tree = series::named(&bed.dir("data"), &names, 1, 16 * MIB).unwrap();
    cool_all(&tree.files);
    tree.files
}

#[test]
fn a_checksum_of_some_files_warms_none_of_the_others() {
    scenario(384, |bed| {
        let files = siblings(bed);
        bed.limit(200);
        let agent = bed.agent();
        let mut command = Command::new("sha256sum");
        command.args(&files[..4]).stdout(std::process::Stdio::null());
        bed.group.join(&mut command).unwrap();
        let mut checksum = command.spawn().unwrap();
        let pid = checksum.id();
        assert!(checksum.wait().unwrap().success());
        let found = receipt(&agent, pid);
        assert_eq!(found["pattern"], "scanner", "{found:#}");
        assert_eq!(number(&found, "wasted"), 0, "{found:#}");
        for other in &files[4..] {
            assert_eq!(resident_all(other), 0, "{}", other.display());
        }
    });
}

#[test]
fn who_reads_one_model_after_the_other_from_end_to_end_is_a_scanner_from_the_third_on() {
    scenario(512, |bed| {
        let models: Vec<_> = (0..10)
            .map(|index| {
                let tree = gguf::single(&bed.dir(&format!("models/{index}")), "model", index, 16 * MIB).unwrap();
                tree.files[0].clone()
            })
            .collect();
        cool_all(&models);
        bed.limit(200);
        let agent = bed.agent();
        let mut reader = StepReader::start(Some(&bed.group));
        for model in &models {
            reader.open(model);
            reader.read_to_end(MIB);
        }
        let found = receipts(&agent, reader.end(), 10);
        let mut scanned = 0;
        for receipt in &found {
            assert_adds_up(receipt);
            assert_eq!(number(receipt, "wasted"), 0, "{receipt:#}");
            scanned += usize::from(receipt["pattern"] == "scanner");
        }
        assert_eq!(scanned, 8, "{found:#?}");
    });
}

#[test]
fn a_loader_that_prefetches_by_itself_is_left_to_it() {
    scenario(512, |bed| {
        let tree = gguf::single(&bed.dir("models"), "model", 1, 256 * MIB).unwrap();
        cool(&tree.files[0]);
        bed.limit(100);
        let agent = bed.agent();
        let before = bed.device_bytes();
        let mut reader = bed.reader(&tree.files[0]);
        reader.step(&format!("ahead 0 {}", 64 * MIB));
        for ahead in (0..256 * MIB).step_by(8 << 20) {
            reader.step(&format!("ahead {} {}", ahead + 64 * MIB, ahead + 72 * MIB));
            reader.read(8 * MIB, MIB);
        }
        let receipt = receipt(&agent, reader.end());
        assert_adds_up(&receipt);
        assert_eq!(receipt["pattern"], "prefetching", "{receipt:#}");
        assert!(warmed(&receipt) <= 16 * MIB, "{receipt:#}");
        let read = bed.device_bytes() - before;
        assert!(
            read.abs_diff(tree.bytes) <= tree.bytes / 50,
            "{read} bytes from the device"
        );
    });
}

/// Reads 60 records of `bytes` in pieces, here and there; the receipt.
fn shuffled(bed: &Bed, file: &Path, bytes: u64) -> Value {
    cool(file);
    bed.limit(200);
    let agent = bed.agent();
    let mut reader = bed.reader(file);
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..60 {
        let at = random.u64(1..250) * MIB;
        for piece in (0..bytes).step_by(64 << 10) {
            reader.step(&format!("pread {} {}", at + piece, 64 << 10));
        }
    }
    let receipt = receipt(&agent, reader.end());
    assert_adds_up(&receipt);
    // Two steps, and what the requests for them reach beyond.
    assert!(warmed(&receipt) <= 5 * MIB, "{receipt:#}");
    receipt
}

#[test]
fn a_reader_of_shuffled_records_gets_two_steps_at_most() {
    scenario(512, |bed| {
        let tree = series::named(&bed.dir("data"), &["records.bin"], 1, 256 * MIB).unwrap();
        shuffled(bed, &tree.files[0], MIB);
    });
}

#[test]
fn a_reader_that_looks_here_and_there_in_a_model_is_left_alone() {
    scenario(512, |bed| {
        let tree = gguf::single(&bed.dir("models"), "model", 1, 256 * MIB).unwrap();
        let receipt = shuffled(bed, &tree.files[0], 256 << 10);
        let skipped = receipt["skipped"].as_array().unwrap();
        assert!(skipped.iter().any(|reason| reason == "random"), "{receipt:#}");
    });
}

#[test]
fn a_checkpoint_is_read_tail_first_and_helped_from_its_start() {
    scenario(384, |bed| {
        let size = 128 * MIB;
        let tree = series::named(&bed.dir("models"), &["model.pt"], 1, size).unwrap();
        let weights = &tree.files[0];
        let file = File::options().write(true).open(weights).unwrap();
        file.write_all_at(b"PK\x03\x04", 0).unwrap();
        file.sync_all().unwrap();
        drop(file);
        cool(weights);
        bed.limit(100);
        let agent = bed.agent();
        let mut reader = bed.reader(weights);
        // The end of the table, the table, the first record.
        reader.step(&format!("pread {} 65536", size - (64 << 10)));
        reader.step(&format!("pread {} 262144", size - (256 << 10)));
        let here = settled(Duration::from_millis(300), || resident_all(weights));
        assert!(here <= MIB, "a look at the table is no load: {} KiB", here >> 10);
        reader.read_to_end(256 << 10);
        let receipt = receipt(&agent, reader.end());
        assert_adds_up(&receipt);
        assert_eq!(receipt["layout"], "torch-zip", "{receipt:#}");
        assert!(warmed(&receipt) > size / 2, "{receipt:#}");
        assert!(number(&receipt, "wasted") <= 4 * MIB, "{receipt:#}");
    });
}

#[test]
fn the_components_of_a_pipeline_follow_each_other() {
    scenario(384, |bed| {
        let pipeline = bed.dir("pipeline");
        let index = r#"{"_class_name":"P","unet":["diffusers","U"],"text_encoder":["transformers","C"],"vae":["diffusers","V"]}"#;
        std::fs::write(pipeline.join("model_index.json"), index).unwrap();
        let files = ["unet", "text_encoder", "vae"].map(|component| {
            let file = pipeline.join(component).join("model.safetensors");
            safetensors::write(&file, 1, 32 * MIB, component, 4).unwrap();
            cool(&file);
            file
        });
        bed.limit(200);
        let agent = bed.agent();
        let mut reader = bed.reader(&files[0]);
        reader.read_to_end(MIB);
        // In the order of the index, not of the names.
        until("all components are there", || {
            files.iter().all(|file| brought(file, 32 * MIB) >= 32 * MIB)
        });
        for file in &files[1..] {
            reader.open(file);
            reader.read_to_end(MIB);
        }
        let receipt = receipt(&agent, reader.end());
        assert_eq!(
            (&receipt["layout"], &receipt["model"]),
            (&"diffusers".into(), &"pipeline".into())
        );
        assert_eq!(number(&receipt, "wasted"), 0, "{receipt:#}");
    });
}

#[test]
fn chunks_named_by_hashes_have_no_order() {
    scenario(384, |bed| {
        let names = [
            "vllm@m@1@0@0a3f5c7e9b1d2f4a6c8e0b2d4f6a8c0e.pt",
            "vllm@m@1@0@1b4f5c7e9b1d2f4a6c8e0b2d4f6a8c0e.pt",
            "vllm@m@1@0@2c5f5c7e9b1d2f4a6c8e0b2d4f6a8c0e.pt",
            "vllm@m@1@0@3d6f5c7e9b1d2f4a6c8e0b2d4f6a8c0e.pt",
        ];
        let tree = series::named(&bed.dir("chunks"), &names, 1, 8 * MIB).unwrap();
        cool_all(&tree.files);
        bed.limit(200);
        let agent = bed.agent();
        let mut reader = StepReader::start(Some(&bed.group));
        for chunk in &tree.files[..2] {
            reader.open(chunk);
            reader.read_to_end(MIB);
        }
        let others = || tree.files[2..].iter().map(|file| resident_all(file)).sum::<u64>();
        assert_eq!(settled(Duration::from_millis(500), others), 0);
        let pid = reader.end();
        let found = receipts(&agent, pid, 2);
        assert!(found.iter().all(|receipt| receipt["layout"] == "chunks"), "{found:#?}");
        assert_eq!(events(&agent, "receipt").len(), 2);
    });
}
