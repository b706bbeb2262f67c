//! End to end on the running kernel: the agent as a process, readers as processes, and a disk of their own. One scenario per file.
//!
//! One binary, so that it is linked once, and one scenario at a time ([`bed::turn`]). What the agent says is checked against what the kernel
//! says: `mincore` for what is in the page cache, the device's own counters for what was read. Needs root; says so where it is skipped, and in CI
//! a skip fails.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bed;
mod raw;
mod reader;
mod steps;

mod ahead;
mod announced;
mod auto;
mod benching;
mod by_hand;
mod bytes;
mod ceiling;
mod changes;
mod charge;
mod command_line;
mod counters;
mod direct;
mod doctor;
mod expected;
mod fanotify;
mod file_systems;
mod following;
mod gently;
mod idle;
mod installed;
mod killed;
mod learned;
mod left_out;
mod listing;
mod names;
mod patterns;
mod pause;
mod pins;
mod pressure;
mod proving;
mod receipts;
mod refused;
mod removal;
mod rights;
mod several;
mod silent;
mod stores;
mod storm;
mod trace;
mod unwatch;
mod written;

/// Not a test: what the tests start as another process.
#[test]
fn reader_process() {
    steps::run_if_told();
}
