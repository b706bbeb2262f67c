//! `--pin`: the models that are used most are locked, and let go.

use std::{
    fs::File,
    path::Path,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rig::{
    agent::{Agent, AgentProcess, locked_by},
    scratch::ScratchDir,
    tree::gguf,
};

use super::bed::{Bed, MIB, age, base, binary, held, resident_all, scenario, until, within};

const SIZE: u64 = 64 * MIB;

/// The keeper that holds something, if there is one.
fn keeper(agent: &AgentProcess) -> Option<u32> {
    agent.keeper().map(|(process, _)| process)
}

fn pinned(agent: &AgentProcess) -> u64 {
    agent.ask("status").unwrap()["pinned"].as_u64().unwrap()
}

fn pinning(bed: &Bed) -> AgentProcess {
    bed.start(Agent::new(&binary(), bed.disk.path()).arg("--pin").arg("256MiB"))
}

fn load(bed: &Bed, path: &Path) {
    let mut reader = bed.reader(path);
    reader.read_to_end(MIB);
    reader.end();
}

#[test]
fn a_model_that_was_loaded_is_locked_by_a_process_that_goes_first() {
    scenario(384, |bed| {
        let model = gguf::single(&bed.dir("models"), "model", 1, SIZE)
            .unwrap()
            .files
            .remove(0);
        let agent = pinning(bed);
        assert_eq!(keeper(&agent), None);
        load(bed, &model);
        until("it is locked", || pinned(&agent) >= SIZE);
        let keeper = keeper(&agent).unwrap();
        assert!(locked_by(keeper) >= SIZE);
        let score = std::fs::read_to_string(format!("/proc/{keeper}/oom_score_adj")).unwrap();
        assert_eq!(score.trim(), "1000");
        // A stranger that wants it out of the page cache does not get it out.
        assert!(rig::sys::drop_pages(&File::open(&model).unwrap()).is_err());
        assert!(resident_all(&model) >= model.metadata().unwrap().len());
        let kept = agent.ask("status").unwrap()["kept"][0].clone();
        assert_eq!(kept["model"], "model.gguf", "{kept:#}");
        assert!((0.9..=1.0).contains(&kept["heat"].as_f64().unwrap()), "{kept:#}");
        // The end of the agent is the end of its pins.
        agent.stop().unwrap();
        within(Duration::from_secs(1), "the keeper has ended", || {
            locked_by(keeper) == 0
        });
    });
}

#[test]
fn what_is_unlinked_or_replaced_is_let_go_within_a_second() {
    scenario(512, |bed| {
        let models = bed.dir("models");
        let files: Vec<_> = (1..=3)
            .map(|number| {
                gguf::single(&models, &format!("m{number}"), number, SIZE)
                    .unwrap()
                    .files
                    .remove(0)
            })
            .collect();
        let agent = pinning(bed);
        files.iter().for_each(|file| load(bed, file));
        until("all are locked", || pinned(&agent) >= 3 * SIZE);
        let keeper = keeper(&agent).unwrap();
        std::fs::remove_file(&files[0]).unwrap();
        within(Duration::from_secs(1), "one is let go", || locked_by(keeper) < 3 * SIZE);
        let fresh = bed.dir("elsewhere").join("fresh");
        std::fs::copy(&files[2], &fresh).unwrap();
        age(&fresh);
        std::fs::rename(&fresh, &files[1]).unwrap();
        within(Duration::from_secs(1), "another is let go", || {
            locked_by(keeper) < 2 * SIZE
        });
        let pid = agent.pid().unwrap();
        agent.tell(&["unwatch", models.to_str().unwrap()]).unwrap();
        within(Duration::from_secs(1), "all is let go", || locked_by(keeper) == 0);
        within(Duration::from_secs(1), "nothing is held open", || {
            held(pid, bed.disk.path()) == 0
        });
        assert_eq!(pinned(&agent), 0);
    });
}

#[test]
fn by_hand_it_is_pinned_and_unpinned() {
    scenario(512, |bed| {
        let models = bed.dir("models");
        let file = gguf::single(&models, "one", 1, SIZE).unwrap().files.remove(0);
        let large = gguf::single(&bed.dir("large"), "large", 2, 5 * SIZE)
            .unwrap()
            .files
            .remove(0);
        super::bed::cool_all(&[file.clone(), large.clone()]);
        let agent = pinning(bed);
        let said = agent.tell(&["pin", file.to_str().unwrap()]).unwrap();
        assert!(said.contains("64.0 MiB of 64.0 MiB locked"), "{said}");
        assert!(locked_by(keeper(&agent).unwrap()) >= SIZE);
        let refused = agent.tell(&["pin", large.to_str().unwrap()]).unwrap_err().to_string();
        assert!(refused.contains("no room left"), "{refused}");
        assert!(pinned(&agent) <= 256 * MIB);
        let said = agent.tell(&["unpin", bed.disk.path().to_str().unwrap()]).unwrap();
        assert!(said.contains("let go"), "{said}");
        until("nothing is locked", || pinned(&agent) == 0 && keeper(&agent).is_none());
    });
}

#[test]
fn a_keeper_that_is_killed_is_noticed_and_nothing_else_happens() {
    scenario(384, |bed| {
        let file = gguf::single(&bed.dir("models"), "one", 1, SIZE)
            .unwrap()
            .files
            .remove(0);
        let agent = pinning(bed);
        load(bed, &file);
        until("it is locked", || pinned(&agent) >= SIZE);
        let killed = keeper(&agent).unwrap();
        kill(Pid::from_raw(i32::try_from(killed).unwrap()), Signal::SIGKILL).unwrap();
        until("it is noticed", || pinned(&agent) == 0);
        load(bed, &file);
        let warned = |line: &str| line.contains("for want of memory");
        assert!(agent.wait_for_line(Duration::from_secs(5), warned).is_some());
    });
}

#[test]
fn a_pause_lets_go_of_everything_within_a_second() {
    scenario(384, |bed| {
        let file = gguf::single(&bed.dir("models"), "one", 1, SIZE)
            .unwrap()
            .files
            .remove(0);
        let agent = pinning(bed);
        load(bed, &file);
        until("it is locked", || pinned(&agent) >= SIZE);
        let keeper = keeper(&agent).unwrap();
        let began = Instant::now();
        agent.tell(&["pause"]).unwrap();
        within(Duration::from_secs(1), "all is let go", || locked_by(keeper) == 0);
        assert!(began.elapsed() < Duration::from_secs(2));
        agent.tell(&["resume"]).unwrap();
        until("it is locked again", || pinned(&agent) >= SIZE);
    });
}

#[test]
fn a_live_process_keeps_what_it_has_mapped_from_being_dropped() {
    scenario(384, |bed| {
        let files = gguf::splits(&bed.dir("models"), "model", 1, 2, SIZE).unwrap().files;
        super::bed::cool_all(&files);
        let agent = bed.agent();
        let mut reader = bed.reader(&files[0]);
        reader.step("map");
        reader.step("touch 0 4096");
        agent.tell(&["warm", bed.disk.path().to_str().unwrap()]).unwrap();
        eprintln!(
            "warm {} of {}",
            resident_all(&files[0]),
            files[0].metadata().unwrap().len()
        );
        let said = agent.tell(&["evict", bed.disk.path().to_str().unwrap()]).unwrap();
        assert!(said.contains("mapped by a live process"), "{said}");
        assert!(resident_all(&files[0]) >= files[0].metadata().unwrap().len());
        assert_eq!(resident_all(&files[1]), 0);
        reader.end();
        agent.tell(&["evict", bed.disk.path().to_str().unwrap()]).unwrap();
        assert_eq!(resident_all(&files[0]), 0);
    });
}

#[test]
fn after_a_restart_what_was_used_is_brought_back_and_locked() {
    scenario(384, |bed| {
        let file = gguf::single(&bed.dir("models"), "one", 1, SIZE)
            .unwrap()
            .files
            .remove(0);
        let state = ScratchDir::new(&base()).unwrap();
        let start = |flags: &[&str]| {
            let agent = Agent::new(&binary(), bed.disk.path()).state(state.path());
            bed.start(flags.iter().fold(agent, |agent, flag| agent.arg(*flag)))
        };
        let agent = start(&[]);
        load(bed, &file);
        agent.stop().unwrap();
        super::bed::cool(&file);
        let agent = start(&[]);
        std::thread::sleep(Duration::from_secs(2));
        assert!(resident_all(&file) <= MIB, "nobody has asked for that");
        agent.stop().unwrap();
        let agent = start(&["--rewarm"]);
        until("it is back", || resident_all(&file) >= SIZE);
        agent.stop().unwrap();
        super::bed::cool(&file);
        let agent = start(&["--pin", "256MiB"]);
        until("it is locked", || pinned(&agent) >= SIZE);
    });
}
