//! What the workers' threads do.

use std::time::Duration;

use super::{Actor, DEVICE, Turn, World, file, part_of};
use crate::{
    engine::{
        Input, LoadId, Outcome,
        action::{Manner, Task},
        input::StepEnd,
    },
    sim::{
        PAGE,
        cache::By,
        readahead::Window,
        warmer::{Chain, Command, Gentle, Stream},
    },
    units::{ByteCount, ByteRange, Moment, STEP},
};

/// What a worker's thread does next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    /// It works for so long.
    Work(Duration),
    /// It waits for the device.
    Wait(Moment),
    /// It waits for another step.
    Rest,
}

/// A device whose requests or readahead are smaller or larger than this is read in calls, not by the kernel's readahead.
const MOST_READ_AHEAD: u64 = 1 << 20;

impl World<'_> {
    /// The engine hands out a step.
    pub(super) fn warm(&mut self, now: Moment, load: LoadId, command: Command) {
        let Command { part, range, .. } = command;
        if range.end > self.size(part) || range.is_empty() {
            let size = ByteCount(self.size(part));
            self.broken(&format!("part {part}: {range:?} lies outside a file of {size}"));
        }
        if self.closed.contains(&load) {
            self.broken("a step for a load that has ended");
        }
        let stream = self.streams.entry(load).or_default();
        stream.is_cancelled = false;
        stream.queue.push_back(command);
        if !std::mem::replace(&mut stream.is_busy, true) {
            self.at(now.after(self.scenario.machine.wake), Turn::Wake(Actor::Worker(load)));
        }
    }

    /// The engine takes back what was not begun.
    pub(super) fn cancel(&mut self, now: Moment, load: LoadId) {
        let Some(stream) = self.streams.get_mut(&load) else {
            return;
        };
        stream.is_cancelled = stream.gentle.is_some();
        for command in std::mem::take(&mut stream.queue) {
            let outcome = outcome_of(load, command, now);
            self.say(now, Input::Outcome(outcome));
        }
    }

    /// A worker's turn: it submits what is queued, and else waits for the oldest step on its way.
    pub(super) fn work(&mut self, now: Moment, load: LoadId) {
        let Some(mut stream) = self.streams.remove(&load) else {
            return;
        };
        let next = if let Some(gentle) = stream.gentle.take() {
            self.go_on_gently(now, gentle, &mut stream)
        } else if let Some(command) = stream.queue.pop_front() {
            self.start(now, outcome_of(load, command, now), command.manner, &mut stream)
        } else if let Some((step, task)) = stream.pending.pop_front() {
            let arrives = self.cache.arrives(part_of(step.file), step.range);
            if arrives > now {
                stream.pending.push_front((step, task));
                Next::Wait(arrives)
            } else {
                self.finish(now, step, task, StepEnd::Done);
                Next::Work(Duration::ZERO)
            }
        } else {
            Next::Rest
        };
        stream.is_busy = next != Next::Rest;
        self.streams.insert(load, stream);
        let actor = Actor::Worker(load);
        match next {
            Next::Work(work) => self.run_for(now, actor, work),
            Next::Wait(until) => self.sleep(now, actor, until),
            Next::Rest => self.leave(now, actor),
        }
    }

    /// Begins a step.
    fn start(&mut self, now: Moment, mut outcome: Outcome, manner: Manner, stream: &mut Stream) -> Next {
        let (part, range) = (part_of(outcome.file), outcome.range);
        let opening = if stream.parts.contains_key(&part) {
            self.scenario.machine.request
        } else {
            self.scenario.machine.open
        };
        let found = self.cache.present(part, range);
        let chain = stream.parts.entry(part).or_default();
        let claimed = chain.brought_before(range);
        self.report.warmed_bytes -= claimed;
        let ours = claimed.min(found);
        (outcome.before, outcome.submitted) = (found - ours, now);
        if manner.task == Task::Drop {
            self.drop_pages(now, part, range);
            (outcome.end, outcome.after) = (StepEnd::Done, self.cache.present(part, range));
            self.say(now, Input::Outcome(outcome));
            return Next::Work(opening);
        }
        let all = ByteRange::new(0, self.size(part));
        let is_there = found >= range.len();
        let surveys = manner.survey && manner.task == Task::Warm;
        let is_all_there = is_there && surveys && self.cache.present(part, all) >= all.len();
        if is_all_there || is_there && ours == 0 {
            outcome.end = if is_all_there {
                StepEnd::WholePartResident
            } else {
                StepEnd::Done
            };
            outcome.after = outcome.before;
            self.fulfil(manner.task, part, &mut outcome);
            self.say(now, Input::Outcome(outcome));
            return Next::Work(opening);
        }
        if manner.speculative {
            stream.gentle = Some(Gentle {
                outcome,
                task: manner.task,
                start: range.start,
                asked: None,
            });
            return Next::Work(opening);
        }
        let (_, work) = self.submit(now, part, range, chain);
        outcome.beyond = chain.beyond(range.end);
        stream.pending.push_back((outcome, manner.task));
        Next::Work(opening + work)
    }

    /// One request of a step whose reader is not there yet; nothing more once somebody else uses the device.
    fn go_on_gently(&mut self, now: Moment, mut gentle: Gentle, stream: &mut Stream) -> Next {
        let mut outcome = gentle.outcome;
        let (part, range) = (part_of(outcome.file), outcome.range);
        let others = match gentle.asked.take() {
            Some((end, own)) => {
                gentle.start = end;
                self.quiet.is_some_and(|before| self.device.bytes - before > own)
            }
            None => self.quiet.is_some_and(|before| self.device.bytes != before) || self.device.busy_until > now,
        };
        // Where there is no block device nothing is counted, and it looks quiet.
        let others = others && self.device.spec.request > 0;
        self.quiet = Some(self.device.bytes);
        if others || stream.is_cancelled {
            outcome.beyond = stream.parts.entry(part).or_default().beyond(range.end);
            self.finish(now, outcome, gentle.task, StepEnd::Yielded);
            return Next::Work(Duration::ZERO);
        }
        if gentle.start >= range.end {
            stream.pending.push_back((outcome, gentle.task));
            return Next::Work(Duration::ZERO);
        }
        let request = ByteRange {
            start: gentle.start,
            end: (gentle.start + self.call()).min(range.end),
        };
        let chain = stream.parts.entry(part).or_default();
        let (bytes, _) = self.submit(now, part, request, chain);
        let within = ByteRange {
            start: request.end,
            end: range.end,
        };
        self.report.warmed_bytes -= chain.brought_before(within);
        gentle.asked = Some((request.end, bytes));
        stream.gentle = Some(gentle);
        Next::Wait(self.cache.arrives(part, request))
    }

    fn finish(&mut self, now: Moment, mut outcome: Outcome, task: Task, end: StepEnd) {
        let there = self.cache.resident(part_of(outcome.file), outcome.range, now);
        (outcome.end, outcome.after, outcome.completed) = (end, there.max(outcome.before), now);
        self.report.warmed_bytes += outcome.gained();
        self.fulfil(task, part_of(outcome.file), &mut outcome);
        self.say(now, Input::Outcome(outcome));
    }

    /// Bytes of one call, in whole MiB where there are.
    fn call(&self) -> u64 {
        let spec = self.scenario.device;
        // Without a block device the agent says that it reads in order, which doubles the readahead.
        let times = if spec.request == 0 { 2 } else { 1 };
        let largest = times * spec.request.max(spec.read_ahead);
        if largest >= MOST_READ_AHEAD {
            (largest / MOST_READ_AHEAD * MOST_READ_AHEAD).min(STEP)
        } else {
            largest.max(PAGE)
        }
    }

    /// Asks for what is missing of a range. Returns the bytes that it brings in, and the processor time that it takes.
    fn submit(&mut self, now: Moment, part: usize, range: ByteRange, chain: &mut Chain) -> (u64, Duration) {
        let spec = self.scenario.device;
        let is_chain = spec.read_ahead > 0 && spec.read_ahead <= MOST_READ_AHEAD && spec.request >= spec.read_ahead;
        let (mut from, end) = (range.start / PAGE, range.end.div_ceil(PAGE));
        let (pages, call) = (spec.request / PAGE, self.call() / PAGE);
        let (mut ranges, mut work) = (Vec::new(), Duration::ZERO);
        loop {
            from = self.cache.next_missing(part, from, end.saturating_sub(from));
            if from >= end {
                break;
            }
            let brought = if is_chain {
                let (window, used) = chain.extend(from, pages);
                if let Some(used) = used {
                    self.cache.mark(part, used, false);
                }
                let brought = self.bring_in(now.after(work), By::Help, part, window);
                let next = self.cache.next_missing(part, from, 2 * pages);
                // Where there is no memory left, what was brought in is gone at once.
                from = if next > from { next } else { from + pages };
                chain.remember(window, from);
                brought
            } else {
                let size = call.min(end - from);
                let brought = self.bring_in(now.after(work), By::Help, part, Window::plain(from, size));
                from += size;
                brought
            };
            ranges.extend(brought.ranges);
            work += brought.work;
        }
        let place = ByteRange {
            start: range.end,
            end: (from * PAGE).max(range.end),
        };
        let past = |piece: &ByteRange| piece.end.saturating_sub(piece.start.max(range.end));
        let beyond = ranges.iter().map(past).sum();
        chain.note_beyond(place, beyond);
        self.report.warmed_bytes += beyond;
        (ranges.iter().map(|piece: &ByteRange| piece.len()).sum(), work)
    }
}

fn outcome_of(load: LoadId, command: Command, now: Moment) -> Outcome {
    Outcome {
        load,
        part: command.position,
        file: file(command.part),
        device: DEVICE,
        range: command.range,
        end: StepEnd::Cancelled,
        before: 0,
        after: 0,
        beyond: 0,
        held: 0,
        submitted: now,
        completed: now,
    }
}
