//! The readers ask for something, or are announced: how sure we are, and what may be warmed for them.

use super::{FREEZE, Load, Stage};
use crate::{
    engine::{
        action::Action,
        evidence::{self, Evidence},
        happening::{Skip, What},
        input::{Access, AccessKind},
        plan::{
            admission::{self, Pace},
            benefit::Progress,
            budget::Budget,
            device::Device,
        },
        steps::Steps,
        walk::{Move, Walk},
    },
    units::{Moment, STEP},
};

impl Load {
    /// The reader accesses part `part`.
    pub fn demand(
        &mut self,
        part: usize,
        access: &Access,
        budget: &Budget,
        device: &mut Device,
        actions: &mut Vec<Action>,
    ) {
        if self.stage == Stage::Ended {
            return;
        }
        // Who looks at a header while others read neither begins their load nor keeps it open.
        if self.readers.counts(access.process) {
            if self.last_access.is_none() {
                self.started = access.at;
            }
            self.last_access = Some(access.at.max(self.last_access.unwrap_or_default()));
            self.frozen = false;
        }
        self.kinds.count(access);
        if access.kind == AccessKind::Map {
            self.readers.note_mapping(access.process);
            // In the event mode that tells of this, its touches are not.
            self.course.note_silence();
        }
        if !access.kind.is_demand() {
            return;
        }
        let Some(known) = self.model.parts.get(part) else {
            return;
        };
        let (size, header) = (known.size, known.header);
        let steps = self.parts[part].get_or_insert_with(|| Steps::new(size));
        let warm = steps.is_warm(access.range.start / STEP);
        let met = steps.demand(access.range, access.at);
        self.pace = self.admission.observe(access.at, met.fresh * STEP);

        let before = self.groups.of_thread(access.thread).map(|group| group.walk);
        let placed = self.groups.place(part, access);
        let moved = self.groups.follow(placed, part, access, met, warm);
        let helped = self.stage == Stage::Confirmed;
        let places = self.groups.alive(FREEZE);
        let Some(group) = self.groups.get_mut(placed.group) else {
            return;
        };
        if met.fresh > 0 {
            let window = group.window.size() / STEP;
            self.course.demanded(part, access.range.steps(), window, places);
        }
        // Where it was expected it does not jump.
        let along = self.course.order().is_some();
        let jumped = moved == Move::ColdJump && !along;
        group.window.consumed(met.used);
        let (at, fresh) = (access.at, met.fresh * STEP);
        let used = met.used + (met.waited - met.cold) * STEP;
        self.reliance.read(at, fresh, used, met.returned);
        if !warm && group.is_shared() {
            device.shared(access.range.len());
        }
        // A jump into a step that was accessed in passing is one into the cold as well.
        let cold = !warm && (met.fresh > 0 || jumped);
        if jumped {
            group.window.jumped(group.walk.typical_run());
            group.lost = group.walk.typical_run() < STEP;
        } else if along || group.walks(access, placed) {
            group.lost = false;
            if helped && group.window.size() == 0 {
                if group.inside && !placed.joined && !along {
                    group.window.open_in_the_middle();
                } else {
                    group.window.open(device.rate(), places);
                }
            }
            if group.inside {
                group.window.proven(group.walk.current_run(), device.rate(), places);
            }
        }
        let lost = group.lost;
        // Where the reader has caught up, or walks on after a jump, it wants the rest of the very step it is in: without readahead of its own
        // it would fetch it page by page.
        let follows = along || self.course.is_its_own() || group.walk.goes_far() || !self.reliance.is_on_its_own();
        let hops = !along && group.walk.typical_run() > 0;
        let walks = follows && (access.in_order || (cold && !lost));
        if walks && let Some(Some(steps)) = self.parts.get_mut(part) {
            steps.want_rest(access.range.start / STEP);
        }
        if self.stage == Stage::Confirmed {
            self.judge(device);
            let progress = Progress {
                fresh: met.fresh * STEP,
                waited: met.waited * STEP,
                cold: met.cold * STEP,
            };
            self.weigh(access.at, progress, device, actions);
            if let Some(before) = before.filter(|_| access.jump && !placed.joined) {
                self.leave(&before, (part, access.range.start / STEP));
            }
            if hops && self.reliance.is_to_be_asked() {
                self.ask_added(actions);
            }
            if self.groups.are_random(FREEZE) && !along {
                self.skip(Skip::Random, actions);
            }
        }
        if evidence::of_access(access, header) != Evidence::Progress {
            return;
        }
        if !self.readers.counts(access.process) {
            self.frozen = false;
            self.last_access = Some(access.at.max(self.last_access.unwrap_or_default()));
        }
        self.readers.note_progress(access.process);
        if matches!(self.stage, Stage::Suspected | Stage::Announced) {
            self.keeps_up = self.pace == Pace::Fast || self.is_served(device);
            self.confirm(access.at, device, budget, actions);
        }
    }

    /// A reader jumps to step `to` of a part.
    fn leave(&mut self, from: &Walk, (part, to): (usize, u64)) {
        if let Some(Some(steps)) = self.parts.get_mut(from.part()) {
            let to = (part == from.part()).then_some(to);
            self.reliance.left(steps.leave(from.step(), to));
        }
    }

    /// Strong evidence.
    fn confirm(&mut self, at: Moment, device: &mut Device, budget: &Budget, actions: &mut Vec<Action>) {
        let announced = self.stage == Stage::Announced;
        let along = self.course.order().is_some();
        self.stage = Stage::Confirmed;
        self.lead = announced.then(|| at.since(self.begun));
        if announced && self.in_flight > 0 {
            // A step that is brought in request by request would make the reader wait: what is left of it is done at once.
            actions.push(Action::Cancel { load: self.id });
        }
        self.evidence = self.evidence.max(Evidence::Progress);
        self.strong_at.get_or_insert(at);
        let places = self.groups.alive(FREEZE);
        for group in self.groups.iter_mut().filter(|group| !group.lost) {
            if group.inside && !along {
                group.window.open_in_the_middle();
            } else {
                group.window.open(device.rate(), places);
            }
        }
        if !announced {
            actions.push(Action::Tell(self.tell(
                What::Load,
                self.model_bytes(),
                budget.percent(),
                "reading".into(),
            )));
        }
        self.only_observe(actions);
        self.learn_from_others(device, actions);
    }

    /// The command line of `process` named part `part`.
    pub fn expect(&mut self, now: Moment, process: u32, part: usize, device: &Device, actions: &mut Vec<Action>) {
        self.readers.note_named(process);
        if self.stage != Stage::Suspected {
            return;
        }
        self.stage = Stage::Announced;
        self.evidence = Evidence::CommandLine;
        (self.begun, self.checked) = (now, now);
        self.strong_at.get_or_insert(now);
        self.expected = part;
        let group = self.groups.expect(part);
        if !admission::keeps_up(device.rate()) {
            group.window.open_unconfirmed(device.rate());
        }
        actions.push(Action::Tell(self.tell(
            What::Load,
            self.model_bytes(),
            0,
            "named on its command line".into(),
        )));
        self.ask_direct(actions);
        self.only_observe(actions);
    }

    fn only_observe(&mut self, actions: &mut Vec<Action>) {
        if self.dry_run {
            self.skip(Skip::DryRun, actions);
        } else if self.model.observe_only {
            self.skip(Skip::ObserveOnly, actions);
        } else if self.held_out {
            self.skip(Skip::HeldOut, actions);
        }
    }

    pub(super) fn ask_direct(&self, actions: &mut Vec<Action>) {
        let Some(part) = self.model.parts.get(self.expected) else {
            return;
        };
        let file = part.file;
        let asked = self.readers.taking_part().into_iter();
        actions.extend(asked.map(|process| Action::AskDirect { process, file }));
    }
}
