//! Recorded accesses through the engine once more. Nothing here reads or warms a file.
//!
//! [`exact`] gives a new engine every input that the recorded one had, which decides the same again: what comes out is what was written down, or something was lost.
//!
//! The rest puts the readers of a trace into the simulator's world: [`demand`] makes of a trace what was read, by whom, and in which order; [`pace`] what the readers did
//! between, by running the recorded world again; [`compare`] runs them on other devices, with other memory and under other policies.

pub mod compare;
pub mod demand;
pub mod device;
pub mod exact;
mod extent;
pub mod pace;
mod speed;
#[cfg(test)]
// In tests a failed unwrap is a failed test; the build without tests still refuses it.
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests;
