//! Recorded accesses: what a trace holds, how it lies in a file, who writes it, and what is made of it.
//!
//! A trace holds every input of the engine, so that what happened can be replayed, and beside these what only people want to know: which pages were brought in by
//! whom, and, where they were asked for, the system calls themselves. `record` says what there is, `wire`, `encode` and `decode` how it is written, `frame` and
//! `file` how it lies in a file that may end in the middle; [`Recorder`] is the daemon's end of it.

mod decode;
mod encode;
pub mod export;
mod file;
mod frame;
pub mod names;
pub mod plot;
pub mod record;
mod recorder;
mod reuse;
pub mod summary;
#[cfg(test)]
// In tests a failed unwrap is a failed test; the build without tests still refuses it.
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
pub mod tests;
mod wire;

pub use self::{
    decode::{Decoder, LineError},
    file::{Opened, Tear, TraceError, TraceReader, TraceWriter, header_of},
    frame::{Frame, FrameError, FrameReader, HEAD},
    record::{CallKind, Header, Loss, Record},
    recorder::{RATE, Recorder},
};

/// What a trace file begins with.
pub const MAGIC: [u8; 8] = *b"NITROTRC";

/// Version of the format. It changes with everything that is written: also with the order in which the variants of an enum are declared that is part of a record.
pub const VERSION: u32 = 2;

/// Bytes of records, before compression, after which a frame is closed: what a crash can lose, and small beside any cache.
const FRAME: usize = 64 << 10;
