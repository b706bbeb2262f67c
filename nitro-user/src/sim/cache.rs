//! A page cache: which pages are there, when those on their way arrive, which are marked. The step used longest ago goes first.

use std::{collections::BTreeMap, ops::Range};

use super::{
    PAGE, Served, Tallied, Used,
    readahead::{Presence, folios},
    table::Table,
};
use crate::units::{ByteRange, Moment, STEP};

/// Part and step.
pub type Place = (usize, u64);

const STEP_PAGES: u64 = STEP / PAGE;

/// Pages below one node of the page cache's tree.
const NODE: u64 = 64;

/// A page's word: 0 for one that is not there, else a number of [`Cache::arrivals`] plus one; above it the mark, and whether somebody has used it.
const MARK: u32 = 1 << 31;
const USED: u32 = 1 << 30;
const NUMBER: u32 = USED - 1;

/// Who brought a page in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// It was there at the beginning.
    Nobody,
    /// A reader, or the kernel for it.
    Reader,
    /// Whoever helps readers.
    Help,
}

/// What is known of one page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// It is not there, and nobody brings it.
    Absent,
    /// Its first use starts readahead. It may still be on its way.
    Marked,
    /// It arrives, or has arrived, then.
    At(Moment),
}

#[derive(Debug)]
struct Step {
    used: u64,
    held: u64,
    /// It cannot go.
    locked: bool,
    pages: [u32; STEP_PAGES as usize],
    /// The order of the folio that each page lies in.
    orders: [u8; STEP_PAGES as usize],
}

/// Pages that came in together: when, and by whom; and the tally in which they count, if any: its index plus one.
#[derive(Clone, Copy, Debug)]
struct Arrival {
    at: Moment,
    by: By,
    tally: u32,
}

/// A reader that uses pages: since when, and since when it has been at this step.
#[derive(Clone, Copy, Debug, Default)]
pub struct Since {
    /// Its first access.
    pub began: Moment,
    /// It came to the step then.
    pub came: Moment,
}

/// The cache.
#[derive(Debug)]
pub struct Cache {
    capacity: u64,
    held: u64,
    /// Bytes of steps that cannot go.
    locked: u64,
    clock: u64,
    steps: Table<Step>,
    /// Those that can go.
    by_use: BTreeMap<u64, Place>,
    arrivals: Vec<Arrival>,
    /// Bytes that were brought in to help.
    helped: u64,
    used: Used,
    /// The tally that is open for each part, as in [`Arrival::tally`].
    open: BTreeMap<usize, u32>,
    tallies: Vec<Tallied>,
}

/// The pages that a range touches.
pub fn pages(range: ByteRange) -> Range<u64> {
    range.start / PAGE..range.end.div_ceil(PAGE)
}

impl Cache {
    /// An empty cache of `capacity` bytes.
    pub fn new(capacity: u64) -> Self {
        Self {
            capacity,
            held: 0,
            locked: 0,
            clock: 0,
            steps: Table::default(),
            by_use: BTreeMap::new(),
            arrivals: Vec::new(),
            helped: 0,
            used: Used::default(),
            open: BTreeMap::new(),
            tallies: Vec::new(),
        }
    }

    /// Bytes that were used, and those that were brought in to help and not used.
    pub fn account(&self) -> (Used, u64) {
        (self.used, self.helped.saturating_sub(self.used.by_help))
    }

    /// What is brought into this part from now on to help counts in the tally with this index, or in none.
    pub fn count_in(&mut self, part: usize, tally: Option<usize>) {
        match tally.and_then(|tally| u32::try_from(tally).ok()) {
            Some(tally) => {
                self.open.insert(part, tally + 1);
                let least = (tally as usize + 1).max(self.tallies.len());
                self.tallies.resize(least, Tallied::default());
            }
            None => {
                self.open.remove(&part);
            }
        }
    }

    /// The tallies.
    pub fn tallies(&self) -> &[Tallied] {
        &self.tallies
    }

    /// Bytes that can be had: free, or of steps that can go.
    pub const fn available(&self) -> u64 {
        self.capacity.saturating_sub(self.locked)
    }

    /// Bytes that nobody has.
    pub const fn free(&self) -> u64 {
        self.capacity.saturating_sub(self.held)
    }

    /// Somebody takes so much of the memory for himself. Returns the steps that had to go for it.
    pub fn take(&mut self, bytes: u64) -> Vec<Place> {
        self.capacity = self.capacity.saturating_sub(bytes);
        self.evict()
    }

    /// Somebody gives so much of the memory back.
    pub fn give(&mut self, bytes: u64) {
        self.capacity = self.capacity.saturating_add(bytes);
    }

    /// What is there of the step in which a range begins cannot go any more. Returns its bytes within the range.
    pub fn lock(&mut self, part: usize, range: ByteRange) -> u64 {
        let Some(step) = self.steps.get_mut((part, range.start / STEP)) else {
            return 0;
        };
        if !std::mem::replace(&mut step.locked, true) {
            self.by_use.remove(&step.used);
            self.locked += step.held;
        }
        step.held.min(range.len())
    }

    /// A step can go again.
    pub fn unlock(&mut self, place: Place) {
        if let Some(step) = self.steps.get_mut(place).filter(|step| step.locked) {
            step.locked = false;
            self.locked -= step.held;
            self.by_use.insert(step.used, place);
        }
    }

    /// Bytes were used that the page cache never held.
    pub fn used_past(&mut self, bytes: u64) {
        self.used.by_readers += bytes;
    }

    /// The first of so many pages from `page` on that is not there, or the one after them.
    pub fn next_missing(&self, part: usize, page: u64, most: u64) -> u64 {
        self.scan(part, page..page + most, |_, word| word != 0)
    }

    /// What is known of a page.
    pub fn page(&self, part: usize, page: u64) -> Page {
        match self.word(part, page) {
            0 => Page::Absent,
            word if word & MARK != 0 => Page::Marked,
            word => Page::At(self.arrival(word)),
        }
    }

    /// Marks a page that is there, or takes its mark away.
    pub fn mark(&mut self, part: usize, page: u64, is_marked: bool) {
        let step = self.steps.get_mut((part, page / STEP_PAGES));
        if let Some(word) = step.and_then(|step| step.pages.get_mut((page % STEP_PAGES) as usize))
            && *word != 0
        {
            *word = if is_marked { *word | MARK } else { *word & !MARK };
        }
    }

    fn word(&self, part: usize, page: u64) -> u32 {
        let step = self.steps.get((part, page / STEP_PAGES));
        let word = step.and_then(|step| step.pages.get((page % STEP_PAGES) as usize));
        word.copied().unwrap_or(0)
    }

    fn arrival(&self, word: u32) -> Moment {
        self.origin(word).at
    }

    fn origin(&self, word: u32) -> Arrival {
        origin(&self.arrivals, word)
    }

    /// The words of pages in order, until `take` says no. Returns the page at which it did, or the end.
    fn scan(&self, part: usize, pages: Range<u64>, mut take: impl FnMut(u64, u32) -> bool) -> u64 {
        let mut page = pages.start;
        while page < pages.end {
            let step = self.steps.get((part, page / STEP_PAGES));
            let end = (page / STEP_PAGES + 1).saturating_mul(STEP_PAGES).min(pages.end);
            while page < end {
                let word = step.and_then(|step| step.pages.get((page % STEP_PAGES) as usize));
                if !take(page, word.copied().unwrap_or(0)) {
                    return page;
                }
                page += 1;
            }
        }
        pages.end
    }

    /// The end of those pages from the first on that are there at `now` and not marked.
    pub fn usable(&self, part: usize, pages: Range<u64>, now: Moment) -> u64 {
        self.scan(part, pages, |_, word| {
            word != 0 && word & MARK == 0 && self.arrival(word) <= now
        })
    }

    /// The end of those pages from the first on that are there, or not, as the first one is.
    fn alike(&self, part: usize, pages: Range<u64>) -> u64 {
        let is_there = self.word(part, pages.start) != 0;
        self.scan(part, pages, |_, word| (word != 0) == is_there)
    }

    /// Runs of pages that are not there.
    pub fn absent(&self, part: usize, pages: Range<u64>) -> Vec<Range<u64>> {
        let mut runs = Vec::new();
        let mut page = pages.start;
        while page < pages.end {
            let end = self.alike(part, page..pages.end);
            if self.word(part, page) == 0 {
                runs.push(page..end);
            }
            page = end;
        }
        runs
    }

    /// Bytes of `range` that are there or on their way (`cachestat`).
    pub fn present(&self, part: usize, range: ByteRange) -> u64 {
        self.bytes(part, range, |_| true)
    }

    /// Bytes of `range` that are there at `now` (`mincore`).
    pub fn resident(&self, part: usize, range: ByteRange, now: Moment) -> u64 {
        self.bytes(part, range, |arrives| arrives <= now)
    }

    fn bytes(&self, part: usize, range: ByteRange, counts: impl Fn(Moment) -> bool) -> u64 {
        let mut bytes = 0;
        self.scan(part, pages(range), |page, word| {
            if word != 0 && counts(self.arrival(word)) {
                let (start, end) = (page * PAGE, (page + 1) * PAGE);
                bytes += end.min(range.end).saturating_sub(start.max(range.start));
            }
            true
        });
        bytes
    }

    /// When the last of the pages of `range` that are on their way arrives.
    pub fn arrives(&self, part: usize, range: ByteRange) -> Moment {
        let mut last = Moment(0);
        self.scan(part, pages(range), |_, word| {
            if word != 0 {
                last = last.max(self.arrival(word));
            }
            true
        });
        last
    }

    /// Those pages of a range that are there are used; by whom they were brought in, and when.
    pub fn use_up(&mut self, part: usize, range: ByteRange, since: Since) -> Served {
        let mut served = Served::default();
        for number in range.start / STEP..range.end.div_ceil(STEP) {
            self.touch((part, number));
            let Some(step) = self.steps.get_mut((part, number)) else {
                continue;
            };
            let pages = pages(range.common(ByteRange::new(number * STEP, STEP)));
            let first = number * STEP_PAGES;
            let (from, to) = ((pages.start - first) as usize, (pages.end - first) as usize);
            for word in step.pages.get_mut(from..to).unwrap_or_default() {
                if *word == 0 {
                    continue;
                }
                let Arrival { at, by, tally } = origin(&self.arrivals, *word);
                let is_fresh = *word & USED == 0;
                match by {
                    By::Help if at <= since.began && !is_fresh => served.resident += PAGE,
                    By::Help if at <= since.came => served.in_time += PAGE,
                    By::Help => served.late += PAGE,
                    By::Nobody => served.resident += PAGE,
                    By::Reader if at <= since.began => served.resident += PAGE,
                    By::Reader => served.by_itself += PAGE,
                }
                if !is_fresh {
                    continue;
                }
                *word |= USED;
                match by {
                    By::Nobody => self.used.before += PAGE,
                    By::Reader => self.used.by_readers += PAGE,
                    By::Help => {
                        self.used.by_help += PAGE;
                        if let Some(tallied) = (tally as usize).checked_sub(1).and_then(|at| self.tallies.get_mut(at)) {
                            tallied.used += PAGE;
                        }
                    }
                }
            }
        }
        served
    }

    /// Pages leave.
    pub fn remove(&mut self, part: usize, range: ByteRange) {
        for page in pages(range) {
            let place = (part, page / STEP_PAGES);
            let Some(step) = self.steps.get_mut(place).filter(|step| !step.locked) else {
                continue;
            };
            if let Some(word) = step.pages.get_mut((page % STEP_PAGES) as usize)
                && *word != 0
            {
                *word = 0;
                step.held -= PAGE;
                self.held -= PAGE;
            }
            if step.held == 0 {
                self.by_use.remove(&step.used);
                self.steps.remove(place);
            }
        }
    }

    /// A step is used.
    fn touch(&mut self, place: Place) {
        if let Some(step) = self.steps.get_mut(place).filter(|step| !step.locked) {
            self.by_use.remove(&step.used);
            self.clock += 1;
            step.used = self.clock;
            self.by_use.insert(self.clock, place);
        }
    }

    /// The first page of the folio that a page lies in.
    pub fn head(&self, part: usize, page: u64) -> u64 {
        let step = self.steps.get((part, page / STEP_PAGES));
        let order = step.and_then(|step| step.orders.get((page % STEP_PAGES) as usize));
        page >> order.copied().unwrap_or(0) << order.copied().unwrap_or(0)
    }

    /// Pages that were just inserted lie in folios of this order, where they fit.
    pub fn fold(&mut self, part: usize, pages: Range<u64>, order: u32) {
        for (first, order) in folios(pages, order) {
            for page in first..first + (1 << order) {
                let step = self.steps.get_mut((part, page / STEP_PAGES));
                if let Some(slot) = step.and_then(|step| step.orders.get_mut((page % STEP_PAGES) as usize)) {
                    *slot = u8::try_from(order).unwrap_or(0);
                }
            }
        }
    }

    /// Pages that were not there arrive at `arrives`, each a folio of its own. Returns the steps that had to go for them.
    pub fn insert(&mut self, part: usize, pages: Range<u64>, arrives: Moment, by: By) -> Vec<Place> {
        let tally = self.open.get(&part).copied().filter(|_| by == By::Help).unwrap_or(0);
        self.arrivals.push(Arrival { at: arrives, by, tally });
        let word = u32::try_from(self.arrivals.len()).unwrap_or(NUMBER).min(NUMBER);
        let mut page = pages.start;
        while page < pages.end {
            let place = (part, page / STEP_PAGES);
            let end = ((place.1 + 1) * STEP_PAGES).min(pages.end);
            let step = self.steps.entry(place, || Step {
                used: 0,
                held: 0,
                locked: false,
                pages: [0; STEP_PAGES as usize],
                orders: [0; STEP_PAGES as usize],
            });
            let (from, to) = ((page % STEP_PAGES) as usize, (end - place.1 * STEP_PAGES) as usize);
            step.orders.get_mut(from..to).unwrap_or_default().fill(0);
            for slot in step.pages.get_mut(from..to).unwrap_or_default() {
                if *slot == 0 {
                    *slot = word;
                    step.held += PAGE;
                    self.held += PAGE;
                    self.locked += if step.locked { PAGE } else { 0 };
                    if by == By::Help {
                        self.helped += PAGE;
                        if let Some(tallied) = (tally as usize).checked_sub(1).and_then(|at| self.tallies.get_mut(at)) {
                            tallied.brought += PAGE;
                        }
                    }
                }
            }
            self.touch(place);
            page = end;
        }
        self.evict()
    }

    fn evict(&mut self) -> Vec<Place> {
        let mut gone = Vec::new();
        while self.held > self.capacity {
            let Some((_, oldest)) = self.by_use.pop_first() else {
                break;
            };
            if let Some(step) = self.steps.remove(oldest) {
                self.held -= step.held;
            }
            gone.push(oldest);
        }
        gone
    }
}

fn origin(arrivals: &[Arrival], word: u32) -> Arrival {
    let index = ((word & NUMBER) as usize).checked_sub(1);
    let found = index.and_then(|index| arrivals.get(index)).copied();
    found.unwrap_or(Arrival {
        at: Moment(0),
        by: By::Nobody,
        tally: 0,
    })
}

/// One part of the cache, as readahead sees it.
pub struct OfPart<'a>(pub &'a Cache, pub usize);

impl Presence for OfPart<'_> {
    fn before(&self, page: u64, most: u64) -> u64 {
        let there = (1..=most.min(page)).take_while(|back| self.0.word(self.1, page - back) != 0);
        there.count() as u64
    }

    /// Linux 6.18 looks up `page`, finds its folio, and goes on from the folio's *first* page, though it counts from `page`: what it finds is too far on by as much.
    /// It is right again after the end of a node of the page cache's tree.
    fn next_miss(&self, page: u64, most: u64) -> u64 {
        let head = self.0.head(self.1, page);
        // A folio as large as a node lies in the node above, where nothing goes wrong.
        let mut looked_at = if page - head < NODE { head } else { page };
        for found in page..page + most {
            if self.0.word(self.1, looked_at) == 0 {
                return found;
            }
            looked_at = if looked_at % NODE == NODE - 1 {
                found + 1
            } else {
                looked_at + 1
            };
        }
        page + most
    }
}

#[cfg(test)]
mod tests;
