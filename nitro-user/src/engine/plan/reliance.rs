//! Whether a reader that jumps gets along with the kernel's readahead: it brings in by itself what it needs, and what is brought in for it lies where it does not come.
//!
//! Ahead of short runs that end anywhere, a window is in vain as often as not, and on a device whose bytes are short it takes from the reader what it gives. Where requests are short instead, or the
//! reader fetches page by page (`MADV_RANDOM`), even such a window is a gain: the device has bytes to spare that the reader alone does not get. So three things are asked: how much was in
//! vain, who brought in what was read, and how that compares with what the device can do.

use std::time::Duration;

use crate::units::{Moment, Rate, STEP};

/// After so many bytes that were brought in and left behind, and again after each so many more, it is asked.
const DOUBT: u64 = 8 * STEP;

/// For so many bytes that are used, one may be left.
const USED: u64 = 4;

/// Share of what it reads that a reader brings in itself, at least, when it gets along …
const OWN: f64 = 1.0 / 3.0;

/// … and share of what the device does: with what was in vain beside it, that is all there is.
const OF_DEVICE: f64 = 0.25;

/// What became of that which was brought in for a load.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reliance {
    /// Bytes that the reader jumped over, or away from, and that it has not come back to.
    left: u64,
    /// Bytes that it used, or waited for while they were on their way.
    used: u64,
    /// What was left when it was last asked.
    asked: u64,
    is_asking: bool,
    /// What it has read since, from when to when, and what it had brought in itself by then.
    read: u64,
    time: Option<(Moment, Moment)>,
    own: u64,
    on_its_own: bool,
}

impl Reliance {
    /// The reader jumped, and left so many bytes that had been brought in for it.
    pub const fn left(&mut self, bytes: u64) {
        self.left = self.left.saturating_add(bytes);
    }

    /// The reader asked for `fresh` bytes for the first time, of which `used` had been brought in for it or were on their way; `returned` bytes were left before.
    pub fn read(&mut self, at: Moment, fresh: u64, used: u64, returned: u64) {
        self.read = self.read.saturating_add(fresh);
        self.used = self.used.saturating_add(used);
        self.left = self.left.saturating_sub(returned);
        self.time.get_or_insert((at, at)).1 = at;
    }

    /// Whether too much of what was brought in was left.
    pub const fn is_in_doubt(&self) -> bool {
        self.left >= DOUBT && self.left > self.used / USED
    }

    /// Whether it is to be asked what the reader has brought in itself. Says so once, until the answer.
    pub fn is_to_be_asked(&mut self) -> bool {
        let is_news = self.is_in_doubt() && self.left >= self.asked.saturating_add(DOUBT);
        is_news && !std::mem::replace(&mut self.is_asking, true)
    }

    /// The reader has brought in `own` bytes itself since it began, from a device that does `device`.
    pub fn answer(&mut self, own: u64, device: Option<Rate>) {
        if !std::mem::take(&mut self.is_asking) {
            return;
        }
        let added = own.saturating_sub(self.own);
        let time = self.time.map_or(Duration::ZERO, |(first, last)| last.since(first));
        let is_its_own = self.read > 0 && added as f64 >= OWN * self.read as f64;
        let is_fast = device.is_some_and(|device| Rate::over(added, time).0 >= OF_DEVICE * device.0);
        self.on_its_own = is_its_own && is_fast;
        (self.asked, self.own, self.read, self.time) = (self.left, own, 0, None);
    }

    /// Whether it gets along by itself, as far as it was asked.
    pub const fn is_on_its_own(&self) -> bool {
        self.on_its_own
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    const DEVICE: Option<Rate> = Some(Rate(100e6));

    /// In the second after `at`, so many MiB were left, used and read.
    fn second(reliance: &mut Reliance, at: u64, left: u64, used: u64, read: u64) {
        reliance.left(left * MIB);
        reliance.read(Moment(at * 1_000_000_000), 0, 0, 0);
        reliance.read(Moment((at + 1) * 1_000_000_000), read * MIB, used * MIB, 0);
    }

    /// Whether a reader gets along that was asked after a second, in which it brought in so many MiB itself; `None` where there was no reason to ask.
    fn asked(left: u64, used: u64, read: u64, own: u64) -> Option<bool> {
        let mut reliance = Reliance::default();
        second(&mut reliance, 0, left, used, read);
        let is_to_be_asked = reliance.is_to_be_asked();
        assert!(!reliance.is_to_be_asked(), "it was asked already");
        reliance.answer(own * MIB, DEVICE);
        is_to_be_asked.then_some(reliance.is_on_its_own())
    }

    #[test]
    fn nobody_asks_where_what_is_brought_in_is_used() {
        assert_eq!(asked(40, 200, 300, 40), None);
        assert_eq!(asked(15, 0, 100, 100), None, "too little to tell");
    }

    #[test]
    fn what_the_reader_comes_back_to_was_not_in_vain() {
        let mut reliance = Reliance::default();
        second(&mut reliance, 0, 32, 0, 0);
        assert!(reliance.is_in_doubt());
        reliance.read(Moment(0), 0, 16 * MIB, 16 * MIB);
        assert!(reliance.is_in_doubt(), "half of it was");
        reliance.read(Moment(0), 0, MIB, MIB);
        assert!(!reliance.is_in_doubt());
    }

    #[test]
    fn who_brings_in_what_it_reads_gets_along() {
        assert_eq!(asked(32, 8, 60, 30), Some(true));
    }

    #[test]
    fn who_reads_page_by_page_does_not() {
        assert_eq!(asked(32, 0, 200, 1), Some(false));
        assert_eq!(asked(32, 0, 0, 0), Some(false));
    }

    #[test]
    fn who_gets_little_of_what_the_device_could_give_does_not() {
        assert_eq!(asked(32, 8, 20, 10), Some(false));
        let mut reliance = Reliance::default();
        second(&mut reliance, 0, 32, 0, 30);
        assert!(reliance.is_to_be_asked());
        reliance.answer(30 * MIB, None);
        assert!(!reliance.is_on_its_own(), "of a device of which nothing is known");
    }

    #[test]
    fn only_what_came_since_the_last_question_counts() {
        let mut reliance = Reliance::default();
        for (at, (own, expected)) in [(40, true), (41, false), (100, true)].into_iter().enumerate() {
            second(&mut reliance, 10 * at as u64, 20, 0, 40);
            assert!(reliance.is_to_be_asked());
            reliance.answer(own * MIB, DEVICE);
            assert_eq!(reliance.is_on_its_own(), expected, "{own}");
            assert!(!reliance.is_to_be_asked(), "nothing more was left");
        }
    }
}
