//! The test rig: everything an end-to-end test or a developer's bench of the agent needs around it.
//!
//! - disks, stores, limits, model trees, readers, the agent as a process, statistics: those of `nitro-agent bench`, from [`nitro_user::bench`];
//! - [`mod@mute`]: a FUSE server that takes requests and is silent;
//! - [`mod@unit`]: the restrictions of a service, without systemd;
//! - [`mod@guest`]: the scenarios in the virtual machine;
//! - [`mod@bench`]: what `nitro-bench` runs.

// Tests may fail by panicking; the library reports errors.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod bench;
pub mod guest;
pub mod mute;
pub mod tracefs;
pub mod unit;

pub use nitro_user::{
    bench::{agent, disk, limit, readers, report, scratch, stats, store, sweep, tree},
    sys::measure as sys,
};
