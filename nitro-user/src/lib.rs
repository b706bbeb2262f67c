//! nitro-agent as a library: every stage of the agent, for the binary, the tests and the simulator.
//!
//! ARCHITECTURE.md at the top of the repository is the map.

pub mod catalog;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod engine;
pub mod sim;
pub mod source;
pub mod sys;
pub mod units;
pub mod warm;
