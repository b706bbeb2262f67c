//! A reader past the page cache: nothing is warmed for it.

use std::time::Duration;

use rig::{agent::Agent, tracefs::Tracefs, tree::ollama};

use super::{
    bed::{MIB, binary, cool, happenings, resident_all, scenario, settled, within},
    counters::at_rest,
    reader::StepReader,
};

#[test]
fn nothing_is_warmed_for_a_direct_reader() {
    scenario(384, |bed| {
        let tree = ollama::model(&bed.dir("models"), "llama", "8b", 1, 128 * MIB).unwrap();
        let weights = tree.files.last().unwrap();
        let truth = bed.truth(weights);
        // The syscalls mode needs it, and says so where it is missing.
        let _tracefs = Tracefs::mounted().unwrap();
        for mode in ["page-cache", "syscalls", "fanotify"] {
            let agent = bed.start(Agent::new(&binary(), bed.disk.path()).arg("--events").arg(mode));
            let mut reader = StepReader::start(Some(&bed.group));
            reader.open_direct(weights);
            let read = reader.read_to_end(MIB);
            assert_eq!(read, truth, "{mode}");
            at_rest(&agent);
            let here = settled(Duration::from_millis(300), || resident_all(weights));
            // Where opens are seen, the agent looks at the header.
            assert!(here <= MIB, "{mode}: {} KiB", here >> 10);
            let pid = reader.end();
            let told = happenings(&agent, pid);
            assert!(told.iter().all(|(what, _)| what != "WARM"), "{mode}: {told:?}");
            assert!(agent.stop().unwrap().status.success());
        }
    });
}

#[test]
fn a_window_that_was_opened_on_a_command_line_closes_on_direct_io() {
    scenario(384, |bed| {
        let tree = ollama::model(&bed.dir("models"), "llama", "8b", 1, 256 * MIB).unwrap();
        let weights = tree.files.last().unwrap();
        cool(weights);
        bed.limit(40);
        let agent = bed.agent();
        let mut runner = StepReader::announced(weights, Some(&bed.group));
        runner.open_direct(weights);
        runner.read(4 * MIB, MIB);
        let told = || happenings(&agent, runner.pid());
        within(Duration::from_secs(2), "it is left alone", || {
            told()
                .iter()
                .any(|(what, note)| what == "SKIP" && note.contains("O_DIRECT"))
        });
        let here = settled(Duration::from_millis(500), || resident_all(weights));
        assert!(here < 64 * MIB, "{} MiB", here / MIB);
        let load = &agent.ask("status").unwrap()["loads"][0];
        assert_eq!(load["stage"], "skipped", "{load:#}");
        assert_eq!(load["window"], 0, "{load:#}");
    });
}
