//! Stores in user space: what is far away, takes its time, or has died.

use std::{path::PathBuf, time::Instant};

use rig::{
    agent::Agent,
    scratch::ScratchDir,
    store::{Store, StoreArgs},
    tree::gguf,
};

use super::bed::{Bed, MIB, assert_adds_up, base, binary, cool, receipt, scenario, warmed};

/// The program that serves stores.
fn server() -> PathBuf {
    binary().with_file_name("nitro-bench")
}

/// A store of what is on the bed's disk.
struct Remote {
    store: Store,
    _scratch: ScratchDir,
}

impl Remote {
    fn new(bed: &Bed, change: impl Fn(&mut StoreArgs)) -> Self {
        let scratch = ScratchDir::new(&base()).unwrap();
        let mut args = StoreArgs {
            source: bed.disk.path().to_owned(),
            mount: scratch.path().join("store"),
            latency: 10.0,
            parallel: 8,
            seek: 0.0,
            rate: 0.0,
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
            let mut reader = super::reader::StepReader::of(&weights, None);
            let began = Instant::now();
            reader.step("map");
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
        let (alone, helped) = (time(false), time(true));
        eprintln!("{alone} {helped}");
        assert!(alone > 4.0 * helped, "{alone:.1} s alone, {helped:.1} s with help");
    });
}
