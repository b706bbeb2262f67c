//! Brings pages into the page cache and proves that they are there.
//!
//! Inputs: steps, in order, from the engine. Outputs: one outcome per step. It does not choose what to warm. All of it blocks, on threads of
//! its own: one per load, so that a hung file system stalls only its own.

pub mod account;
mod chain;
pub mod evict;
pub mod keeper;
mod lent;
pub mod pins;
mod quiet;
mod read;
mod readahead;
mod stream;
pub mod workers;

use std::{fs::File, io};

use self::{chain::Chain, lent::Lent, readahead::Readahead};
use crate::{sys::block::RequestLimits, units::ByteRange};

/// A way to bring a range into the page cache.
trait Warmer {
    /// Starts bringing `range` in; may return before it is there.
    fn submit(&mut self, file: &File, range: ByteRange) -> io::Result<()>;
    /// Waits until what was submitted for `range` is there, or will not come.
    fn wait(&mut self, file: &File, range: ByteRange) -> io::Result<()>;
    /// Bytes that a `submit` of a range up to `end` brought in beyond it, not told by `brought_before` yet.
    fn beyond(&self, _end: u64) -> u64 {
        0
    }

    /// The same with plain reads, where readahead brings nothing in.
    ///
    /// # Errors
    /// The process that reads has ended.
    fn plainly(self: Box<Self>) -> io::Result<Box<dyn Warmer>> {
        Ok(Box::new(read::Read::default()))
    }

    /// Bytes of `range` that an earlier `submit` brought in beyond its own range; each is told once.
    fn brought_before(&mut self, _range: ByteRange) -> u64 {
        0
    }
}

/// The best way to read a file on a device of these limits, `chunk` bytes a call; `lent`: through its reader's own descriptor.
fn best(limits: RequestLimits, chunk: u64, lent: bool) -> Box<dyn Warmer> {
    let plain = Readahead { chunk };
    if lent {
        return Box::new(Lent::new(plain));
    }
    match Chain::new(limits, Readahead { chunk }) {
        Some(chain) => Box::new(chain),
        None => Box::new(plain),
    }
}
