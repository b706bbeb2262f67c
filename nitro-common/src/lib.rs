//! The wire contract between the eBPF programs and the agent: events, map keys and values, settings, counters.
//!
//! Everything here is plain old data of fixed width with its layout asserted, so that both sides, compiled for different
//! targets, agree on every byte. Nothing here decides or interprets.
#![no_std]
#![warn(missing_docs)]

pub mod counters;
pub mod event;
pub mod settings;
pub mod tables;
#[cfg(feature = "user")]
mod user;

pub use counters::{Counter, Counters};
pub use event::{AccessEvent, Hook, flags};
pub use tables::{CursorKey, CursorState, FileKey, WatchedFile};

/// Bytes of one warming step and of one coalesced access event: 2 MiB.
///
/// Large enough that a load of 100 GiB is 51 200 events, small enough that a window moves often; also the size of a huge page.
pub const STEP_BYTES: u64 = 2 << 20;
