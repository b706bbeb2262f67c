//! Readahead through a descriptor that is a reader's own: nothing of its state may change, and its state decides what becomes of a call.
//!
//! The kernel keeps the position, the advice and the progress of readahead with the open file, which a duplicate shares. `readahead` reads that progress and leaves it alone; non-blocking reads
//! (`chain`) and advice would change it. FUSE drops a call without a word while many requests are on their way, where the open file's reader itself has readahead of at least the
//! same size going (`fuse_readahead`). So each call is looked after: what is not there was dropped, and is asked for again when the oldest call has been answered; from then on no more are
//! under way than were taken.

use std::{collections::VecDeque, fs::File, io};

use super::{Warmer, readahead::Readahead};
use crate::{sys::page_cache, units::ByteRange};

/// Calls under way at most; what the kernel takes of one file system is less.
const MOST_UNDER_WAY: usize = 64;

/// Times that a call is tried again when none of ours is under way: the reader's own are in its way then.
const TRIES: usize = 4;

/// Calls in a row that were taken before one more may be under way.
const TAKEN: usize = 16;

/// Readahead that is tried again.
pub struct Lent {
    plain: Readahead,
    under_way: VecDeque<ByteRange>,
    /// How many may be: as many as there were when a call was dropped. A dropped call costs the pages that were made for it.
    most: usize,
    /// Calls taken since.
    taken: usize,
}

impl Lent {
    /// By calls as `plain` makes them.
    pub const fn new(plain: Readahead) -> Self {
        Self {
            plain,
            under_way: VecDeque::new(),
            most: MOST_UNDER_WAY,
            taken: 0,
        }
    }

    fn call(&mut self, file: &File, chunk: ByteRange) -> io::Result<()> {
        self.make_room(file)?;
        for tries in 0.. {
            page_cache::readahead(file, chunk)?;
            // Without `cachestat` nobody knows: what is missing is read by who waits for it.
            if !page_cache::tells_presence() || page_cache::present(file, chunk)? >= chunk.len() {
                self.taken += 1;
                break;
            }
            self.forget_answered(file)?;
            (self.most, self.taken) = (self.under_way.len().max(1), 0);
            match self.under_way.pop_front() {
                Some(oldest) => page_cache::wait(file, oldest.end - 1)?,
                None if tries >= TRIES => break,
                // One page, in about the time of the requests that are in the way.
                None => page_cache::wait(file, chunk.start)?,
            }
        }
        if self.taken == TAKEN {
            (self.most, self.taken) = ((self.most + 1).min(MOST_UNDER_WAY), 0);
        }
        self.under_way.push_back(chunk);
        Ok(())
    }

    /// Waits until one more call may be under way.
    fn make_room(&mut self, file: &File) -> io::Result<()> {
        self.forget_answered(file)?;
        while self.under_way.len() >= self.most
            && let Some(oldest) = self.under_way.pop_front()
        {
            page_cache::wait(file, oldest.end - 1)?;
        }
        Ok(())
    }

    fn forget_answered(&mut self, file: &File) -> io::Result<()> {
        while let Some(oldest) = self.under_way.front()
            && page_cache::resident(file, *oldest)? >= oldest.len()
        {
            self.under_way.pop_front();
        }
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
