//! Pieces of errands come back, and errands come to their end.

use super::{Retention, errand::Purpose, strained::BARRED};
use crate::{
    catalog::model::Part,
    engine::{
        action::{Action, LoadId, Task},
        input::{Outcome, StepEnd},
        load::key,
    },
    units::Moment,
};

/// Of a piece that came back.
#[derive(Clone, Copy, Debug)]
pub struct Returned {
    /// What was to be done with it.
    pub task: Task,
    /// Somebody is expected to load it.
    pub expected: bool,
    /// The kernel had taken it away.
    pub is_return: bool,
    /// Whether anybody is told when it is used.
    pub is_watched: bool,
}

impl Retention {
    /// A piece of an errand came back; `None` if it is none of an errand.
    pub fn outcome(&mut self, now: Moment, outcome: &Outcome, actions: &mut Vec<Action>) -> Option<Returned> {
        let errand = self.errands.get_mut(&outcome.load)?;
        let returned = Returned {
            task: errand.purpose.task(),
            expected: errand.purpose == Purpose::Expected,
            is_return: errand.purpose == Purpose::Return,
            is_watched: errand.model.parts.get(outcome.part).is_some_and(Part::is_watched),
        };
        errand.outcome(outcome);
        if let Purpose::Pin(pin) = errand.purpose {
            let key = key(&errand.model, outcome.file);
            let kept = self.kept.get_mut(&key).filter(|kept| kept.pin.id == Some(pin));
            match kept {
                Some(kept) if outcome.end == StepEnd::NotHeld => kept.pin.refused = Some(outcome.end),
                Some(kept) => {
                    kept.pin.held += outcome.held;
                    self.pinned += outcome.held;
                }
                // It was let go while this piece was on its way.
                None if outcome.held > 0 => actions.push(Action::Release { pin }),
                None => {}
            }
        }
        self.finish_those_over(now, actions);
        Some(returned)
    }

    /// Errands may be over without a piece that comes back: they were ended while they rested, or had nothing to do.
    pub(super) fn finish_those_over(&mut self, now: Moment, actions: &mut Vec<Action>) {
        let over = self.errands.values().filter(|errand| errand.is_over());
        let over: Vec<LoadId> = over.map(|errand| errand.id).collect();
        over.into_iter().for_each(|id| self.finish(now, id, actions));
    }

    fn finish(&mut self, now: Moment, id: LoadId, actions: &mut Vec<Action>) {
        let Some(errand) = self.errands.remove(&id) else { return };
        actions.push(Action::Close { load: id });
        let through = !errand.is_closed() && errand.tally.failed == 0;
        let file = errand.model.parts.first().map(|part| part.file);
        if let Some(kept) = file
            .and_then(|file| self.kept.get_mut(&file))
            .filter(|kept| kept.errand == Some(id))
        {
            kept.errand = None;
            match errand.purpose {
                Purpose::Return if through => kept.returned(),
                Purpose::Return => kept.postponed(now),
                Purpose::Expected if through => kept.returned(),
                Purpose::Expected | Purpose::Behind => {}
                // Something of it went while it was being locked, or may not be.
                Purpose::Pin(_) if !through || !kept.pin.is_full(kept.bytes()) => {
                    kept.pin.barred_until = now.after(BARRED);
                }
                Purpose::Evict(_) => kept.dismiss(),
                Purpose::Drop => kept.dropped(),
                Purpose::Pin(_) | Purpose::Warm(_) => {}
            }
        }
        self.fulfilled(&errand);
        self.is_due = true;
    }
}
