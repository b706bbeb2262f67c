//! Other file systems than ext4: as good where the page cache is theirs, harmless where it is not.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
};

use nix::mount::{MsFlags, mount};
use rig::{
    agent::Agent,
    disk::Format,
    scratch::ScratchDir,
    sweep,
    tree::{gguf, ollama},
};

use super::{
    bed::{
        Bed, MIB, assert_adds_up, base, binary, brought_in, cool, events, happenings, number, receipt, resident,
        scenario, scenario_on, settled, warmed, within,
    },
    counters::at_rest,
    reader::StepReader,
};

const SIZE: u64 = 96 * MIB;

fn a_model_is_warmed(bed: &Bed) {
    let tree = ollama::model(&bed.dir("models"), "llama", "8b", 1, SIZE).unwrap();
    let weights = tree.files.last().unwrap();
    let truth = bed.truth(weights);
    bed.limit(200);
    let agent = bed.agent();
    let before = bed.device_bytes();
    let mut reader = bed.reader(weights);
    let first = reader.read(16 * MIB, MIB);
    within(std::time::Duration::from_secs(5), "32 MiB ahead of the reader", || {
        resident(weights, 16 * MIB, 48 * MIB) >= 31 * MIB
    });
    let rest = reader.read_to_end(MIB);
    assert_eq!(first.checksum.wrapping_add(rest.checksum), truth.checksum);
    let receipt = receipt(&agent, reader.end());
    assert_adds_up(&receipt);
    let device = settled(std::time::Duration::from_millis(300), || bed.device_bytes()) - before;
    // Metadata and checksums of its own come on top.
    assert!(
        brought_in(&receipt).abs_diff(device) <= SIZE / 20,
        "{device} of the device: {receipt:#}"
    );
    assert!(number(&receipt, "warmed_in_time") >= 30 * MIB, "{receipt:#}");
}

#[test]
fn a_model_on_xfs_is_warmed() {
    scenario_on(Format::Xfs, 512, a_model_is_warmed);
}

#[test]
fn a_model_on_btrfs_is_warmed() {
    scenario_on(Format::Btrfs, 512, a_model_is_warmed);
}

fn btrfs(words: &[&str], paths: &[&Path]) {
    let done = Command::new("btrfs").args(words).args(paths).output().unwrap();
    assert!(
        done.status.success(),
        "{words:?}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
}

#[test]
fn a_file_of_another_subvolume_with_the_same_number_is_not_taken_for_the_model() {
    scenario_on(Format::Btrfs, 512, |bed| {
        let [models, others] = ["models", "others"].map(|name| bed.disk.path().join(name));
        let mut files = Vec::new();
        for (seed, subvolume) in [(1, &models), (2, &others)] {
            btrfs(&["subvolume", "create"], &[subvolume]);
            let path = subvolume.join("m.gguf");
            gguf::write(&path, seed, SIZE, None).unwrap();
            // Each in a transaction of its own: that is what generations count.
            btrfs(&["filesystem", "sync"], &[bed.disk.path()]);
            cool(&path);
            files.push(path);
        }
        let inodes: Vec<u64> = files.iter().map(|path| path.metadata().unwrap().ino()).collect();
        assert_eq!(inodes[0], inodes[1], "numbers begin anew in each subvolume");
        bed.limit(200);
        let agent = bed.start(Agent::new(&binary(), &models));
        for (path, is_ours) in [(&files[1], false), (&files[0], true), (&files[1], false)] {
            cool(path);
            let truth = bed.truth(path);
            let mut reader = bed.reader(path);
            assert_eq!(reader.read_to_end(MIB), truth);
            let pid = reader.end();
            at_rest(&agent);
            let told = happenings(&agent, pid);
            assert_eq!(!told.is_empty(), is_ours, "{path:?}: {told:?}");
        }
        assert!(agent.stop().unwrap().status.success());
    });
}

#[test]
fn a_snapshots_file_is_told_from_the_original_by_what_its_reader_has_open() {
    scenario_on(Format::Btrfs, 512, |bed| {
        let [models, others] = ["models", "others"].map(|name| bed.disk.path().join(name));
        btrfs(&["subvolume", "create"], &[&models]);
        let tree = ollama::model(&models, "llama", "8b", 1, SIZE).unwrap();
        let original = tree.files.last().unwrap();
        btrfs(&["subvolume", "snapshot"], &[&models, &others]);
        let copy = others.join(original.strip_prefix(&models).unwrap());
        assert_eq!(original.metadata().unwrap().ino(), copy.metadata().unwrap().ino());
        let truth = bed.truth(original);
        cool(original);
        bed.limit(200);
        let agent = bed.start(Agent::new(&binary(), &models));
        for (path, is_mapped) in [(&copy, false), (original, false), (&copy, true), (original, true)] {
            cool(original);
            cool(&copy);
            let mut reader = bed.reader(path);
            if is_mapped {
                reader.step("map");
                reader.step("unopen");
                reader.step(&format!("touch 0 {SIZE}"));
            } else {
                assert_eq!(reader.read_to_end(MIB).checksum, truth.checksum);
            }
            let receipt = receipt(&agent, reader.end());
            assert_adds_up(&receipt);
            let skipped = receipt["skipped"].to_string();
            if path == original {
                assert!(warmed(&receipt) > SIZE / 4 && skipped == "[]", "{receipt:#}");
            } else {
                assert!(warmed(&receipt) == 0 && skipped == "[\"namesake\"]", "{receipt:#}");
                // Its header was looked at.
                assert_eq!(resident(original, MIB, SIZE), 0);
            }
        }
        assert!(agent.stop().unwrap().status.success());
    });
}

/// Something mounted; unmounted on drop.
struct Mounted(PathBuf);

impl Mounted {
    fn new(kind: &str, place: &Path, options: Option<&str>) -> Self {
        fs::create_dir_all(place).unwrap();
        mount(Some(kind), place, Some(kind), MsFlags::empty(), options).unwrap();
        Self(place.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        sweep::unmount(&self.0);
    }
}

#[test]
fn on_tmpfs_there_is_nothing_to_warm_and_no_harm() {
    scenario(64, |bed| {
        let scratch = ScratchDir::new(&base()).unwrap();
        let memory = Mounted::new("tmpfs", &scratch.path().join("memory"), Some("size=256m"));
        let path = memory.0.join("m.gguf");
        gguf::write(&path, 1, SIZE, None).unwrap();
        let truth = StepReader::of(&path, None).read_to_end(MIB);
        let agent = bed.start(Agent::new(&binary(), &memory.0));
        let mut reader = bed.reader(&path);
        assert_eq!(reader.read_to_end(MIB), truth);
        reader.end();
        let status = at_rest(&agent);
        assert_eq!(number(&status, "held"), 0, "{status:#}");
        let receipts = events(&agent, "receipt");
        assert!(receipts.iter().all(|receipt| warmed(receipt) == 0), "{receipts:#?}");
        assert!(agent.stop().unwrap().status.success());
    });
}

/// A model below, nothing above it, and both as one directory.
fn overlay(bed: &Bed) -> (Mounted, PathBuf, PathBuf) {
    let (lower, upper, work) = (bed.dir("lower"), bed.dir("upper"), bed.dir("work"));
    let tree = ollama::model(&lower, "llama", "8b", 1, SIZE).unwrap();
    let below = tree.files.last().unwrap().clone();
    cool(&below);
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        lower.display(),
        upper.display(),
        work.display()
    );
    let merged = Mounted::new("overlay", &bed.disk.path().join("merged"), Some(&options));
    let above = merged.0.join(below.strip_prefix(&lower).unwrap());
    (merged, below, above)
}

/// A load of `above` by an agent that watches the overlay.
fn is_warmed_through(bed: &Bed, merged: &Mounted, above: &Path, truth: u64) {
    let agent = bed.start(Agent::new(&binary(), &merged.0));
    let mut reader = bed.reader(above);
    assert_eq!(reader.read_to_end(MIB).checksum, truth);
    let receipt = receipt(&agent, reader.end());
    assert_adds_up(&receipt);
    assert!(warmed(&receipt) > SIZE / 4, "{receipt:#}");
    assert_eq!(receipt["model"], "llama:8b", "{receipt:#}");
    assert!(agent.stop().unwrap().status.success());
}

#[test]
fn a_watched_overlay_is_followed_in_its_layers() {
    scenario(384, |bed| {
        let (merged, below, above) = overlay(bed);
        let truth = bed.truth(&below).checksum;
        bed.limit(200);
        is_warmed_through(bed, &merged, &above, truth);
        // What an image held is opened for writing: from now on the file of the upper layer is read.
        cool(&below);
        fs::OpenOptions::new().append(true).open(&above).unwrap();
        let upper = bed
            .disk
            .path()
            .join("upper")
            .join(above.strip_prefix(&merged.0).unwrap());
        assert_eq!(upper.metadata().unwrap().len(), below.metadata().unwrap().len());
        fs::File::open(&upper).unwrap().sync_all().unwrap();
        cool(&upper);
        is_warmed_through(bed, &merged, &above, truth);
        drop(merged);
    });
}

#[test]
fn an_overlay_whose_layers_are_out_of_reach_is_read_as_ever_and_its_loads_are_not_seen() {
    scenario(384, |bed| {
        let (merged, below, above) = overlay(bed);
        let truth = bed.truth(&below);
        bed.limit(200);
        // The names that the mount knows its layers by lead nowhere.
        for layer in ["lower", "upper"] {
            let path = bed.disk.path().join(layer);
            fs::rename(&path, path.with_extension("moved")).unwrap();
        }
        let agent = bed.start(Agent::new(&binary(), &merged.0));
        let mut reader = bed.reader(&above);
        assert_eq!(reader.read_to_end(MIB), truth);
        let pid = reader.end();
        at_rest(&agent);
        assert_eq!(happenings(&agent, pid), []);
        let end = agent.stop().unwrap();
        assert!(end.status.success());
        let said = end.lines.join("\n");
        assert!(
            said.contains("is on an overlay whose layers cannot be reached"),
            "{said}"
        );
        drop(merged);
    });
}

#[test]
fn a_load_through_an_overlay_is_warmed_where_its_layer_is_watched() {
    scenario(384, |bed| {
        let (merged, below, above) = overlay(bed);
        let truth = bed.truth(&below);
        bed.limit(200);
        let agent = bed.start(Agent::new(&binary(), &bed.disk.path().join("lower")));
        let mut reader = bed.reader(&above);
        assert_eq!(reader.read_to_end(MIB), truth);
        let receipt = receipt(&agent, reader.end());
        assert_adds_up(&receipt);
        assert!(warmed(&receipt) > SIZE / 4, "{receipt:#}");
        drop(agent);
        drop(merged);
    });
}
