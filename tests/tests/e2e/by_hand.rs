//! `nitro-agent warm`, `evict`, `pin` and `unpin`.

use rig::{
    agent::Agent,
    tree::{gguf, hugging_face, ollama},
};

use super::bed::{MIB, binary, cool_all, events, held, resident_all, scenario, until};

const SIZE: u64 = 64 * MIB;

fn all(paths: &[std::path::PathBuf]) -> u64 {
    paths.iter().map(|path| resident_all(path)).sum()
}

fn size(paths: &[std::path::PathBuf]) -> u64 {
    paths.iter().map(|path| path.metadata().unwrap().len()).sum()
}

#[test]
fn a_file_a_directory_a_snapshot_of_links_and_a_name_are_warmed_and_dropped() {
    scenario(768, |bed| {
        let splits = gguf::splits(&bed.dir("gguf"), "model", 1, 3, SIZE).unwrap().files;
        let snapshot = hugging_face::snapshot(&bed.dir("hub"), "org", "name", 2, 2, SIZE).unwrap();
        let ollama = ollama::model(&bed.dir("ollama"), "llama", "8b", 3, SIZE).unwrap().files;
        let others = gguf::single(&bed.dir("other"), "alone", 4, SIZE).unwrap().files;
        let agent = bed.start(Agent::new(&binary(), bed.disk.path()));
        let whole = bed.disk.path().join("gguf");
        let meant: [(&str, Vec<_>); 4] = [
            (splits[1].to_str().unwrap(), vec![splits[1].clone()]),
            (whole.to_str().unwrap(), splits.clone()),
            (
                snapshot.files[0].parent().unwrap().to_str().unwrap(),
                snapshot.files.clone(),
            ),
            ("llama:8b", ollama.clone()),
        ];
        for (what, files) in meant {
            cool_all(&splits);
            cool_all(&snapshot.files);
            cool_all(&ollama);
            cool_all(&others);
            let said = agent.tell(&["warm", what]).unwrap();
            assert!(said.contains("in the page cache"), "{said}");
            // Files of a few kilobytes are not watched, and are there anyway.
            assert!(all(&files) + MIB >= size(&files), "{what}: {said}");
            assert!(all(&others) <= MIB, "no more than a look at its header");
            let pid = agent.pid().unwrap();
            until("nothing is held open", || held(pid, bed.disk.path()) == 0);
            let again = agent.tell(&["warm", what]).unwrap();
            assert!(again.contains("all of it before"), "{again}");
            let said = agent.tell(&["evict", what]).unwrap();
            assert!(said.contains("dropped"), "{said}");
            assert!(all(&files) <= MIB, "{what}: {said}");
        }
        until("what was dropped takes no room", || {
            agent.ask("status").unwrap()["held"] == 0
        });
        assert!(events(&agent, "receipt").is_empty(), "nobody has read it");
    });
}

#[test]
fn what_is_warmed_in_parts_of_json_adds_up() {
    scenario(384, |bed| {
        let files = gguf::single(&bed.dir("models"), "model", 1, SIZE).unwrap().files;
        cool_all(&files);
        bed.limit(100);
        let agent = bed.start(Agent::new(&binary(), bed.disk.path()));
        let said = agent.tell(&["warm", "--json", files[0].to_str().unwrap()]).unwrap();
        let lines: Vec<serde_json::Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let done: Vec<u64> = lines
            .iter()
            .map(|line| line["progress"]["done"].as_u64().unwrap())
            .collect();
        assert!(done.len() > 3 && done.is_sorted(), "{done:?}");
        let last = &lines.last().unwrap()["progress"];
        assert_eq!(last["over"], true, "{last:#}");
        assert_eq!(last["there"].as_u64(), Some(size(&files)), "{last:#}");
        // But for the header, which was looked at to know what it is.
        assert!(last["changed"].as_u64().unwrap() + MIB >= size(&files), "{last:#}");
    });
}

#[test]
fn what_cannot_be_done_is_said() {
    scenario(384, |bed| {
        let files = gguf::single(&bed.dir("models"), "model", 1, SIZE).unwrap().files;
        let agent = bed.start(Agent::new(&binary(), &bed.dir("models")));
        let file = files[0].to_str().unwrap();
        let refused = |words: &[&str]| agent.tell(words).unwrap_err().to_string();
        let stranger = refused(&["warm", "/proc/self"]);
        assert!(stranger.contains("is watched"), "{stranger}");
        let pin = refused(&["pin", file]);
        assert!(pin.contains("--pin SIZE"), "{pin}");
        let nobody = refused(&["evict", "no-such-model"]);
        assert!(nobody.contains("no-such-model"), "{nobody}");
    });
}

#[test]
fn an_order_ends_when_whoever_gave_it_goes() {
    scenario(384, |bed| {
        let files = gguf::single(&bed.dir("models"), "model", 1, 4 * SIZE).unwrap().files;
        cool_all(&files);
        bed.limit(20);
        let agent = bed.start(Agent::new(&binary(), bed.disk.path()));
        let mut asking = std::process::Command::new(binary())
            .arg("warm")
            .arg(&files[0])
            .arg("--socket")
            .arg(agent.socket())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        until("it is warmed", || resident_all(&files[0]) >= 8 * MIB);
        asking.kill().unwrap();
        asking.wait().unwrap();
        let pid = agent.pid().unwrap();
        until("it is closed", || held(pid, bed.disk.path()) == 0);
        assert!(resident_all(&files[0]) < 2 * SIZE);
    });
}
