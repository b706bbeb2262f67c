//! Whether the machine has memory to spare for what nobody has asked for yet.
//!
//! In: what is available, and how long anybody has waited for memory since the machine was started (PSI's `some`, /proc/pressure/memory). Both are asked for while something
//! could be warmed, and not otherwise. Out: how far to go. What is warmed is clean page cache, which the kernel takes back before anything else; but taking it back costs whoever
//! needs memory now, and reading it costs the device.

use std::time::Duration;

use crate::units::{ByteCount, Moment};

/// So often it is asked while something could be warmed. With the answer's way, somebody who begins to stall has the device for himself within half a second.
pub const ASKED: Duration = Duration::from_millis(250);

/// The same while something is locked and memory is plentiful: a hog that takes it all takes longer.
pub const RELAXED: Duration = Duration::from_secs(1);

/// Share of the time between two answers in which somebody waited for memory that counts as strain: a tenth is what the kernel's own documentation takes for a machine that
/// should shed work (Documentation/accounting/psi.rst, 150 ms of a second).
const STALLED: f64 = 0.1;

/// Stalls count only where less than so many times the reserve is left: a container that is held to a limit of its own stalls on a machine with plenty of memory.
const NEAR: u64 = 4;

/// Once the reserve was touched, so much more must be there, or an eighth of it.
const MORE: u64 = 256 << 20;

/// Strain is believed for so long after its last sign.
const CALM: Duration = Duration::from_secs(2);

/// How far to go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Strain {
    /// As far as the windows go.
    #[default]
    None,
    /// Somebody waits for memory: nothing for readers that were not seen yet, and little ahead of the others.
    Stalls,
    /// The reserve is touched: nothing.
    Short,
}

impl Strain {
    /// For people; nothing without strain.
    pub const fn reason(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Stalls => {
                Some("programs wait for memory: little is warmed ahead of readers, nothing before they are seen")
            }
            Self::Short => Some("memory is short: nothing is warmed"),
        }
    }
}

/// What is known of it.
#[derive(Clone, Debug, Default)]
pub struct Pressure {
    /// Bytes that are to stay available.
    reserve: u64,
    asked: Option<Moment>,
    told: Option<(Moment, Duration)>,
    available: u64,
    short: bool,
    /// Somebody stalled, until then.
    stalls_until: Moment,
}

impl Pressure {
    /// Nothing is known.
    pub fn new(reserve: ByteCount) -> Self {
        Self {
            reserve: reserve.0,
            ..Self::default()
        }
    }

    /// Whether it is time to ask; then it counts as asked.
    pub fn ask(&mut self, now: Moment) -> bool {
        let is_due = self.asked.is_none_or(|asked| now.since(asked) >= ASKED);
        if is_due {
            self.asked = Some(now);
        }
        is_due
    }

    /// When to ask next.
    pub fn deadline(&self) -> Option<Moment> {
        self.asked.map(|asked| asked.after(ASKED))
    }

    /// When to ask next where nothing is being brought in and what is locked is all that is at stake: while there is plenty, less often.
    pub fn relaxed_deadline(&self, now: Moment) -> Option<Moment> {
        let is_near = self.available < self.reserve.saturating_mul(NEAR) || self.strain(now) != Strain::None;
        self.asked
            .map(|asked| asked.after(if is_near { ASKED } else { RELAXED }))
    }

    /// `available` bytes could be had, and somebody has waited for memory for `stalled` since the machine was started.
    pub fn told(&mut self, now: Moment, available: ByteCount, stalled: Duration) {
        // What was freed a moment ago is not spent at once.
        let more = if self.short { self.margin() } else { 0 };
        let enough = self.reserve.saturating_add(more);
        self.short = available.0 < enough;
        self.available = available.0;
        let before = self.told.replace((now, stalled));
        let is_near = available.0 < self.reserve.saturating_mul(NEAR);
        if let Some((at, before)) = before.filter(|_| is_near) {
            let waited = stalled.saturating_sub(before).as_secs_f64();
            if waited > STALLED * now.since(at).as_secs_f64() {
                self.stalls_until = now.after(CALM);
            }
        }
    }

    /// Bytes that may be taken beside the reserve, as of a moment ago; nothing where that is not known.
    pub fn spare(&self, now: Moment) -> Option<u64> {
        let (at, _) = self.told?;
        (now.since(at) < 2 * RELAXED).then(|| self.available.saturating_sub(self.reserve))
    }

    /// Bytes that are missing until the reserve is whole again.
    pub fn missing(&self) -> u64 {
        self.reserve
            .saturating_add(self.margin())
            .saturating_sub(self.available)
    }

    fn margin(&self) -> u64 {
        (self.reserve / 8).min(MORE)
    }

    /// How far to go.
    pub fn strain(&self, now: Moment) -> Strain {
        if self.short {
            Strain::Short
        } else if now < self.stalls_until {
            Strain::Stalls
        } else {
            Strain::None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn at(milliseconds: u64) -> Moment {
        Moment(milliseconds * 1_000_000)
    }

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn the_reserve_is_left_alone_and_what_comes_back_is_not_spent_at_once() {
        let mut pressure = Pressure::new(ByteCount(8 * GIB));
        assert_eq!(pressure.strain(at(0)), Strain::None);
        let mut strain = |moment, available| {
            pressure.told(at(moment), ByteCount(available), Duration::ZERO);
            pressure.strain(at(moment))
        };
        assert_eq!(strain(0, 8 * GIB), Strain::None);
        assert_eq!(strain(250, 8 * GIB - 1), Strain::Short);
        assert_eq!(strain(500, 8 * GIB + 1), Strain::Short);
        assert_eq!(strain(750, 8 * GIB + MORE), Strain::None);
    }

    #[test]
    fn stalls_count_for_a_while_where_little_is_left() {
        let mut pressure = Pressure::new(ByteCount(GIB));
        pressure.told(at(0), ByteCount(2 * GIB), ms(5000));
        assert_eq!(pressure.strain(at(0)), Strain::None, "it is not known since when");
        pressure.told(at(250), ByteCount(2 * GIB), ms(5020));
        assert_eq!(pressure.strain(at(250)), Strain::None, "8 %");
        pressure.told(at(500), ByteCount(2 * GIB), ms(5050));
        assert_eq!(pressure.strain(at(500)), Strain::Stalls);
        assert_eq!(pressure.strain(at(2499)), Strain::Stalls);
        assert_eq!(pressure.strain(at(2500)), Strain::None);
        // A container at its limit, on a machine with plenty.
        pressure.told(at(2500), ByteCount(16 * GIB), ms(7000));
        assert_eq!(pressure.strain(at(2500)), Strain::None);
    }

    #[test]
    fn it_is_asked_four_times_a_second() {
        let mut pressure = Pressure::default();
        assert_eq!(pressure.deadline(), None);
        assert!(pressure.ask(at(0)) && !pressure.ask(at(249)));
        assert_eq!(pressure.deadline(), Some(at(250)));
        assert!(pressure.ask(at(250)));
    }
}
