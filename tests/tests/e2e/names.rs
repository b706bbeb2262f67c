//! Names are bytes: whatever a file is called and however deep it lies, it is warmed, and what is said of it is still one line.

use std::{ffi::OsString, os::unix::ffi::OsStringExt, path::PathBuf};

use rig::tree::gguf;

use super::bed::{MIB, assert_adds_up, cool, number, receipt, scenario, warmed};

const SIZE: u64 = 24 * MIB;

#[test]
fn files_of_any_name_are_warmed() {
    scenario(512, |bed| {
        let root = bed.dir("models");
        let named = |bytes: &[u8]| root.join(OsString::from_vec(bytes.to_vec()));
        let mut long = vec![b'x'; 250];
        long.extend_from_slice(b".gguf");
        let deep: PathBuf = std::iter::repeat_n("deeper", 50).collect();
        let paths = [
            named(b"not\xffutf\xfe8.gguf"),
            named(b"with a space and 'quotes\".gguf"),
            named(b"two\nlines\r\x1b[31m.gguf"),
            named(b"-rf.gguf"),
            named("模型-é.gguf".as_bytes()),
            named(&long),
            root.join(deep).join("m.gguf"),
            named(b"\xff\xff").join("in a folder that is no text.gguf"),
        ];
        for (seed, path) in (1..).zip(&paths) {
            gguf::write(path, seed, SIZE, None).unwrap();
            cool(path);
        }
        let truths: Vec<_> = paths.iter().map(|path| bed.truth(path)).collect();
        bed.limit(100);
        let agent = bed.agent();
        assert_eq!(number(&agent.ask("status").unwrap(), "watched"), paths.len() as u64);
        for (path, truth) in paths.iter().zip(truths) {
            let mut reader = bed.reader(path);
            assert_eq!(reader.read_to_end(MIB), truth, "{path:?}");
            let receipt = receipt(&agent, reader.end());
            assert_adds_up(&receipt);
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            assert_eq!(receipt["model"].as_str(), Some(name.as_str()));
            assert!(warmed(&receipt) > 2 * MIB, "{path:?}: {receipt:#}");
        }
        // For people, nothing of a name moves the cursor or ends a line.
        let lines = agent.lines();
        assert!(lines.iter().all(|line| !line.contains(['\x1b', '\r'])));
    });
}
