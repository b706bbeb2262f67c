//! A chain of the kernel's own asynchronous readahead: large folios, one request for each window, no copy.
//!
//! `readahead(2)` brings pages in as single 4 KiB folios: they scatter over memory, so that a request holds fewer of them (2060–2680 requests for
//! 2 GiB where 2049 suffice), cost the warmer four times the processor time, and cost a reader who maps them ten times as much. The
//! kernel's sequential readahead makes large folios, but only behind a reader who waits. The chain makes it work without waiting: a non-blocking
//! read of a range that is not cached starts a window and fails with EAGAIN; touching the page that the kernel marked in the last window
//! starts the next, twice as large in its folios, up to 1 MiB. On a device of 1 GB/s and 1000 requests a second, 2 GiB take 2.15 s (the
//! device's limit) where `readahead` takes 2.3–2.5 s.
//!
//! How large a window is, the kernel decides (max_sectors_kb, mostly): it may pass the end of what was asked for, by less than one window.

use std::{collections::VecDeque, fs::File, io};

use super::{Warmer, readahead::Readahead};
use crate::{
    sys::{block::RequestLimits, page_cache, page_size},
    units::ByteRange,
};

/// Windows larger than this would hold huge pages, and a fault that maps a whole one raises no event: the reader would get out of sight.
const MOST_READ_AHEAD: u64 = 1 << 20;

/// Places beyond a step that are kept in mind. What is forgotten counts as there before.
const MOST_BEYOND: usize = 256;

/// Places in a file at which the chain goes on; one that is forgotten begins anew, with small folios.
const MOST_WINDOWS: usize = 64;

/// Tries for one step; each adds a window, and windows are 128 KiB at least.
const TRIES: usize = 32;

/// The chain in one file.
pub struct Chain {
    limits: RequestLimits,
    /// For what the chain cannot do, and for waiting.
    plain: Readahead,
    /// The last windows of its places, the oldest first: where the kernel set its mark in each, and where it ends and the next begins. The kernel finds
    /// its way from a mark whatever it read in between.
    windows: VecDeque<(u64, u64)>,
    /// Where it brought something in beyond a step that no later step has claimed, and how much; a reader who jumps leaves several such places.
    beyond: VecDeque<(ByteRange, u64)>,
}

impl Chain {
    /// A chain for a device of these limits; `None` where it would not make larger windows than the kernel by itself, or where the kernel does not tell where a
    /// window ends (before 6.5: `mincore` sees pages once they are up to date, too late for the next window).
    pub fn new(limits: RequestLimits, plain: Readahead) -> Option<Self> {
        let fits = limits.read_ahead > 0 && limits.read_ahead <= MOST_READ_AHEAD && limits.request >= limits.read_ahead;
        let fits = fits && page_cache::tells_presence();
        fits.then(|| Self {
            limits,
            plain,
            windows: VecDeque::new(),
            beyond: VecDeque::new(),
        })
    }

    /// Starts the window that begins at `from`; returns where it ends, `from` if there is none.
    fn extend(&mut self, file: &File, from: u64) -> io::Result<u64> {
        // Asking for more than one request can hold makes the kernel take it for a stream, wherever it begins, and its windows full.
        let call = self.limits.readahead_call() + page_size();
        if let Some(found) = self.windows.iter().position(|(_, end)| *end == from)
            && let Some((mark, _)) = self.windows.remove(found)
        {
            page_cache::touch(file, ByteRange::new(mark, call))?;
            let end = window_end(file, from, self.limits)?;
            if end > from {
                self.remember(from, end);
                return Ok(end);
            }
        }
        page_cache::touch(file, ByteRange::new(from, call))?;
        let end = window_end(file, from, self.limits)?;
        // The first window's mark is in its middle.
        let middle = (end - from) / 2 / page_size() * page_size();
        self.remember(from + middle, end);
        Ok(end)
    }

    fn note_beyond(&mut self, place: ByteRange, brought: u64) {
        if brought == 0 {
            return;
        }
        if self.beyond.len() == MOST_BEYOND {
            self.beyond.pop_front();
        }
        self.beyond.push_back((place, brought.min(place.len())));
    }

    fn remember(&mut self, mark: u64, end: u64) {
        if self.windows.len() == MOST_WINDOWS {
            self.windows.pop_front();
        }
        self.windows.push_back((mark, end));
    }
}

impl Warmer for Chain {
    fn submit(&mut self, file: &File, range: ByteRange) -> io::Result<()> {
        // A window ends where others' pages begin as often as not: only what is there afterwards and was not before is ours.
        let after = ByteRange::new(range.end, longest_window(self.limits));
        let there = page_cache::present(file, after)?;
        let mut from = range.start;
        for _ in 0..TRIES {
            from = from.max(window_end_below(file, from, range.end)?);
            if from >= range.end {
                break;
            }
            match self.extend(file, from) {
                Ok(end) if end > from => from = end,
                // No window came of it, or the file system cannot read without waiting.
                Ok(_) => break,
                Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EINVAL)) => break,
                Err(error) => return Err(error),
            }
        }
        if from < range.end {
            let rest = ByteRange {
                start: from,
                end: range.end,
            };
            self.plain.submit(file, rest)?;
        }
        if from != range.end {
            // Where the end of a window could not be told, since others' pages follow, it may lie anywhere.
            let end = if from > range.end { from } else { after.end };
            self.note_beyond(
                ByteRange { start: range.end, end },
                page_cache::present(file, after)?.saturating_sub(there),
            );
        }
        Ok(())
    }

    fn wait(&mut self, file: &File, range: ByteRange) -> io::Result<()> {
        self.plain.wait(file, range)
    }

    fn beyond(&self, end: u64) -> u64 {
        let places = self.beyond.iter().filter(|(place, _)| place.start == end);
        places.map(|(_, bytes)| bytes).sum()
    }

    /// What a window brought in beyond the step before is ours, though it is there already.
    fn brought_before(&mut self, range: ByteRange) -> u64 {
        let mut claimed = 0;
        for (place, bytes) in &mut self.beyond {
            let overlap = place.end.min(range.end).saturating_sub(place.start.max(range.start));
            let ours = overlap.min(*bytes);
            *bytes -= ours;
            claimed += ours;
            if overlap > 0 {
                place.start = place.end.min(range.end);
            }
        }
        self.beyond.retain(|(place, _)| !place.is_empty());
        claimed
    }
}

/// End of the pages present from `from` on without a gap, within what one window can hold.
fn window_end(file: &File, from: u64, limits: RequestLimits) -> io::Result<u64> {
    window_end_below(file, from, from + longest_window(limits))
}

/// Bytes that lie in a window at most: one that is started behind another reader's may be as long as two.
fn longest_window(limits: RequestLimits) -> u64 {
    2 * limits.readahead_call()
}

/// End of the pages present from `from` on, at most `limit`: exact where they are a prefix, as windows are; otherwise `from` or less than there is.
fn window_end_below(file: &File, from: u64, limit: u64) -> io::Result<u64> {
    let present = page_cache::present(
        file,
        ByteRange {
            start: from,
            end: limit,
        },
    )?
    .min(limit.saturating_sub(from));
    let prefix = ByteRange::new(from, present);
    if present > 0 && page_cache::present(file, prefix)? >= present {
        Ok(prefix.end)
    } else {
        Ok(from)
    }
}
