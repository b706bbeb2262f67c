//! The fentry event mode on the running kernel: what it tells of a load, or, where the kernel does not let programs be attached to its functions, that it says so.
//!
//! `cargo xtask vm-test` runs the agent in this mode on a kernel that is made for it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod kernel;

use kernel::{MIB, TestFile, Watcher, assert_ended};
use nitro_common::{Hook, STEP_BYTES};
use nitro_user::source::attach::{EventChoice, EventMode};

const FENTRY: EventChoice = EventChoice::Only(EventMode::Fentry);

/// Not a test: what the tests start as another process.
#[test]
fn reader_process() {
    kernel::reader::run_if_told();
}

/// Whether the kernel refuses the mode, which it must do in one line that names the program, the function and the reason.
fn is_refused() -> bool {
    let _turn = kernel::turn();
    if !kernel::is_root() {
        return true;
    }
    let Err(error) = kernel::open(FENTRY) else { return false };
    let line = error.to_string();
    assert!(line.contains("fentry: filemap_read_entry (filemap_read): "), "{line}");
    assert!(
        line.contains("refused by the kernel") || line.contains("no such function") || line.contains("_open: "),
        "{line}"
    );
    assert!(!line.contains('\n'), "{line}");
    eprintln!("refused: {line}");
    true
}

#[test]
fn a_load_is_told_step_by_step_or_the_mode_is_refused_with_its_reason() {
    if is_refused() {
        return;
    }
    let Some(mut watcher) = Watcher::attach(FENTRY) else {
        return;
    };
    let file = TestFile::cold(16 * MIB);
    watcher.watch(&file);
    let reader = watcher.run(&format!("open {}\n128 * read 131072", file.name()));
    assert_ended(&watcher, reader);
    assert_eq!(watcher.of(reader, |hook| hook == Hook::Open).len(), 1);
    let mut steps: Vec<u64> = watcher
        .of(reader, |hook| hook == Hook::Read)
        .iter()
        .map(|event| event.offset / STEP_BYTES)
        .collect();
    steps.dedup();
    assert_eq!(steps, (0..8).collect::<Vec<_>>());
    let counts = watcher.counts(reader, &file);
    assert_eq!(
        (counts.calls, counts.bytes, counts.added_bytes),
        (128, 16 * MIB, 16 * MIB)
    );
}
