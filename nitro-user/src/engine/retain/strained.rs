//! Memory is short, or somebody waits for it: nothing more is brought in, and what is locked goes, the coldest first.

use std::time::Duration;

use super::{Retention, errand::Purpose};
use crate::{
    engine::{action::Action, plan::pressure::Strain},
    units::{FileId, Moment},
};

/// Pins that had to go for want of memory are not taken up again before …
pub(super) const BARRED: Duration = Duration::from_secs(30);

/// … twice as long when that happens again, up to this …
const MOST_BARRED: Duration = Duration::from_secs(1800);

/// … unless it went well for so long.
const FORGIVEN: Duration = Duration::from_secs(600);

impl Retention {
    /// The machine's memory is short, by `missing` bytes, or somebody waits for it.
    pub fn strained(&mut self, now: Moment, strain: Strain, missing: u64, actions: &mut Vec<Action>) {
        // What was to be brought in at the start is not worth anybody's memory, but for what people asked for.
        let remembered = &self.remembered;
        self.start
            .retain(|path| remembered.get(path).is_some_and(|(_, asked)| *asked));
        for errand in self.errands.values_mut() {
            match errand.purpose {
                Purpose::Return | Purpose::Expected | Purpose::Pin(_) if !errand.is_closed() => {
                    errand.close();
                    actions.push(Action::Cancel { load: errand.id });
                }
                Purpose::Warm(_) if errand.is_under_way() => actions.push(Action::Cancel { load: errand.id }),
                _ => {}
            }
        }
        self.give_back(now, strain, missing, actions);
        self.is_due = true;
    }

    /// Lets pins go, the coldest first: what is missing, and under stalls a quarter of all at least. Where others have to read again what they use, all at once: with less than that
    /// they may still go round in more than there is room for, and what they need next is what has just gone.
    fn give_back(&mut self, now: Moment, strain: Strain, missing: u64, actions: &mut Vec<Action>) {
        let pinned = self.pinned();
        if pinned == 0 {
            return;
        }
        let wanted = match strain {
            Strain::None => return,
            Strain::Churn => pinned,
            Strain::Stalls => missing.max(pinned / 4),
            Strain::Short => missing.max(1),
        };
        let half_life = self.settings.half_life;
        let mut coldest: Vec<(bool, f64, FileId)> = self
            .kept
            .iter()
            .filter(|(_, kept)| kept.pin.held > 0)
            .map(|(key, kept)| (kept.asked, kept.heat.at(now, half_life), *key))
            .collect();
        coldest.sort_by(|one, other| one.0.cmp(&other.0).then(one.1.total_cmp(&other.1)));
        let mut given = 0;
        for (_, _, key) in coldest {
            if given >= wanted {
                break;
            }
            given += self.release(key, actions);
        }
        self.hold_off(now);
    }

    /// Nothing is locked for a while; twice as long as the last time, if that was a short while ago.
    pub(super) fn hold_off(&mut self, now: Moment) {
        let is_same = now < self.barred_until;
        if self.bar.is_zero() || now.since(self.barred_until) >= FORGIVEN {
            self.bar = BARRED;
        } else if !is_same {
            self.bar = (self.bar * 2).min(MOST_BARRED);
        }
        self.barred_until = now.after(self.bar);
    }
}
