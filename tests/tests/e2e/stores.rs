//! Stores in user space: what is far away, takes its time, or has died.

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use rig::{
    agent::Agent,
    scratch::ScratchDir,
    store::{Store, StoreArgs},
    tree::gguf,
};

use super::{
    bed::{Bed, MIB, assert_adds_up, base, binary, cool, number, receipt, resident_all, scenario, until, warmed},
    reader::StepReader,
};

/// The program that serves stores.
fn server() -> PathBuf {
    binary().with_file_name("nitro-bench")
}

/// A store of what is on the bed's disk.
pub struct Remote {
    pub store: Store,
    _scratch: ScratchDir,
}

impl Remote {
    pub fn new(bed: &Bed, change: impl Fn(&mut StoreArgs)) -> Self {
        let scratch = ScratchDir::new(&base()).unwrap();
        let mut args = StoreArgs {
            source: bed.disk.path().to_owned(),
            mount: scratch.path().join("store"),
            latency: 10.0,
            parallel: 8,
            seek: 0.0,
            rate: 0.0,
            bandwidth: 0.0,
            kind: "nitrostore".into(),
            private: false,
            user: None,
        };
        change(&mut args);
        Self {
            store: Store::start(&server(), &args).unwrap(),
            _scratch: scratch,
        }
    }
}

/// A reader that belongs to no group: a store has no device whose rate could be limited.
fn reader(path: &Path) -> StepReader {
    StepReader::of(path, None)
}

#[test]
fn a_reader_of_a_mapping_is_helped_several_times_over() {
    scenario(256, |bed| {
        let size = 96 * MIB;
        gguf::single(&bed.dir("models"), "model", 1, size).unwrap();
        let remote = Remote::new(bed, |_| {});
        let weights = remote.store.path().join("models/model.gguf");
        let time = |helped: bool| {
            cool(&weights);
            let agent = helped.then(|| Agent::new(&binary(), remote.store.path()).start(None).unwrap());
            let mut reader = reader(&weights);
            reader.step("map");
            let began = Instant::now();
            reader.step(&format!("touch 0 {size}"));
            let took = began.elapsed().as_secs_f64();
            let pid = reader.end();
            if let Some(agent) = agent {
                let receipt = receipt(&agent, pid);
                assert_adds_up(&receipt);
                assert!(warmed(&receipt) > size / 2, "{receipt:#}");
            }
            took
        };
        // By how much, the bench tells; here it is that it is help at all.
        let (alone, helped) = (time(false), time(true));
        assert!(alone > 2.0 * helped, "{alone:.1} s alone, {helped:.1} s with help");
    });
}

#[test]
fn where_reading_costs_money_it_is_only_observed_unless_it_is_wanted() {
    scenario(256, |bed| {
        gguf::single(&bed.dir("models"), "model", 1, 64 * MIB).unwrap();
        let remote = Remote::new(bed, |args| {
            args.kind = "rclone".into();
            args.latency = 1.0;
        });
        let weights = remote.store.path().join("models/model.gguf");
        let load = |agent: Agent| {
            cool(&weights);
            let agent = agent.start(None).unwrap();
            // The scan has read nothing of it.
            assert_eq!(resident_all(&weights), 0);
            let mut reader = reader(&weights);
            reader.read_to_end(MIB);
            let receipt = receipt(&agent, reader.end());
            assert_adds_up(&receipt);
            receipt
        };
        let observed = load(Agent::new(&binary(), remote.store.path()));
        assert_eq!(warmed(&observed), 0, "{observed:#}");
        assert_eq!(observed["skipped"][0], "observe-only", "{observed:#}");
        assert_eq!(number(&observed, "demanded") >> 20, 64);
        let fetched = Agent::new(&binary(), remote.store.path());
        let fetched = load(fetched.arg("--fetch").arg(remote.store.path()));
        assert!(warmed(&fetched) > 16 * MIB, "{fetched:#}");
    });
}

#[test]
fn a_store_that_stalls_holds_up_no_other_load() {
    scenario(512, |bed| {
        gguf::single(&bed.dir("far"), "far", 1, 64 * MIB).unwrap();
        let near = gguf::single(&bed.dir("near"), "near", 2, 256 * MIB).unwrap();
        let near = &near.files[0];
        let remote = Remote::new(bed, |_| {});
        let far = remote.store.path().join("far/far.gguf");
        cool(&far);
        cool(near);
        bed.limit(200);
        let agent = Agent::new(&binary(), &bed.dir("near"));
        let agent = bed.start(agent.arg("--watch").arg(remote.store.path()));
        let mut far_reader = reader(&far);
        far_reader.read(8 * MIB, MIB);
        until("the far one is helped", || resident_all(&far) >= 12 * MIB);
        remote.store.stall();
        let mut near_reader = bed.reader(near);
        near_reader.read_to_end(MIB);
        let receipt = receipt(&agent, near_reader.end());
        assert_adds_up(&receipt);
        assert!(warmed(&receipt) > 128 * MIB, "{receipt:#}");
        assert_eq!(agent.ask("status").unwrap()["loads"].as_array().unwrap().len(), 1);
        remote.store.go_on();
        far_reader.read_to_end(MIB);
        let receipt = super::bed::receipt(&agent, far_reader.end());
        assert!(warmed(&receipt) > 16 * MIB, "{receipt:#}");
        // With the store dead again, it still stops at once.
        remote.store.stall();
        assert!(agent.stop().unwrap().status.success());
    });
}

#[test]
fn what_another_client_has_changed_on_the_server_is_seen_when_it_is_opened() {
    scenario(384, |bed| {
        let source = bed.dir("models").join("model.gguf");
        gguf::write(&source, 1, 48 * MIB, None).unwrap();
        let next = bed.dir("aside").join("next.gguf");
        gguf::write(&next, 2, 96 * MIB, None).unwrap();
        let remote = Remote::new(bed, |args| args.latency = 1.0);
        let weights = remote.store.path().join("models/model.gguf");
        cool(&weights);
        let agent = Agent::new(&binary(), remote.store.path()).start(None).unwrap();
        let load = |size: u64| {
            let truth = StepReader::of(&source, None).read_to_end(MIB);
            let mut reader = reader(&weights);
            assert_eq!(reader.read_to_end(MIB), truth);
            let receipt = receipt(&agent, reader.end());
            assert_adds_up(&receipt);
            // The access that told of the change belonged to the file as it was.
            assert!(number(&receipt, "demanded") >> 20 >= size - 4, "{receipt:#}");
            assert!(warmed(&receipt) > size * MIB / 2, "{receipt:#}");
        };
        load(48);
        // No event tells of it here.
        std::fs::rename(&next, &source).unwrap();
        let size = source.metadata().unwrap().len();
        until("the kernel has heard of it", || {
            weights.metadata().unwrap().len() == size
        });
        load(96);
    });
}
