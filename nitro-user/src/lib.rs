//! nitro-agent as a library: every stage of the agent, for the binary, the tests and the simulator.
//!
//! ARCHITECTURE.md at the top of the repository is the map.

// In tests a failed unwrap is a failed test; the build without tests still refuses it.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod bench;
pub mod catalog;
pub mod cli;
pub mod config;
pub mod control;
pub mod daemon;
pub mod discover;
pub mod doctor;
pub mod engine;
pub mod observe;
pub mod replay;
pub mod sim;
pub mod source;
pub mod state;
pub mod sys;
pub mod trace;
pub mod units;
pub mod warm;
