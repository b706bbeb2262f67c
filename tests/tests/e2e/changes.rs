//! Files that change under reader and agent: the reader gets what the kernel gives it, and the agent stays sensible.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use rig::{
    agent::{Agent, AgentProcess},
    tree::{gguf, ollama},
};

use super::{
    bed::{Bed, MIB, age, assert_adds_up, binary, cool, number, receipt, receipts, resident, scenario, until, warmed},
    reader::StepReader,
    steps::Done,
};

const SIZE: u64 = 128 * MIB;

/// A model that is being warmed for a reader that has read 8 MiB.
struct Scene {
    root: PathBuf,
    weights: PathBuf,
    agent: AgentProcess,
    reader: StepReader,
    read: Done,
}

impl Scene {
    fn new(bed: &Bed) -> Self {
        let root = bed.dir("models");
        let tree = ollama::model(&root, "llama", "8b", 1, SIZE).unwrap();
        let weights = tree.files.last().unwrap().clone();
        cool(&weights);
        bed.limit(60);
        let agent = bed.start(Agent::new(&binary(), &root));
        let mut reader = bed.reader(&weights);
        let read = reader.read(8 * MIB, MIB);
        until("it is being warmed", || resident(&weights, 12 * MIB, SIZE) >= 4 * MIB);
        bed.limit(400);
        Self {
            root,
            weights,
            agent,
            reader,
            read,
        }
    }

    /// What the reader reads from here to the end, with what it has read before.
    fn read_on(&mut self) -> Done {
        let rest = self.reader.read_to_end(MIB);
        Done {
            bytes: self.read.bytes + rest.bytes,
            checksum: self.read.checksum.wrapping_add(rest.checksum),
        }
    }

    /// The agent is alive, and its first receipt of this reader names one of these reasons; none where there are none.
    fn first_receipt_says(self, reasons: &[&str]) {
        assert!(self.agent.ask("status").is_ok());
        let first = receipts(&self.agent, self.reader.end(), 1).remove(0);
        assert_adds_up(&first);
        let skipped = &first["skipped"][0];
        let is_said = reasons.is_empty() && skipped.is_null() || reasons.iter().any(|reason| skipped == reason);
        assert!(is_said, "{first:#}");
        assert!(self.agent.stop().unwrap().status.success());
    }
}

/// What a file holds now.
fn content(path: &Path) -> Done {
    StepReader::of(path, None).read_to_end(MIB)
}

#[test]
fn a_file_truncated_while_it_is_warmed_ends_where_it_ends() {
    scenario(384, |bed| {
        let mut scene = Scene::new(bed);
        OpenOptions::new()
            .write(true)
            .open(&scene.weights)
            .unwrap()
            .set_len(20 * MIB + 100)
            .unwrap();
        let read = scene.read_on();
        assert_eq!(read.bytes, 20 * MIB + 100);
        assert_eq!(read, content(&scene.weights));
        // A worker may find the end before the catalog hears of it.
        scene.first_receipt_says(&["changed", "unreadable"]);
    });
}

#[test]
fn a_file_truncated_by_its_name_alone_ends_where_it_ends() {
    scenario(384, |bed| {
        let mut scene = Scene::new(bed);
        // Nobody opens it for this: no close tells that it was written to.
        nix::unistd::truncate(&scene.weights, (20 * MIB + 100) as i64).unwrap();
        let read = scene.read_on();
        assert_eq!(read.bytes, 20 * MIB + 100);
        assert_eq!(read, content(&scene.weights));
        assert!(scene.agent.ask("status").is_ok());
        let receipt = receipt(&scene.agent, scene.reader.end());
        assert_adds_up(&receipt);
    });
}

#[test]
fn a_file_that_grows_while_it_is_warmed_is_read_to_its_new_end() {
    scenario(384, |bed| {
        let mut scene = Scene::new(bed);
        let mut file = OpenOptions::new().append(true).open(&scene.weights).unwrap();
        file.write_all(&vec![7; 5_000_000]).unwrap();
        drop(file);
        let read = scene.read_on();
        assert_eq!(read.bytes, scene.weights.metadata().unwrap().len());
        assert_eq!(read, content(&scene.weights));
        scene.first_receipt_says(&["changed"]);
    });
}

#[test]
fn bytes_written_while_they_are_warmed_are_the_bytes_that_are_read() {
    scenario(384, |bed| {
        let mut scene = Scene::new(bed);
        let file = OpenOptions::new().write(true).open(&scene.weights).unwrap();
        for at in (20 * MIB..SIZE - MIB).step_by(3 * MIB as usize + 4096) {
            file.write_all_at(&[9; 10_000], at).unwrap();
        }
        drop(file);
        let read = scene.read_on();
        assert_eq!(read, content(&scene.weights));
        // In place and of the same size: nobody told the agent, and nothing it does depends on it.
        scene.first_receipt_says(&[]);
    });
}

#[test]
fn a_file_replaced_by_rename_is_read_on_by_who_has_it_and_warmed_anew_for_others() {
    scenario(512, |bed| {
        let truth = {
            let tree = ollama::model(&bed.dir("models"), "llama", "8b", 1, SIZE).unwrap();
            bed.truth(tree.files.last().unwrap())
        };
        let mut scene = Scene::new(bed);
        let fresh = bed.dir("elsewhere").join("fresh.gguf");
        gguf::write(&fresh, 2, SIZE, None).unwrap();
        age(&fresh);
        let other = bed.truth(&fresh);
        fs::rename(&fresh, &scene.weights).unwrap();
        assert_eq!(scene.read_on(), truth, "the file that was opened");

        cool(&scene.weights);
        let mut second = bed.reader(&scene.weights);
        assert_eq!(second.read_to_end(MIB), other, "the file that has the name now");
        let receipt = receipt(&scene.agent, second.end());
        assert_adds_up(&receipt);
        assert!(warmed(&receipt) > SIZE / 10, "{receipt:#}");
        scene.first_receipt_says(&["gone"]);
    });
}

#[test]
fn a_root_removed_while_it_is_warmed_is_watched_again_when_it_comes_back() {
    scenario(512, |bed| {
        let truth = {
            let tree = ollama::model(&bed.dir("models"), "llama", "8b", 1, SIZE).unwrap();
            bed.truth(tree.files.last().unwrap())
        };
        let mut scene = Scene::new(bed);
        fs::remove_dir_all(&scene.root).unwrap();
        assert_eq!(scene.read_on(), truth);
        let watched = || number(&scene.agent.ask("status").unwrap(), "watched");
        until("nothing is watched", || watched() == 0);
        let tree = ollama::model(&scene.root, "phi", "3b", 3, SIZE).unwrap();
        let weights = tree.files.last().unwrap();
        age(weights);
        cool(weights);
        // Its manifest is written last: until then its weights are a model by themselves.
        until("the new model is known", || {
            scene.agent.ask("status").unwrap()["models"]["ollama"] == 1
        });
        let mut second = bed.reader(weights);
        second.read_to_end(MIB);
        let receipt = receipt(&scene.agent, second.end());
        assert_eq!(receipt["model"], "phi:3b", "{receipt:#}");
        assert!(warmed(&receipt) > SIZE / 10, "{receipt:#}");
        scene.first_receipt_says(&["gone"]);
    });
}

#[test]
fn a_file_that_is_written_while_it_is_read_does_not_hold_the_writer_up() {
    scenario(384, |bed| {
        let scene = Scene::new(bed);
        let began = std::time::Instant::now();
        let file = File::options().write(true).open(&scene.weights).unwrap();
        file.write_all_at(&[1; 4096], SIZE / 2).unwrap();
        file.sync_all().unwrap();
        assert!(began.elapsed() < std::time::Duration::from_secs(2));
    });
}
