//! The files under the watch roots, and which of them belong together.

pub mod model;
