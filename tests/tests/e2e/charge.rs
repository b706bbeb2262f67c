//! `--charge consumer`: what is warmed is on the account of whoever it is warmed for.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use rig::{agent::Agent, scratch, sweep, tree::gguf};

use super::{
    bed::{MIB, assert_adds_up, base, binary, cool, held, receipt, resident_all, scenario, until, warmed, within},
    raw::{command, refusal},
};

const SIZE: u64 = 256 * MIB;

/// A memory cgroup; removed on drop.
struct Account(PathBuf);

impl Account {
    fn new(limit: Option<u64>) -> Self {
        let one = Path::new("/sys/fs/cgroup/memory");
        let parent = if one.exists() { one } else { Path::new("/sys/fs/cgroup") };
        let dir = parent.join(scratch::unique_name().unwrap());
        fs::create_dir(&dir).unwrap();
        if let Some(limit) = limit {
            let name = if one.exists() {
                "memory.limit_in_bytes"
            } else {
                "memory.max"
            };
            fs::write(dir.join(name), limit.to_string()).unwrap();
        }
        Self(dir)
    }

    fn add(&self, process: u32) {
        fs::write(self.0.join("cgroup.procs"), process.to_string()).unwrap();
    }

    fn used(&self) -> u64 {
        let names = ["memory.usage_in_bytes", "memory.current"];
        let text = names.iter().find_map(|name| fs::read_to_string(self.0.join(name)).ok());
        text.unwrap().trim().parse().unwrap()
    }

    fn members(&self) -> usize {
        fs::read_to_string(self.0.join("cgroup.procs")).unwrap().lines().count()
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        sweep::end_members(&self.0);
        sweep::remove_group(&self.0);
    }
}

#[test]
fn the_reader_pays_and_the_helper_goes_with_the_load() {
    scenario(384, |bed| {
        let tree = gguf::single(&bed.dir("models"), "model", 1, SIZE).unwrap();
        let weights = &tree.files[0];
        let account = Account::new(None);
        for (who, pays) in [("consumer", true), ("agent", false)] {
            cool(weights);
            bed.limit(100);
            let agent = bed.start(Agent::new(&binary(), bed.disk.path()).arg("--charge").arg(who));
            let mut reader = bed.reader(weights);
            account.add(reader.pid());
            let before = account.used();
            reader.read(8 * MIB, MIB);
            until("it is warmed", || resident_all(weights) >= 100 * MIB);
            let paid = account.used() - before;
            let status = agent.ask("status").unwrap();
            let payer = status["holdings"][0]["charged_to"].as_str().unwrap().to_owned();
            if pays {
                assert!(paid >= 90 * MIB, "{} MiB", paid / MIB);
                assert!(account.0.ends_with(payer.trim_start_matches('/')), "{payer}");
                assert_eq!(account.members(), 2, "the reader and the helper");
            } else {
                assert!(paid <= 20 * MIB, "{} MiB", paid / MIB);
                assert_eq!(account.members(), 1);
            }
            bed.limit(400);
            reader.read_to_end(MIB);
            let receipt = receipt(&agent, reader.end());
            assert_adds_up(&receipt);
            assert!(warmed(&receipt) > SIZE / 2, "{receipt:#}");
            until("nobody is left", || account.members() == 0);
        }
    });
}

#[test]
fn a_reader_with_little_room_is_helped_up_to_its_limit_and_lives() {
    scenario(384, |bed| {
        let tree = gguf::single(&bed.dir("models"), "model", 1, SIZE).unwrap();
        let weights = &tree.files[0];
        let account = Account::new(Some(96 * MIB));
        cool(weights);
        bed.limit(100);
        let agent = bed.start(Agent::new(&binary(), bed.disk.path()).arg("--charge").arg("consumer"));
        let mut reader = bed.reader(weights);
        account.add(reader.pid());
        reader.read_to_end(MIB);
        let receipt = receipt(&agent, reader.end());
        assert_adds_up(&receipt);
        let skipped = receipt["skipped"].as_array().unwrap();
        assert!(skipped.iter().any(|reason| reason == "no-room"), "{receipt:#}");
        // Up to what was left, and not a megabyte more: nothing of it had to go again for it.
        assert!((20 * MIB..=96 * MIB).contains(&warmed(&receipt)), "{receipt:#}");
    });
}

#[test]
fn nobody_else_is_taken_for_a_payer() {
    let state = tempfile::tempdir_in(base()).unwrap();
    let (code, words) = refusal(command(state.path()).args(["--charge", "nobody", "--watch", "/tmp"]));
    assert_eq!(code, Some(2), "{words}");
    assert!(words.contains("consumer") && words.contains("agent"), "{words}");
}

#[test]
fn what_is_unwatched_is_let_go_by_the_helper_too() {
    scenario(384, |bed| {
        let dir = bed.dir("models");
        let weights = gguf::single(&dir, "model", 1, SIZE).unwrap().files.remove(0);
        let account = Account::new(None);
        cool(&weights);
        bed.limit(20);
        let agent = bed.start(Agent::new(&binary(), bed.disk.path()).arg("--charge").arg("consumer"));
        let mut reader = bed.reader(&weights);
        account.add(reader.pid());
        reader.read(8 * MIB, MIB);
        until("it is warmed", || resident_all(&weights) >= 16 * MIB);
        assert_eq!(account.members(), 2, "the reader and the helper");
        agent.tell(&["unwatch", dir.to_str().unwrap()]).unwrap();
        within(Duration::from_secs(1), "the helper has ended", || {
            account.members() == 1
        });
        assert_eq!(held(agent.pid().unwrap(), &dir), 0);
        reader.end();
    });
}
