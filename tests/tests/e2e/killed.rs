//! Never in the data path: without the agent, from one moment to the next, readers read on as before.

use std::{collections::BTreeSet, fs};

use aya::programs::loaded_programs;
use nix::sys::signal::Signal;
use rig::{scratch::ScratchDir, tree::ollama};

use super::{
    bed::{MIB, SOON, base, resident, scenario, until},
    raw::{RawAgent, ask, command},
};

/// The eBPF programs that a process holds.
pub fn programs_of(process: u32) -> BTreeSet<u32> {
    let entries = fs::read_dir(format!("/proc/{process}/fdinfo")).unwrap().flatten();
    let texts = entries.filter_map(|entry| fs::read_to_string(entry.path()).ok());
    let id = |text: String| {
        text.lines()
            .find_map(|line| line.strip_prefix("prog_id:")?.trim().parse().ok())
    };
    texts.filter_map(id).collect()
}

/// Those that the kernel has.
pub fn loaded() -> BTreeSet<u32> {
    loaded_programs()
        .filter_map(|program| Some(program.ok()?.id()))
        .collect()
}

#[test]
fn a_killed_agent_leaves_the_reader_its_bytes_and_nothing_attached() {
    scenario(512, |bed| {
        let tree = ollama::model(&bed.dir("models"), "llama", "8b", 1, 192 * MIB).unwrap();
        let weights = tree.files.last().unwrap();
        let truth = bed.truth(weights);
        bed.limit(100);
        let state = ScratchDir::new(&base()).unwrap();
        let mut start = command(state.path());
        start.arg("--watch").arg(bed.disk.path());
        bed.group.join(&mut start).unwrap();
        let mut agent = RawAgent::start(&mut start);
        let programs = programs_of(agent.pid());
        assert!(programs.len() >= 5 && programs.is_subset(&loaded()), "{programs:?}");

        let mut reader = bed.reader(weights);
        reader.begin(&format!("read {} {MIB}", 1u64 << 40));
        until("a part was warmed", || {
            resident(weights, 64 * MIB, 192 * MIB) >= 8 * MIB
        });
        let status = agent.stop(Signal::SIGKILL, SOON);
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
        assert_eq!(reader.finish().unwrap(), truth);
        reader.end();
        until("its programs are gone", || programs.is_disjoint(&loaded()));

        // Its socket is still there, and nobody behind it.
        assert!(state.path().join("socket").exists());
        assert!(ask(state.path(), "status").is_err());
        let mut next = RawAgent::start(&mut start);
        assert_eq!(ask(state.path(), "status").unwrap()[0]["pid"], next.pid());
        assert!(next.stop(Signal::SIGTERM, SOON).success());
        assert!(!state.path().join("socket").exists());
    });
}
