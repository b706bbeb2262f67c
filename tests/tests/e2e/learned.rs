//! What was learned: known to the next agent, whatever happens to the one before and to its state directory.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use nitro_user::{
    engine::learn::row::Row,
    state::store::{Opened, Store},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rig::{
    agent::{Agent, AgentProcess},
    tree::gguf,
};

use super::bed::{Bed, MIB, binary, cool, receipt, scenario, until};

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
        assert_eq!(names(state.path()), ["state.db"]);
        let Opened { rows, troubles, .. } = Store::open(state.path()).unwrap();
        assert!(troubles.is_empty(), "{troubles:?}");
        let is_model = |row: &Row| matches!(row, Row::Model { path, .. } if path == weights);
        let is_heat = |row: &Row| matches!(row, Row::Heat { heat, asked: false, .. } if (1.9..=2.0).contains(heat));
        let is_order = |row: &Row| matches!(row, Row::Order(order) if order.runs.len() == 1);
        assert!(rows.iter().any(is_model), "{rows:#?}");
        assert!(rows.iter().any(is_heat), "{rows:#?}");
        assert!(rows.iter().any(is_order), "{rows:#?}");
        assert!(rows.iter().any(|row| matches!(row, Row::Successor(_))), "{rows:#?}");
        let device = rows.iter().find_map(|row| match row {
            Row::Device {
                identity,
                knowledge,
                at,
            } => Some((identity, knowledge, at)),
            _ => None,
        });
        let (identity, knowledge, at) = device.expect("what is known of the device");
        assert!(identity.starts_with("backing_file "), "{identity}");
        assert!(*at > 0 && knowledge.rate.unwrap().0 > 1e8, "{knowledge:?}");
    });
}

/// Names in a directory.
fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Has a load of a cold file of [`SIZE`], which takes long enough to tell something of the device.
fn load(bed: &Bed, agent: &AgentProcess, weights: &Path) {
    bed.limit(150);
    cool(weights);
    let mut reader = bed.reader(weights);
    reader.read(4 * MIB, MIB);
    reader.read_to_end(MIB);
    receipt(agent, reader.end());
}

/// Devices that a state directory knows, whoever has it.
fn devices(state: &Path) -> usize {
    let opened = Store::open(state).unwrap();
    let is_device = |row: &&Row| matches!(row, Row::Device { .. });
    opened.rows.iter().filter(is_device).count()
}

#[test]
fn a_killed_agent_has_kept_what_it_learned_and_kept_it_confined() {
    scenario(384, |bed| {
        let tree = gguf::single(&bed.dir("models"), "model", 1, SIZE).unwrap();
        let state = tempfile::tempdir().unwrap();
        let agent = || bed.start(Agent::new(&binary(), bed.disk.path()).state(state.path()));
        let first = agent();
        load(bed, &first, &tree.files[0]);
        until("what was learned is on disk", || {
            state.path().join("state.db").exists() && devices(state.path()) == 1
        });
        let process = first.pid().unwrap();
        let writer = fs::read_dir(format!("/proc/{process}/task"))
            .unwrap()
            .flatten()
            .find(|task| fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.trim() == "nitro-state"));
        let status = fs::read_to_string(writer.unwrap().path().join("status")).unwrap();
        assert!(status.contains("Seccomp:\t2"), "{status}");
        kill(Pid::from_raw(process as i32), Signal::SIGKILL).unwrap();
        drop(first);
        let second = agent();
        assert!(warnings(&second).is_empty(), "{:?}", warnings(&second));
        assert!(second.stop().unwrap().status.success());
        assert_eq!(
            (devices(state.path()), names(state.path())),
            (1, vec!["state.db".to_owned()])
        );
    });
}

/// What an agent has warned of its state.
fn warnings(agent: &AgentProcess) -> Vec<String> {
    let lines = agent.lines().into_iter();
    lines
        .filter(|line| line.contains("WARN") && line.contains("learn"))
        .collect()
}

#[test]
fn a_state_that_is_damaged_is_put_aside_with_one_warning() {
    scenario(384, |bed| {
        let tree = gguf::single(&bed.dir("models"), "model", 1, SIZE).unwrap();
        let state = tempfile::tempdir().unwrap();
        let database = state.path().join("state.db");
        fs::write(&database, vec![0xa5; 100_000]).unwrap();
        let agent = bed.start(Agent::new(&binary(), bed.disk.path()).state(state.path()));
        let warnings = warnings(&agent);
        assert!(
            matches!(&warnings[..], [one] if one.contains("state.db.old") && one.contains("anew")),
            "{warnings:?}"
        );
        load(bed, &agent, &tree.files[0]);
        assert!(agent.stop().unwrap().status.success());
        assert_eq!(
            fs::read(state.path().join("state.db.old")).unwrap(),
            vec![0xa5; 100_000]
        );
        assert_eq!(devices(state.path()), 1);
    });
}

#[test]
fn a_directory_of_somebody_else_s_and_one_of_a_service_s_user_are_written_to() {
    const NOBODY: u32 = 65534;
    scenario(384, |bed| {
        let tree = gguf::single(&bed.dir("models"), "model", 1, SIZE).unwrap();
        for service in [false, true] {
            let state = tempfile::tempdir().unwrap();
            std::os::unix::fs::chown(state.path(), Some(NOBODY), Some(NOBODY)).unwrap();
            let agent = || {
                let agent = Agent::new(&binary(), bed.disk.path()).state(state.path());
                bed.start(if service { agent.as_service(NOBODY) } else { agent })
            };
            let first = agent();
            load(bed, &first, &tree.files[0]);
            assert!(first.stop().unwrap().status.success());
            let mode = state.path().join("state.db").metadata().unwrap().permissions().mode();
            assert_eq!(
                (mode & 0o777, names(state.path()).len()),
                (0o600, 1),
                "service: {service}"
            );
            let second = agent();
            assert!(warnings(&second).is_empty(), "{:?}", warnings(&second));
        }
    });
}

#[test]
fn of_two_agents_with_one_directory_the_second_keeps_nothing_and_says_so() {
    scenario(384, |bed| {
        let tree = gguf::single(&bed.dir("models"), "model", 1, SIZE).unwrap();
        let state = tempfile::tempdir().unwrap();
        // Each has a socket of its own.
        let agent = || bed.start(Agent::new(&binary(), bed.disk.path()).state(state.path()));
        let (first, second) = (agent(), agent());
        let warnings = [warnings(&first), warnings(&second)];
        assert!(
            matches!(&warnings, [first, second] if first.is_empty() && second.len() == 1 && second[0].contains("another agent")),
            "{warnings:?}"
        );
        assert!(second.stop().unwrap().status.success());
        load(bed, &first, &tree.files[0]);
        assert!(first.stop().unwrap().status.success());
        assert_eq!(devices(state.path()), 1, "what the first one learned");
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
