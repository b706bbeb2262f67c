//! Recorded accesses through the engine once more.
//!
//! [`exact`] gives a new engine every input that the recorded one had, which decides the same again: what comes out is what was written down, or something was lost. Nothing here reads or
//! warms a file.

pub mod exact;
