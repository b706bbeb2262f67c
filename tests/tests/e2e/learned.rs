//! What was learned of a device: known to the next agent.

use rig::{agent::Agent, tree::gguf};

use super::bed::{MIB, binary, cool, number, receipt, scenario, until};

const SIZE: u64 = 256 * MIB;

#[test]
fn what_was_learned_of_a_device_survives_a_restart() {
    scenario(384, |bed| {
        let tree = gguf::single(&bed.dir("models"), "model", 1, SIZE).unwrap();
        let weights = &tree.files[0];
        let state = tempfile::tempdir().unwrap();
        let agent = || bed.start(Agent::new(&binary(), bed.disk.path()).state(state.path()));
        // The window that the first megabytes of a load get.
        let window = || {
            cool(weights);
            let agent = agent();
            let mut reader = bed.reader(weights);
            reader.read(4 * MIB, MIB);
            let mut window = 0;
            until("a window is open", || {
                let status = agent.ask("status").unwrap();
                window = status["loads"][0]["window"].as_u64().unwrap_or_default();
                window > 0
            });
            reader.read_to_end(MIB);
            receipt(&agent, reader.end());
            window
        };
        bed.limit(150);
        let unknown = window();
        assert_eq!(unknown, 128 * MIB, "nothing is known of the device");
        let known = window();
        // Two seconds of 150 MiB a second, as exactly as a load of 1.7 s tells.
        assert!((200 * MIB..=400 * MIB).contains(&known), "{} MiB", known / MIB);
        let kept = std::fs::read_to_string(state.path().join("devices.json")).unwrap();
        let kept: serde_json::Value = serde_json::from_str(&kept).unwrap();
        let devices = kept["devices"].as_object().unwrap();
        assert_eq!(devices.len(), 1, "{kept:#}");
        let (identity, entry) = devices.iter().next().unwrap();
        assert!(identity.starts_with("backing_file "), "{identity}");
        assert!(
            number(entry, "heard") > 0 && entry["rate"].as_f64().unwrap() > 1e8,
            "{entry:#}"
        );
    });
}

#[test]
fn a_dry_run_keeps_nothing() {
    scenario(256, |bed| {
        let tree = gguf::single(&bed.dir("models"), "model", 1, 64 * MIB).unwrap();
        let state = tempfile::tempdir().unwrap();
        let agent = Agent::new(&binary(), bed.disk.path()).state(state.path());
        let agent = bed.start(agent.arg("--dry-run"));
        cool(&tree.files[0]);
        let mut reader = bed.reader(&tree.files[0]);
        reader.read_to_end(MIB);
        receipt(&agent, reader.end());
        drop(agent);
        assert_eq!(std::fs::read_dir(state.path()).unwrap().count(), 0);
    });
}
