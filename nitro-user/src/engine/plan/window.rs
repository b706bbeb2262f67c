//! The window of one load: how many warmed bytes may wait for the reader.
//!
//! It opens small and doubles as the reader uses what was warmed, so that a reader who stops, or hops, has cost little; and it shrinks when the
//! kernel takes warmed pages away unread.

use std::time::Duration;

use crate::units::{Rate, STEP};

/// The window opens with what the device does in this time. It is the usual one, too, from a runner's command line to its first read: an unconfirmed
/// window may grow to so much.
const OPENING: Duration = Duration::from_secs(2);

/// Bounds of that.
const LEAST_OPENING: u64 = 2 * STEP;
const MOST_OPENING: u64 = 4 << 30;

/// Opening of a window while the device's rate is not known.
const UNKNOWN: u64 = 128 << 20;

/// An unconfirmed window begins with so much and doubles with the later looks at its process: one that soon opens its file with `O_DIRECT` is found out before it pays for more.
const FIRST_UNCONFIRMED: u64 = 4 << 20;

/// After a jump into the cold, at least so much.
const LEAST_AFTER_JUMP: u64 = 2 * STEP;

/// Where somebody begins to walk in the middle: if it was no walk, so much was in vain, and the rest of the step that the walk began in.
const IN_THE_MIDDLE: u64 = STEP;

/// The window.
#[derive(Clone, Copy, Debug, Default)]
pub struct Window {
    size: u64,
    /// What an unconfirmed one may grow to.
    goal: u64,
    /// Bytes used since it last changed.
    used: u64,
    /// Bytes taken away unread since it last shrank.
    lost: u64,
}

impl Window {
    /// Opens after strong evidence, as one of so many `places` that share the device.
    pub fn open(&mut self, rate: Option<Rate>, places: usize) {
        let opening = (opening(rate) / places.max(1) as u64).max(LEAST_AFTER_JUMP);
        self.size = self.size.max(opening);
    }

    /// Opens where somebody begins to walk in the middle: it grows if that is one.
    pub fn open_in_the_middle(&mut self) {
        self.size = self.size.max(IN_THE_MIDDLE);
    }

    /// Whoever began in the middle has walked `run` bytes since, though not on what was warmed: it may be given as much again, up to what others get at once.
    pub fn proven(&mut self, run: u64, rate: Option<Rate>, places: usize) {
        if self.size > 0 {
            self.size = self.size.max(run.min(opening(rate) / places.max(1) as u64));
        }
    }

    /// Opens for a load that was announced and not seen yet.
    pub fn open_unconfirmed(&mut self, rate: Option<Rate>) {
        self.goal = opening(rate);
        self.size = self.goal.min(FIRST_UNCONFIRMED);
    }

    /// Its reader is expected within this time: it may grow to what the device does until then.
    pub fn expect_within(&mut self, time: Duration, rate: Option<Rate>) {
        if let Some(rate) = rate.filter(|_| self.goal > 0) {
            self.goal = rate.during(time).clamp(LEAST_OPENING, MOST_OPENING);
        }
    }

    /// The device's rate has become known: an unconfirmed window may grow to another size.
    pub fn aim(&mut self, rate: Rate) {
        if self.goal > 0 {
            self.goal = opening(Some(rate));
        }
    }

    /// The load is still announced and nothing speaks against it.
    pub fn ramp_up(&mut self) {
        self.size = self.size.max(self.size.saturating_mul(2).min(self.goal));
    }

    /// Its size in bytes; 0 while closed.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The reader used `bytes` of what was warmed: after half a window of them, it doubles.
    pub fn consumed(&mut self, bytes: u64) {
        self.used += bytes;
        if self.size > 0 && self.used >= self.size / 2 {
            self.size = self.size.saturating_mul(2);
            self.used = 0;
        }
    }

    /// The kernel took `bytes` away unread: there is less room than we thought. After half a window of them, it halves.
    pub fn lost(&mut self, bytes: u64) {
        self.lost += bytes;
        if self.lost >= self.size / 2 {
            self.size = (self.size / 2).max(self.size.min(2 * STEP));
            self.goal = self.size;
            self.lost = 0;
            self.used = 0;
        }
    }

    /// The reader gets less with it than alone.
    pub fn halve(&mut self) {
        self.size = (self.size / 2).max(self.size.min(STEP));
        self.goal = self.goal.min(self.size);
        self.used = 0;
    }

    /// The reader jumped to a place that was not warmed: ahead of it, no more than twice what it usually walks.
    pub fn jumped(&mut self, typical_run: u64) {
        self.size = self.size.min(typical_run.saturating_mul(2).max(LEAST_AFTER_JUMP));
        self.goal = self.goal.min(self.size);
        self.used = 0;
    }

    /// Nothing more.
    pub fn close(&mut self) {
        *self = Self::default();
    }
}

/// Bytes that a window opens with, on a device of this rate.
pub fn opening(rate: Option<Rate>) -> u64 {
    rate.map_or(UNKNOWN, |rate| rate.during(OPENING).clamp(LEAST_OPENING, MOST_OPENING))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_after_half_of_it_was_used() {
        let mut window = Window::default();
        window.open(None, 1);
        let opened = window.size();
        window.consumed(opened / 2 - 1);
        assert_eq!(window.size(), opened);
        window.consumed(1);
        assert_eq!(window.size(), 2 * opened);
    }

    #[test]
    fn who_walks_in_the_middle_is_given_as_much_as_it_has_walked_and_no_more_than_others() {
        let mut window = Window::default();
        window.proven(100 << 20, None, 1);
        assert_eq!(window.size(), 0, "it is closed");
        window.open_in_the_middle();
        for (walked, given) in [(1, 2), (6, 6), (4, 6), (100, 100), (1000, 128)] {
            window.proven(walked << 20, None, 1);
            assert_eq!(window.size() >> 20, given);
        }
    }

    #[test]
    fn a_closed_window_stays_closed() {
        let mut window = Window::default();
        window.consumed(1 << 40);
        assert_eq!(window.size(), 0);
    }

    #[test]
    fn an_unconfirmed_window_grows_to_what_the_device_does_in_the_usual_lead_time() {
        let mut window = Window::default();
        window.open_unconfirmed(Some(Rate(5e7)));
        let sizes: Vec<u64> = (0..6)
            .map(|_| {
                let size = window.size();
                window.ramp_up();
                size >> 20
            })
            .collect();
        assert_eq!(sizes, [4, 8, 16, 32, 64, 95]);
        // What the kernel took away, it would take again.
        window.lost(64 << 20);
        let shrunk = window.size();
        window.ramp_up();
        assert_eq!(window.size(), shrunk);
        window.close();
        window.ramp_up();
        assert_eq!(window.size(), 0);
    }

    #[test]
    fn a_slow_device_opens_a_small_window() {
        let mut window = Window::default();
        window.open(Some(Rate(1e6)), 1);
        assert_eq!(window.size(), LEAST_OPENING);
        let mut window = Window::default();
        window.open(Some(Rate(100e6)), 1);
        assert_eq!(window.size(), 200_000_000, "two seconds of it");
        window.halve();
        assert_eq!(window.size(), 100_000_000);
        let mut window = Window::default();
        window.open(Some(Rate(1e6)), 16);
        assert_eq!(window.size(), LEAST_AFTER_JUMP, "one of many places");
    }
}
