//! `nitro-agent unwatch`.

use std::{fs, time::Duration};

use nix::mount::{MntFlags, umount2};
use rig::{agent::AgentProcess, tree::gguf};
use serde_json::json;

use super::bed::{
    Bed, MIB, assert_adds_up, cool, cool_all, held, number, receipt, resident_all, scenario, settled, until, within,
};

const SIZE: u64 = 128 * MIB;
const A_SECOND: Duration = Duration::from_secs(1);

fn watched(agent: &AgentProcess) -> u64 {
    number(&agent.ask("status").unwrap(), "watched")
}

/// Bytes of a file that are there when one who reads 16 MiB of it has come to rest.
fn read_a_little(bed: &Bed, path: &std::path::Path) -> u64 {
    let mut reader = bed.reader(path);
    for _ in 0..16 {
        reader.read(MIB, MIB);
        std::thread::sleep(Duration::from_millis(10));
    }
    let here = settled(Duration::from_millis(500), || resident_all(path));
    reader.end();
    here
}

#[test]
fn a_directory_is_let_go_within_a_second_and_its_sibling_is_helped() {
    scenario(768, |bed| {
        let (one, other) = (bed.dir("one"), bed.dir("other"));
        let files: Vec<_> = [(&one, "a"), (&one, "b"), (&other, "c")]
            .iter()
            .map(|(dir, name)| gguf::single(dir, name, 1, SIZE).unwrap().files.remove(0))
            .collect();
        cool_all(&files);
        bed.limit(20);
        let agent = bed.agent();
        let pid = agent.pid().unwrap();
        let mut reader = bed.reader(&files[0]);
        reader.read(8 * MIB, MIB);
        until("it is warmed", || resident_all(&files[0]) >= 16 * MIB);
        assert!(held(pid, &one) > 0);

        let said = agent.tell(&["unwatch", one.to_str().unwrap()]).unwrap();
        assert_eq!(
            said,
            format!("no longer watched: {} (256 MiB in 2 files)", one.display())
        );
        within(A_SECOND, "everything is closed", || held(pid, &one) == 0);
        let read = bed.device_bytes();
        std::thread::sleep(Duration::from_millis(500));
        assert_eq!(bed.device_bytes(), read, "nothing is read");
        let status = agent.ask("status").unwrap();
        assert_eq!(status["unwatched"], json!([one]), "{status:#}");
        assert_eq!(status["roots"], json!([bed.disk.path()]), "{status:#}");
        assert_eq!(number(&status, "watched"), 1);
        assert_eq!(number(&status["directories"][0], "models"), 1, "{status:#}");

        bed.limit(200);
        // The kernel's own readahead goes a little beyond.
        let before = resident_all(&files[0]);
        reader.read(8 * MIB, MIB);
        let here = settled(Duration::from_millis(500), || resident_all(&files[0]));
        assert!(here <= before.max(16 * MIB) + 2 * MIB, "{} MiB", here / MIB);
        let receipt = receipt(&agent, reader.end());
        assert_adds_up(&receipt);
        assert_eq!(receipt["skipped"][0], "gone", "{receipt:#}");
        let here = read_a_little(bed, &files[1]);
        assert!(here <= 18 * MIB, "{} MiB", here / MIB);
        let here = read_a_little(bed, &files[2]);
        assert!(here >= 32 * MIB, "{} MiB", here / MIB);

        // What comes there later is not taken up.
        gguf::single(&one, "d", 2, SIZE).unwrap();
        gguf::single(&other, "e", 2, SIZE).unwrap();
        until("the new one beside it is watched", || watched(&agent) == 2);
    });
}

#[test]
fn a_whole_root_is_let_go_and_its_disk_can_be_unmounted_at_once() {
    scenario(512, |bed| {
        let weights = gguf::single(&bed.dir("models"), "model", 1, SIZE)
            .unwrap()
            .files
            .remove(0);
        cool(&weights);
        bed.limit(20);
        let agent = bed.agent();
        let mut reader = bed.reader(&weights);
        reader.read(8 * MIB, MIB);
        until("it is warmed", || resident_all(&weights) >= 16 * MIB);
        let root = bed.disk.path();
        let said = agent.tell(&["unwatch", root.to_str().unwrap()]).unwrap();
        assert_eq!(
            said,
            format!("no longer watched: {} (128 MiB in 1 file)", root.display())
        );
        within(A_SECOND, "everything is closed", || {
            held(agent.pid().unwrap(), root) == 0
        });
        reader.end();
        umount2(root, MntFlags::empty()).unwrap();
        let status = agent.ask("status").unwrap();
        assert_eq!(status["roots"], json!([]), "{status:#}");
        assert_eq!((number(&status, "watched"), number(&status, "files")), (0, 0));
        // Whatever appears there, it stays away.
        fs::write(root.join("model.gguf"), vec![1; 2 << 20]).unwrap();
        let refused = agent
            .tell(&["unwatch", root.to_str().unwrap()])
            .unwrap_err()
            .to_string();
        assert!(
            refused.contains("nothing at") && refused.contains("status"),
            "{refused}"
        );
        assert_eq!(watched(&agent), 0);
        assert!(agent.stop().unwrap().status.success());
    });
}

#[test]
fn a_file_with_another_name_elsewhere_is_read_under_that_name_alone() {
    scenario(512, |bed| {
        let (one, other) = (bed.dir("one"), bed.dir("other"));
        let weights = gguf::single(&one, "model", 1, SIZE).unwrap().files.remove(0);
        fs::hard_link(&weights, other.join("same.gguf")).unwrap();
        cool(&weights);
        bed.limit(20);
        let agent = bed.agent();
        let pid = agent.pid().unwrap();
        let mut reader = bed.reader(&weights);
        reader.read(8 * MIB, MIB);
        until("it is warmed", || resident_all(&weights) >= 16 * MIB);
        let unwatched = if held(pid, &one) > 0 { &one } else { &other };
        agent.tell(&["unwatch", unwatched.to_str().unwrap()]).unwrap();
        within(A_SECOND, "everything is closed", || held(pid, unwatched) == 0);
        assert_eq!(watched(&agent), 1);
        bed.limit(200);
        // Through what is there already, and on.
        let before = resident_all(&weights) / MIB;
        for _ in 8..before + 24 {
            reader.read(MIB, MIB);
            std::thread::sleep(Duration::from_millis(10));
        }
        until("it is warmed again", || resident_all(&weights) / MIB >= before + 24 + 3);
        assert_eq!(held(pid, unwatched), 0);
        reader.end();
    });
}
