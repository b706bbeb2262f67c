//! nitro-agent as a library: every stage of the agent, for the binary, the tests and the simulator.
//!
//! ARCHITECTURE.md at the top of the repository is the map.

pub mod catalog;
pub mod sys;
pub mod units;
