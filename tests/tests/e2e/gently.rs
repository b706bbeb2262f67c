//! What is brought in before anybody reads it: without a rest for its own requests, and behind what others use.

use std::os::unix::fs::FileExt;

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use rig::{agent::Agent, limit::IoLimit, tree::gguf};
use serde_json::Value;

use super::{
    bed::{MIB, binary, cool, resident_all, scenario},
    trace::Recording,
};

const SIZE: u64 = 64 * MIB;
const STEP: u64 = 2 * MIB;

#[test]
fn a_model_that_is_there_in_part_is_brought_in_without_a_rest() {
    scenario(384, |bed| {
        let path = gguf::single(&bed.dir("models"), "model", 1, SIZE)
            .unwrap()
            .files
            .remove(0);
        cool(&path);
        // The end of each step is there: whoever waits for that alone is done before the device is.
        let file = std::fs::File::open(&path).unwrap();
        posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_RANDOM).unwrap();
        for end in (STEP..SIZE).step_by(STEP as usize) {
            file.read_exact_at(&mut [0; 64 << 10], end - (64 << 10)).unwrap();
        }
        assert!(resident_all(&path) < SIZE / 8);
        bed.limit(200);
        let agent = bed.start(Agent::new(&binary(), bed.disk.path()));
        let out = bed.dir("out").join("warm.trace");
        let recording = Recording::start(Some(agent.socket()), &out, &[]);
        agent.tell(&["warm", path.to_str().unwrap()]).unwrap();
        recording.stop();
        let out = out.to_str().unwrap();
        let lines = rig_says(&["trace", "export", out, "--format", "jsonl"]);
        let warmed: Vec<Value> = lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .filter(|line: &Value| line["event"] == "warmed")
            .collect();
        let yielded = warmed.iter().filter(|line| line["detail"]["end"] == "Yielded").count();
        assert!(warmed.len() as u64 >= SIZE / STEP, "{warmed:#?}");
        // The file system's own metadata may be somebody else's once.
        assert!(yielded <= 2, "{yielded} of {}: {warmed:#?}", warmed.len());
    });
}

#[test]
fn what_is_warmed_for_nobody_is_not_among_what_is_used_often() {
    scenario(384, |bed| {
        let path = gguf::single(&bed.dir("models"), "model", 1, 2 * SIZE)
            .unwrap()
            .files
            .remove(0);
        cool(&path);
        let group = IoLimit::with_memory(1024 * MIB).unwrap();
        let agent = Agent::new(&binary(), bed.disk.path()).start(Some(&group)).unwrap();
        let before = group.memory().unwrap().used_often().unwrap();
        agent.tell(&["warm", path.to_str().unwrap()]).unwrap();
        assert!(resident_all(&path) >= 2 * SIZE);
        let after = group.memory().unwrap().used_often().unwrap();
        assert!(after.saturating_sub(before) < SIZE, "{} MiB", (after - before) / MIB);
        agent.stop().unwrap();
    });
}

fn rig_says(words: &[&str]) -> String {
    let output = std::process::Command::new(binary()).args(words).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
