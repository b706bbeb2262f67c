//! The only home of `unsafe` and raw system calls; everything above it calls safe functions with owned descriptors.

// In tests a failed unwrap is a failed test; the build without tests still refuses it.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod open;
pub mod stat;
