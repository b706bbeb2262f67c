//! Stepped `readahead`: no copy, no page tables.

use std::{fs::File, io};

use super::Warmer;
use crate::{sys::page_cache, units::ByteRange};

/// Calls of at most `chunk` bytes: a larger call is clipped by the kernel without a word.
pub struct Readahead {
    /// Bytes per call.
    pub chunk: u64,
}

impl Readahead {
    /// The calls that bring a range in.
    pub(super) fn chunks(&self, range: ByteRange) -> impl Iterator<Item = ByteRange> + use<> {
        let chunk = self.chunk.max(4096);
        (range.start..range.end)
            .step_by(usize::try_from(chunk).unwrap_or(1 << 20))
            .map(move |start| ByteRange {
                start,
                end: (start + chunk).min(range.end),
            })
    }
}

impl Warmer for Readahead {
    fn submit(&mut self, file: &File, range: ByteRange) -> io::Result<()> {
        self.chunks(range)
            .try_for_each(|chunk| page_cache::readahead(file, chunk))
    }

    /// Reads the last byte of every chunk: that blocks exactly until its page is up to date, where polling would be late or busy.
    fn wait(&mut self, file: &File, range: ByteRange) -> io::Result<()> {
        self.chunks(range)
            .try_for_each(|chunk| page_cache::wait(file, chunk.end - 1))
    }
}
