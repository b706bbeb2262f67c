//! The test rig: everything an end-to-end test or a bench of the agent needs around it.
//!
//! - [`disk::TestDisk`]: a file system that is really cold after its caches were dropped;
//! - [`store::Store`]: a file system whose server takes its time, or stalls;
//! - [`limit::IoLimit`]: one group in which reader and agent share a device's rate, so that the agent cannot cheat;
//! - [`tree`]: models on disk as loaders find them, the same for the same seed;
//! - [`readers`]: loaders, each in a process of its own;
//! - [`agent::AgentProcess`]: the agent, started and ready, stopped and timed;
//! - [`mod@unit`]: the restrictions of a service, without systemd;
//! - [`stats`]: what a handful of noisy pairs allows one to say;
//! - [`mod@bench`]: what `nitro-bench` runs.
//!
//! Whatever the rig makes on the machine carries [`scratch::PREFIX`] and its maker's identity, is removed on drop and on
//! SIGINT and SIGTERM, and, after a kill, by the next run: see [`sweep`].

// Tests may fail by panicking; the library reports errors.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod agent;
pub mod bench;
pub mod disk;
pub mod guest;
pub mod limit;
pub mod readers;
pub mod scratch;
pub mod stats;
pub mod store;
pub mod sweep;
pub mod sys;
pub mod tracefs;
pub mod tree;
pub mod unit;
