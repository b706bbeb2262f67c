//! Which step of a load may be warmed next, and handing it out.

use super::{FREEZE, Load, Stage};
use crate::{
    engine::{
        action::{Action, Manner, Task},
        happening::What,
        plan::budget::Budget,
        predict::sequence,
        steps::{Ahead, Steps, Wanted},
    },
    units::{ByteRange, STEP},
};

/// A step that may be warmed next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planned {
    /// Index of the part.
    pub part: usize,
    /// Index of the step in it.
    pub step: u64,
    /// Its bytes.
    pub range: ByteRange,
    /// Its device.
    pub device: u32,
    /// The group it lies ahead of.
    group: usize,
}

impl Load {
    /// Whether it could use a step.
    pub fn wants(&self) -> bool {
        matches!(self.stage, Stage::Announced | Stage::Confirmed)
            && !(self.frozen || self.keeps_up || self.benefit.holds())
            && self.groups.iter().any(|group| !group.lost && group.window.size() > 0)
    }

    /// Whether nobody was seen to read it yet: what is brought in gives way to everybody.
    pub fn is_speculative(&self) -> bool {
        self.stage == Stage::Announced
    }

    /// The next step that may be warmed, of the next group in turn, no more than `most_ahead` bytes ahead of any; `None` when the windows or the ceiling are full, or all is covered.
    pub fn next_step(&mut self, budget: &Budget, most_ahead: u64) -> Option<Planned> {
        if !self.wants() || !budget.admits(2 * STEP) {
            return None;
        }
        self.groups.rotation().find_map(|group| self.next_of(group, most_ahead))
    }

    /// The next step ahead of a group. What lies beyond the place of another group is that group's to warm.
    fn next_of(&mut self, index: usize, most_ahead: u64) -> Option<Planned> {
        let group = self.groups.get(index)?;
        let room = group.window.size().min(most_ahead);
        if group.lost || room == 0 || !self.groups.is_alive(group, FREEZE) && self.stage == Stage::Confirmed {
            return None;
        }
        let walk = group.walk;
        let (first, from, wanders) = (group.walk.part(), group.walk.step(), group.walk.wanders());
        let start = group.ahead();
        let reach = if self.readers.scan() {
            0
        } else {
            sequence::reach(self.model.layout, group.walk.in_order_parts())
        };
        let others: Vec<(usize, usize, u64)> = self
            .groups
            .iter()
            .enumerate()
            .filter(|(other, group)| *other != index && !group.lost && self.groups.is_alive(group, FREEZE))
            .map(|(other, group)| (other, group.walk.part(), group.walk.step()))
            .collect();
        // Of two in the same step the first counts as the one ahead.
        let before = |&&(other, part, step): &&(usize, usize, u64)| part == first && (step, index) > (from, other);
        let until = others.iter().filter(before).map(|(.., step)| *step).min();
        let mut ahead = 0;
        if let Some(planned) = self.next_in_order(index, (first, from, start), room, &mut ahead) {
            return planned;
        }
        // Where it is known what is read, jumps over the rest are none.
        let hops = walk.typical_run() > 0 && !walk.goes_far() && !self.course.is_its_own();
        if hops && self.reliance.is_on_its_own() {
            return None;
        }
        let room = if hops && self.reliance.is_in_doubt() {
            room.min(walk.ahead())
        } else {
            room
        };
        match self.look_ahead(first, start, until.unwrap_or(u64::MAX), Wanted::Again, room, &mut ahead)? {
            Ahead::Step(step) => return self.planned(index, first, step),
            Ahead::Enough => return None,
            Ahead::Nothing => {}
        }
        let last = first.saturating_add(reach).min(self.parts.len() - 1);
        // What lies beyond another's place is that one's.
        let following = if until.is_some() { 0..0 } else { first + 1..last + 1 };
        for part in following {
            if others.iter().any(|(_, other, _)| *other == part) || self.course.leaves_out_part(part) {
                continue;
            }
            match self.look_ahead(part, 0, u64::MAX, Wanted::Again, room, &mut ahead)? {
                Ahead::Step(step) => return self.planned(index, part, step),
                Ahead::Enough => return None,
                Ahead::Nothing => {}
            }
        }
        // A reader that jumps back and forth reads, as a rule, everything: tensors in an order of its own.
        if wanders && let Ahead::Step(step) = self.look_ahead(first, 0, from, Wanted::Unread, room, &mut ahead)? {
            return self.planned(index, first, step);
        }
        None
    }

    /// The next step in the order that is known, if the readers follow one and a group is in it: `None` where they do not, `Some(None)` where nothing is to be done ahead of this group.
    fn next_in_order(
        &mut self,
        index: usize,
        (part, from, start): (usize, u64, u64),
        room: u64,
        ahead: &mut u64,
    ) -> Option<Option<Planned>> {
        let known = self.course.order()?.clone();
        let here = u32::try_from(part).ok().zip(u32::try_from(from).ok());
        let rank = here.and_then(|(part, step)| known.order.rank(part, step));
        let rank = match rank {
            Some(rank) => rank.saturating_add(u32::try_from(start - from).unwrap_or(u32::MAX)),
            // It was announced: nobody is anywhere yet.
            None if self.stage == Stage::Announced => 0,
            None => return None,
        };
        for run in known.order.from(rank) {
            let (part, first) = (run.part as usize, u64::from(run.first));
            let until = first + u64::from(run.steps);
            match self.look_ahead(part, first, until, Wanted::Again, room, ahead)? {
                Ahead::Step(step) => return Some(self.planned(index, part, step)),
                Ahead::Enough => return Some(None),
                Ahead::Nothing => {}
            }
        }
        Some(None)
    }

    fn look_ahead(
        &mut self,
        part: usize,
        from: u64,
        until: u64,
        wanted: Wanted,
        room: u64,
        ahead: &mut u64,
    ) -> Option<Ahead> {
        let size = self.model.parts.get(part)?.size;
        let steps = self.parts.get_mut(part)?.get_or_insert_with(|| Steps::new(size));
        let left_out = |step| self.course.leaves_out(part, step);
        Some(steps.look_ahead(from..until, wanted, room, ahead, left_out))
    }

    fn planned(&self, group: usize, part: usize, step: u64) -> Option<Planned> {
        let device = self.model.parts.get(part)?.file.device;
        let range = self.parts.get(part)?.as_ref()?.range(step);
        Some(Planned {
            part,
            step,
            range,
            device,
            group,
        })
    }

    /// Hands a planned step to the workers.
    pub fn submit(&mut self, planned: &Planned, ceiling_percent: u8, actions: &mut Vec<Action>) {
        self.groups.served(planned.group);
        if let Some(Some(steps)) = self.parts.get_mut(planned.part) {
            steps.submit(planned.step);
        }
        if !self.stream_open && self.first_submit.is_none() {
            let note = format!("window of {}", self.window());
            actions.push(Action::Tell(self.tell(
                What::Warm,
                self.model_bytes(),
                ceiling_percent,
                note,
            )));
        }
        self.stream_open = true;
        self.in_flight += planned.range.len();
        let survey = !std::mem::replace(&mut self.surveyed[planned.part], true);
        let (load, model) = (self.id, self.model.clone());
        actions.push(Action::Warm {
            load,
            model,
            part: planned.part,
            range: planned.range,
            manner: Manner {
                task: Task::Warm,
                survey,
                speculative: self.is_speculative(),
                reader: self.readers.first(),
                charged: self.charged,
            },
        });
    }
}
