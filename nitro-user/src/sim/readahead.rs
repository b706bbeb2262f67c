//! The kernel's readahead: which pages it brings in when a reader comes to one that is not there, or to one that it marked (mm/readahead.c, mm/filemap.c, Linux 6.18).
//!
//! Pages are numbers. What is in the page cache is asked of the caller; nothing is brought in here.

use std::ops::Range;

/// Misses of a mapping after which its faults read ahead no more.
const LOTS_OF_MISSES: u32 = 100;

/// Pages to bring in; those that are there already stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The first.
    pub start: u64,
    /// How many.
    pub size: u64,
    /// The one whose first use starts the next window.
    pub mark: Option<u64>,
    /// They come in folios of two to the power of this many pages, where those fit.
    pub order: u32,
}

impl Window {
    /// Pages as they are asked for, each by itself.
    pub const fn plain(start: u64, size: u64) -> Self {
        Self {
            start,
            size,
            mark: None,
            order: 0,
        }
    }
}

/// The folios that cover a run of pages: first page and order of each, aligned to its size (`page_cache_ra_order`).
pub fn folios(run: Range<u64>, order: u32) -> impl Iterator<Item = (u64, u32)> {
    let mut page = run.start;
    std::iter::from_fn(move || {
        let left = run.end.checked_sub(page).filter(|left| *left > 0)?;
        let order = order.min(page.trailing_zeros()).min(left.ilog2());
        let first = page;
        page += 1 << order;
        Some((first, order))
    })
}

/// What the page cache is asked.
pub trait Presence {
    /// Pages that are there, one after the other, right before `page`; at most `most`.
    fn before(&self, page: u64, most: u64) -> u64;
    /// The first page from `page` on that is not there, `page + most` if all are, as `page_cache_next_miss` finds it.
    fn next_miss(&self, page: u64, most: u64) -> u64;
}

/// The readahead of one descriptor: `struct file_ra_state`.
#[derive(Clone, Copy, Debug)]
pub struct Readahead {
    /// Pages read ahead at most.
    pages: u64,
    /// Pages of the largest request, up to which a call that asks for more than `pages` is served.
    largest: u64,
    start: u64,
    size: u64,
    /// Pages of the window behind its mark.
    ahead: u64,
    /// Order of the folios: windows end at a multiple of these.
    order: u32,
    misses: u32,
    /// The page where the last call ended.
    last: u64,
}

impl Readahead {
    /// Of a descriptor that was just opened.
    pub fn new(pages: u64, largest: u64) -> Self {
        Self {
            pages: pages.max(1),
            largest,
            start: 0,
            size: 0,
            ahead: 0,
            order: 0,
            misses: 0,
            last: 0,
        }
    }

    /// A call ended in this page.
    pub fn ended(&mut self, page: u64) {
        self.last = page;
    }

    /// Pages were mapped without a miss.
    pub fn mapped(&mut self, pages: u64) {
        self.misses = self.misses.saturating_sub(u32::try_from(pages).unwrap_or(u32::MAX));
    }

    fn most(&self, wanted: u64) -> u64 {
        if wanted > self.pages && self.largest > self.pages {
            wanted.min(self.largest)
        } else {
            self.pages
        }
    }

    /// `page` is not there, and a call wants `wanted` pages from there on: `page_cache_sync_ra`.
    pub fn missed_by_read(&mut self, page: u64, wanted: u64, cache: &impl Presence) -> Window {
        let most = self.most(wanted);
        let goes_on = page >= self.last && page - self.last <= 1;
        if page == 0 || wanted > most || goes_on {
            (self.start, self.size) = (page, first_size(wanted, most));
            self.ahead = if self.size > wanted {
                self.size - wanted
            } else {
                self.size / 2
            };
            return self.window();
        }
        let before = cache.before(page, most);
        if before <= wanted {
            // A small read somewhere: as it is.
            return Window::plain(page, wanted);
        }
        let trace = if before == page { 2 * before } else { before };
        (self.start, self.size, self.ahead) = (page, (trace + wanted).min(most), 1);
        self.window()
    }

    /// A touch of a mapping found no page: `do_sync_mmap_readahead` reads around it.
    pub fn missed_by_map(&mut self, page: u64) -> Window {
        self.misses = (self.misses + 1).min(10 * LOTS_OF_MISSES);
        if self.misses > LOTS_OF_MISSES {
            return Window::plain(page, 1);
        }
        self.start = page.saturating_sub(self.pages / 2);
        (self.size, self.ahead) = (self.pages, self.pages / 4);
        self.window()
    }

    /// A reader came to a marked page: `page_cache_async_ra`.
    pub fn met_mark(&mut self, page: u64, wanted: u64, cache: &impl Presence) -> Option<Window> {
        let most = self.most(wanted);
        // Its folio may begin before the page where the mark was asked for.
        if page == self.start + self.size - self.ahead.min(self.size) && self.size > 0 {
            self.start += self.size;
            self.size = self.size.max(next_size(self.size, most));
        } else {
            // Somebody else's window: the next one begins where that ends.
            let start = cache.next_miss(page + 1, most);
            if start - page > most {
                return None;
            }
            self.start = start;
            self.size = next_size(start - page + wanted, most);
        }
        self.order += 2;
        let align = 1 << self.order.min(most.trailing_zeros());
        let end = (self.start + self.size) / align * align;
        if end > self.start {
            self.size = end - self.start;
        }
        self.ahead = self.size;
        self.order = self.order.min(self.size.max(1).ilog2());
        Some(Window {
            start: self.start,
            size: self.size,
            mark: Some(self.start),
            order: self.order,
        })
    }

    fn window(&mut self) -> Window {
        self.order = 0;
        Window {
            start: self.start,
            size: self.size,
            mark: (self.ahead > 0).then(|| self.start + self.size - self.ahead),
            order: 0,
        }
    }
}

/// `get_init_ra_size`.
fn first_size(wanted: u64, most: u64) -> u64 {
    let size = wanted.next_power_of_two();
    if size <= most / 32 {
        size * 4
    } else if size <= most / 4 {
        size * 2
    } else {
        most
    }
}

/// `get_next_ra_size`.
fn next_size(size: u64, most: u64) -> u64 {
    if size < most / 16 {
        4 * size
    } else if size <= most / 2 {
        2 * size
    } else {
        most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything below this page is there.
    struct Below(u64);

    impl Presence for Below {
        fn before(&self, page: u64, most: u64) -> u64 {
            page.min(self.0).min(most)
        }
        fn next_miss(&self, page: u64, most: u64) -> u64 {
            page.max(self.0).min(page + most)
        }
    }

    #[test]
    fn a_mapping_is_read_around_first_and_then_a_window_ahead() {
        let mut readahead = Readahead::new(32, 320);
        let first = readahead.missed_by_map(0);
        assert_eq!((first.start, first.size, first.mark), (0, 32, Some(24)));
        let next = readahead.met_mark(24, 32, &Below(32)).unwrap();
        assert_eq!((next.start, next.size, next.mark), (32, 32, Some(32)));
        let next = readahead.met_mark(32, 32, &Below(64)).unwrap();
        assert_eq!((next.start, next.size, next.mark), (64, 32, Some(64)));
        assert_eq!(readahead.missed_by_map(1000).start, 984);
    }

    #[test]
    fn a_call_of_a_mebibyte_gets_windows_of_a_mebibyte() {
        let mut readahead = Readahead::new(32, 320);
        let first = readahead.missed_by_read(0, 256, &Below(0));
        assert_eq!((first.size, first.mark), (256, Some(128)));
        let next = readahead.met_mark(128, 128, &Below(256)).unwrap();
        assert_eq!((next.start, next.size, next.mark), (256, 256, Some(256)));
        // Without a block device the kernel's own window bounds it.
        let mut readahead = Readahead::new(32, 0);
        assert_eq!(readahead.missed_by_read(0, 256, &Below(0)).size, 32);
    }

    #[test]
    fn folios_are_aligned_and_end_with_the_run() {
        assert_eq!(
            folios(4321..4352, 4).collect::<Vec<_>>(),
            [(4321, 0), (4322, 1), (4324, 2), (4328, 3), (4336, 4)]
        );
        assert_eq!(
            folios(32..71, 5).collect::<Vec<_>>(),
            [(32, 5), (64, 2), (68, 1), (70, 0)]
        );
        assert_eq!(folios(7..7, 2).count(), 0);
    }

    #[test]
    fn small_reads_grow_their_window() {
        let mut readahead = Readahead::new(32, 320);
        let first = readahead.missed_by_read(0, 2, &Below(0));
        assert_eq!((first.size, first.mark), (4, Some(2)));
        assert_eq!(readahead.met_mark(2, 2, &Below(4)).map(|next| next.size), Some(8));
    }

    #[test]
    fn a_read_somewhere_is_read_as_it_is() {
        let mut readahead = Readahead::new(32, 320);
        readahead.ended(31);
        let window = readahead.missed_by_read(5000, 32, &Below(32));
        assert_eq!((window.start, window.size, window.mark), (5000, 32, None));
    }

    #[test]
    fn behind_anothers_mark_the_window_begins_where_that_ends() {
        let mut readahead = Readahead::new(32, 320);
        let window = readahead.met_mark(96, 32, &Below(128)).unwrap();
        assert_eq!((window.start, window.size), (128, 32));
    }

    #[test]
    fn a_mapping_that_misses_a_hundred_times_is_read_page_by_page() {
        let mut readahead = Readahead::new(32, 320);
        let sizes: Vec<u64> = (0..102).map(|miss| readahead.missed_by_map(miss * 100).size).collect();
        assert_eq!((sizes[99], sizes[100], sizes[101]), (32, 1, 1));
        readahead.mapped(50);
        assert_eq!(readahead.missed_by_map(0).size, 32);
    }
}
