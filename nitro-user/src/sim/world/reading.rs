//! What readers do, and what the kernel does for them.

use std::time::Duration;

use super::{Actor, Turn, World, file};
use crate::{
    engine::{Access, Input},
    sim::{
        PAGE, Stay,
        cache::{By, OfPart, Page},
        cursor::Hook,
        machine::time_of,
        readahead::{Readahead, Window},
        reader::{Phase, Style},
    },
    units::{ByteRange, Moment, STEP},
};

/// Pages of a fault-around.
const AROUND: u64 = 16;

/// Pages that a mapping's reader touches before others get their turn.
const TOUCHED_AT_ONCE: u64 = 32;

/// Work is done in pieces, so that others get a processor in between.
const PIECE_OF_WORK: Duration = Duration::from_millis(2);

impl World<'_> {
    /// A reader's turn.
    pub(super) fn read(&mut self, now: Moment, index: usize) {
        let Some(reader) = self.readers.get_mut(index) else {
            return;
        };
        match std::mem::replace(&mut reader.phase, Phase::Visit) {
            Phase::Next => self.next_visit(now, index),
            Phase::Begin => self.begin(now, index),
            Phase::Visit => self.go_on(now, index),
            Phase::Think(left) => self.think(now, index, left),
            Phase::Pause(until) => {
                reader.phase = Phase::Next;
                self.sleep(now, Actor::Reader(index), until);
            }
            Phase::Done => reader.phase = Phase::Done,
        }
    }

    fn next_visit(&mut self, now: Moment, index: usize) {
        let list = self
            .readers
            .get(index)
            .and_then(|reader| reader.spec.shares)
            .unwrap_or(index);
        let visit = self.readers.get_mut(list).and_then(|owner| owner.left.pop_front());
        let Some(mut visit) = visit else {
            return self.done(now, index);
        };
        visit.range.end = visit.range.end.min(self.size(visit.part));
        let Some(reader) = self.readers.get_mut(index) else {
            return;
        };
        reader.visit = visit;
        (reader.at, reader.call_end) = (visit.range.start, visit.range.start);
        match visit.not_before.filter(|moment| *moment > now) {
            Some(moment) => {
                reader.phase = Phase::Begin;
                self.sleep(now, Actor::Reader(index), moment);
            }
            None => self.begin(now, index),
        }
    }

    fn begin(&mut self, now: Moment, index: usize) {
        self.note_opening(now, index);
        if let Some(reader) = self.readers.get_mut(index) {
            reader.began.get_or_insert(now);
            if reader.spec.shares.is_none() {
                reader.stays.push(Stay { began: now, ended: now });
            }
        }
        self.go_on(now, index);
    }

    fn done(&mut self, now: Moment, index: usize) {
        let Some(reader) = self.readers.get_mut(index) else {
            return;
        };
        reader.phase = Phase::Done;
        let (process, lives_on) = (reader.process, reader.spec.lives_on);
        self.leave(now, Actor::Reader(index));
        self.begin_what_follows(now, Some(index));
        self.close_tallies(index);
        if let Some(left) = self.at_work.get_mut(&process) {
            *left -= 1;
            if *left > 0 {
                return;
            }
            if lives_on.is_zero() {
                self.process_ends(now, process);
            } else {
                self.at(now.after(lives_on), Turn::End(process));
            }
        }
    }

    fn think(&mut self, now: Moment, index: usize, left: Duration) {
        let piece = left.min(PIECE_OF_WORK);
        if let Some(reader) = self.readers.get_mut(index) {
            reader.ended = Some(now);
            reader.phase = if piece.is_zero() {
                reader.pause(now)
            } else {
                Phase::Think(left - piece)
            };
        }
        self.run_for(now, Actor::Reader(index), piece);
    }

    fn go_on(&mut self, now: Moment, index: usize) {
        let Some(reader) = self.readers.get_mut(index) else {
            return;
        };
        if reader.at >= reader.visit.range.end {
            reader.ended = Some(now);
            if let Some(stay) = reader.stays.last_mut() {
                stay.ended = now;
            }
            reader.phase = reader.after_visit(now);
            return self.at(now, Turn::Act(Actor::Reader(index)));
        }
        reader.come(now);
        match reader.style() {
            Style::Read { call } => self.buffered(now, index, call),
            Style::Map | Style::MapRandom | Style::Populate => self.mapped(now, index),
            Style::Direct { call } => self.direct(now, index, call),
        }
    }

    fn direct(&mut self, now: Moment, index: usize, call: u64) {
        let Some(reader) = self.readers.get_mut(index) else {
            return;
        };
        let part = reader.visit.part;
        let end = (reader.at + call).min(reader.visit.range.end);
        let (mut start, mut done) = (std::mem::replace(&mut reader.at, end), now);
        self.cache.used_past(end - start);
        let largest = self.device.largest();
        while start < end {
            let next = start.saturating_add(largest).min(end);
            done = done.max(self.device.submit(now, part, ByteRange { start, end: next }, true));
            start = next;
        }
        self.sleep(now, Actor::Reader(index), done);
    }

    fn buffered(&mut self, now: Moment, index: usize, call: u64) {
        let Some(reader) = self.readers.get_mut(index) else {
            return;
        };
        let (part, at) = (reader.visit.part, reader.at);
        if at >= reader.call_end {
            reader.call_end = (at + call).min(reader.visit.range.end);
        }
        let end = reader.call_end;
        let (page, last) = (at / PAGE, end.div_ceil(PAGE));
        match self.cache.page(part, page) {
            Page::Absent => self.missed(now, index, page, last - page),
            Page::Marked => self.met_mark(now, index, page, last - page),
            Page::At(arrives) if arrives > now => self.sleep(now, Actor::Reader(index), arrives),
            Page::At(_) => {
                let there = (self.cache.usable(part, page..last, now) * PAGE).min(end);
                let asked = ByteRange { start: at, end };
                self.seen(now, index, Hook::Read, asked);
                self.use_up(now, index, there, self.scenario.machine.copy);
                if there == end {
                    self.readahead(index, |readahead| readahead.ended((end - 1) / PAGE));
                }
            }
        }
    }

    fn mapped(&mut self, now: Moment, index: usize) {
        let Some(reader) = self.readers.get(index) else { return };
        let (part, at, style) = (reader.visit.part, reader.at, reader.style());
        let (end, is_told) = (reader.visit.range.end, reader.is_told);
        let (page, last) = (at / PAGE, end.div_ceil(PAGE));
        let state = self.cache.page(part, page);
        if !is_told && !matches!(state, Page::At(arrives) if arrives <= now) {
            let fault = ByteRange {
                start: page * PAGE,
                end: ((page + 1) * PAGE).min(self.size(part)),
            };
            self.seen(now, index, Hook::Fault, fault);
        }
        let pages = self.window_pages(style);
        match state {
            Page::Absent => self.missed(now, index, page, 1),
            Page::Marked => self.met_mark(now, index, page, pages),
            Page::At(arrives) if arrives > now => self.sleep(now, Actor::Reader(index), arrives),
            Page::At(_) => {
                let there = self.cache.usable(part, page..last.min(page + TOUCHED_AT_ONCE), now);
                let mut start = page;
                while start < there {
                    let around = (start / AROUND + 1) * AROUND;
                    let range = ByteRange {
                        start: start * PAGE,
                        end: (around.min(there) * PAGE).min(self.size(part)),
                    };
                    self.seen(now, index, Hook::Mapped, range);
                    start = around;
                }
                self.readahead(index, |readahead| readahead.mapped(there - page));
                let rate = match style {
                    Style::Populate => self.scenario.machine.populate,
                    _ => self.scenario.machine.touch,
                };
                self.use_up(now, index, (there * PAGE).min(end), rate);
            }
        }
    }

    /// The reader copies, or touches, what lies before `end`.
    fn use_up(&mut self, now: Moment, index: usize, end: u64, rate: f64) {
        let Some(reader) = self.readers.get_mut(index) else {
            return;
        };
        let (part, start) = (reader.visit.part, std::mem::replace(&mut reader.at, end));
        (reader.is_told, reader.missed) = (false, None);
        if !reader.spec.helps {
            let served = self.cache.use_up(part, ByteRange { start, end }, reader.since());
            reader.served = reader.served.plus(served);
            if reader.spec.copies {
                self.copy(now, index, end - start);
            }
        }
        let work = time_of(end - start, rate);
        self.run_for(now, Actor::Reader(index), work);
    }

    /// The part that a reader is in, and how it reads it.
    fn visited(&self, index: usize) -> Option<(usize, Style)> {
        let reader = self.readers.get(index)?;
        Some((reader.visit.part, reader.style()))
    }

    /// The page where the reader is, is not there, and it wants so many from there on.
    fn missed(&mut self, now: Moment, index: usize, page: u64, wanted: u64) {
        let Some((part, style)) = self.visited(index) else {
            return;
        };
        if let Some(reader) = self.readers.get_mut(index)
            && reader.missed.replace(page) == Some(page)
        {
            // Brought in and evicted in the same moment, for want of memory.
            let end = ((page + 1) * PAGE).min(reader.visit.range.end);
            return self.use_up(now, index, end, self.scenario.machine.copy);
        }
        let mut readahead = self.readahead(index, |readahead| *readahead);
        let window = match style {
            Style::Read { .. } | Style::Direct { .. } => {
                readahead.missed_by_read(page, wanted, &OfPart(&self.cache, part))
            }
            Style::Map | Style::Populate => readahead.missed_by_map(page),
            Style::MapRandom => Window::plain(page, 1),
        };
        self.readahead(index, |kept| *kept = readahead);
        self.window(now, index, window);
    }

    fn met_mark(&mut self, now: Moment, index: usize, page: u64, wanted: u64) {
        let Some((part, style)) = self.visited(index) else {
            return;
        };
        self.cache.mark(part, page, false);
        let mut readahead = self.readahead(index, |readahead| *readahead);
        let window = match style {
            Style::MapRandom => None,
            _ => readahead.met_mark(page, wanted, &OfPart(&self.cache, part)),
        };
        self.readahead(index, |kept| *kept = readahead);
        match window {
            Some(window) => self.window(now, index, window),
            None => self.at(now, Turn::Act(Actor::Reader(index))),
        }
    }

    /// The reader brings a window in.
    fn window(&mut self, now: Moment, index: usize, window: Window) {
        let Some((part, style)) = self.visited(index) else {
            return;
        };
        let mut fault = match style {
            Style::Read { .. } | Style::Direct { .. } => Duration::ZERO,
            Style::Map | Style::MapRandom | Style::Populate => self.scenario.machine.fault,
        };
        if let Some(reader) = self.readers.get_mut(index)
            && !std::mem::replace(&mut reader.has_missed, true)
        {
            fault += self.scenario.machine.begin;
        }
        let helps = self.readers.get(index).is_some_and(|reader| reader.spec.helps);
        let by = if helps { By::Help } else { By::Reader };
        let brought = self.bring_in(now.after(fault), by, part, window);
        if let Some(reader) = self.readers.get_mut(index) {
            let cursor = reader.cursors.entry(part).or_default();
            brought.ranges.into_iter().for_each(|range| cursor.add(range));
        }
        self.run_for(now, Actor::Reader(index), fault + brought.work);
    }

    /// Pages that a descriptor of this style reads ahead.
    fn window_pages(&self, style: Style) -> u64 {
        let pages = (self.scenario.device.read_ahead / PAGE).max(1);
        if style == Style::Populate { 2 * pages } else { pages }
    }

    /// The readahead of the reader's descriptor of the part that it is in.
    fn readahead<T>(&mut self, index: usize, change: impl FnOnce(&mut Readahead) -> T) -> T {
        let style = self.readers.get(index).map_or(Style::Map, |reader| reader.style());
        let mut fresh = Readahead::new(self.window_pages(style), self.scenario.device.request / PAGE);
        match self.readers.get_mut(index) {
            Some(reader) => change(reader.readahead.entry(reader.visit.part).or_insert(fresh)),
            None => change(&mut fresh),
        }
    }

    /// The agent's programs see an access.
    fn seen(&mut self, now: Moment, index: usize, hook: Hook, range: ByteRange) {
        let Some(reader) = self.readers.get_mut(index) else {
            return;
        };
        let part = reader.visit.part;
        reader.is_told = hook == Hook::Fault;
        let Some(seen) = reader.cursors.entry(part).or_default().access(hook, range) else {
            return;
        };
        let process = reader.process;
        if self.simple.is_some() {
            let notice = Turn::Notice(process, part, range.start / STEP, false);
            return self.at(now.after(self.scenario.machine.hear), notice);
        }
        let access = Access {
            at: now,
            process: reader.process,
            thread: reader.thread,
            file: file(part),
            generation: 1,
            range,
            kind: reader.style().kind(),
            jump: seen.jump,
            in_order: seen.in_order,
            written: false,
        };
        self.say(now, Input::Access(access));
    }
}
