//! Readahead through a descriptor that is a reader's own: nothing of its state may change, and its state decides what becomes of a call.
//!
//! The kernel keeps the position, the advice and the progress of readahead with the open file, which a duplicate shares. `readahead` reads that progress and leaves it alone; non-blocking reads
//! (`chain`) and advice would change it. FUSE drops a call without a word while many requests are on their way, where the open file's reader itself has readahead of at least the
//! same size going (`fuse_readahead`). So each call is looked after: what is not there was dropped, and is asked for again when the oldest call has been answered.

use std::{collections::VecDeque, fs::File, io};

use super::{Warmer, readahead::Readahead};
use crate::{sys::page_cache, units::ByteRange};

/// Calls that are kept in mind; older ones have been answered.
const MOST_UNDER_WAY: usize = 64;

/// Times that a call is tried again when none of ours is under way: the reader's own are in its way then.
const TRIES: usize = 4;

/// Readahead that is tried again.
pub struct Lent {
    plain: Readahead,
    under_way: VecDeque<ByteRange>,
}

impl Lent {
    /// By calls as `plain` makes them.
    pub const fn new(plain: Readahead) -> Self {
        Self {
            plain,
            under_way: VecDeque::new(),
        }
    }

    fn call(&mut self, file: &File, chunk: ByteRange) -> io::Result<()> {
        let mut tries = 0;
        loop {
            page_cache::readahead(file, chunk)?;
            // Without `cachestat` nobody knows: what is missing is read by who waits for it.
            if !page_cache::tells_presence() || page_cache::present(file, chunk)? >= chunk.len() || tries == TRIES {
                break;
            }
            match self.under_way.pop_front() {
                Some(oldest) => page_cache::wait(file, oldest.end - 1)?,
                None => {
                    // One page, in about the time of the requests that are in the way.
                    page_cache::wait(file, chunk.start)?;
                    tries += 1;
                }
            }
        }
        if self.under_way.len() == MOST_UNDER_WAY {
            self.under_way.pop_front();
        }
        self.under_way.push_back(chunk);
        Ok(())
    }
}

impl Warmer for Lent {
    fn submit(&mut self, file: &File, range: ByteRange) -> io::Result<()> {
        let chunks: Vec<ByteRange> = self.plain.chunks(range).collect();
        chunks.into_iter().try_for_each(|chunk| self.call(file, chunk))
    }

    fn wait(&mut self, file: &File, range: ByteRange) -> io::Result<()> {
        self.plain.wait(file, range)
    }
}
