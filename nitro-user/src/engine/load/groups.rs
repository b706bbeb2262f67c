//! Where a load's readers are: cursor groups.
//!
//! A group is one place at which one thread, or several together, move on: thirty-two threads that take the next 128 KiB in turn are one group, eight ranks that
//! began one after the other are eight, and so are eight places between which a single thread goes round. Each has a walk and a window of its own;
//! what one of them has warmed or read the others find (see `steps_ahead`).

#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use crate::{
    engine::{
        input::Access,
        plan::window::Window,
        steps::Met,
        walk::{Move, Walk},
    },
    units::{ByteRange, Moment, STEP},
};

/// Groups of one load; the one that was silent for longest makes room.
const MOST_GROUPS: usize = 64;

/// Threads remembered; past it, all are placed again.
const MOST_THREADS: usize = 4096;

/// Places left by a jump that are remembered, in case the reader comes back.
const MOST_BOOKMARKS: usize = 64;

/// What a walk may leave out and still be the same: padding, small tensors.
const GAP: u64 = 256 << 10;

/// An access so close to where a group is goes on there, for each thread of the group: of what a thread does within a step nothing is heard …
const CLOSE: u64 = STEP + GAP;

/// … up to this many.
const MOST_CLOSE: u64 = 32;

/// What a jump still counts after the next when it is asked whether most of them are returns.
const FADE: f64 = 15.0 / 16.0;

/// So often somebody has come back to a place, or has read a step in a row there, before it counts as one that is walked on from: of shuffled records, too, every other one begins where another ended.
const OFTEN: u32 = 3;

/// Jumps in a row to places that were not warmed, without a walk in between, after which a load of one thread is taken for a random one: more than
/// places that one thread goes round between.
const HOPS: u32 = 40;

/// Most steps that are left to the threads of a group so that what is warmed for them is ahead of them.
const MOST_LEAD: u64 = 16;

/// One group.
#[derive(Clone, Debug)]
pub struct Group {
    /// Never used again in this load.
    id: u32,
    /// How it moves.
    pub walk: Walk,
    /// What may be warmed ahead of it.
    pub window: Window,
    /// Nothing is warmed until it walks: it is new, or it jumped into the cold.
    pub lost: bool,
    /// It began elsewhere than at the start of a part, or where another left off.
    pub inside: bool,
    /// Where whoever left off here had begun to walk.
    began: u64,
    /// Byte after the furthest access.
    front: u64,
    /// How far it may have come since without a word: to the end of the step it was last heard in.
    reach: u64,
    /// Steps from here on that are not worth the while: its threads would be there first.
    lead: u64,
    threads: u32,
    accesses: u32,
    returns: u32,
    last: Moment,
}

impl Group {
    fn begin(id: u32, part: usize, at: u64) -> Self {
        let mut walk = Walk::begin(part);
        walk.place(at);
        Self {
            id,
            walk,
            window: Window::default(),
            lost: true,
            inside: at >= STEP,
            began: at,
            front: at,
            reach: at,
            lead: 0,
            threads: 0,
            accesses: 0,
            returns: 0,
            last: Moment(0),
        }
    }

    /// Whether it moves on, and does not merely land somewhere.
    pub fn walks(&self, access: &Access, placed: Placed) -> bool {
        if placed.joined {
            return placed.returns && (self.returns >= OFTEN || self.walk.run_start() >= self.began + STEP);
        }
        // After jumps that left short runs behind, a long one must prove that this is another kind of reading.
        let usual = self.walk.typical_run();
        let long = usual == 0 || usual.max(self.walk.current_run()) >= STEP;
        self.accesses > 1 && long && (access.in_order || !access.jump)
    }

    /// A thread comes from `from`. One that walks far between its jumps, as through tensors in an order of their own, goes on as after any jump, with the window it had: that another tensor ended here
    /// is chance as often as not.
    fn take_over(&mut self, from: &Self) {
        let usual = from.walk.typical_run();
        if usual >= STEP && !from.lost && self.window.size() < from.window.size() {
            self.window = from.window;
            self.window.jumped(usual);
            (self.lost, self.inside) = (false, false);
        }
    }

    /// Whether several threads move on here.
    pub fn is_shared(&self) -> bool {
        self.threads > 1
    }

    /// The first step that is worth warming.
    pub fn ahead(&self) -> u64 {
        let lead = if self.is_shared() { self.lead } else { 0 };
        self.walk.step() + lead
    }

    /// Between which bytes its last walk ended.
    fn end(&self) -> ByteRange {
        ByteRange {
            start: self.front,
            end: self.reach.max(self.front),
        }
    }

    /// Whether an access at `at` goes on here.
    fn is_at(&self, part: usize, at: u64) -> bool {
        if self.walk.part() != part {
            return false;
        }
        if self.threads == 0 {
            return is_return(self.end(), at);
        }
        let close = CLOSE * u64::from(self.threads).min(MOST_CLOSE);
        at.abs_diff(self.front) <= close
    }
}

/// Whether `at` is where a walk that ended within `end` goes on: where it was heard last, or at the end of what it may have read since.
fn is_return(end: ByteRange, at: u64) -> bool {
    at.wrapping_sub(end.start) <= GAP || at.wrapping_sub(end.end) <= GAP
}

/// A place that a thread left.
#[derive(Clone, Copy, Debug)]
struct Bookmark {
    part: usize,
    /// Between which bytes it left.
    end: ByteRange,
    /// Where it had begun to walk.
    run_start: u64,
}

/// What an access meant.
#[derive(Clone, Copy, Debug)]
pub struct Placed {
    /// Index of its group.
    pub group: usize,
    /// It goes on there, though the thread comes from elsewhere.
    pub joined: bool,
    /// Most jumps of the load's threads come back to a place that was left.
    pub returns: bool,
}

/// The groups of one load.
#[derive(Debug, Default)]
pub struct Groups {
    groups: Vec<Group>,
    of_thread: HashMap<u32, u32>,
    bookmarks: VecDeque<Bookmark>,
    next: u32,
    /// The last access.
    latest: Moment,
    /// Jumps that came back to a place, and others; older ones fade.
    returns: (f64, f64),
    hops: u32,
    /// Which one is served next.
    turn: usize,
    /// Accesses that did not go on where their thread was.
    jumps: u64,
    /// Most that were alive at once.
    most: usize,
}

impl Groups {
    /// The load is expected to begin in `part`.
    pub fn expect(&mut self, part: usize) -> &mut Group {
        let group = self.spawn(part, 0);
        let group = &mut self.groups[group];
        group.lost = false;
        group
    }

    /// All groups.
    pub fn iter(&self) -> impl Iterator<Item = &Group> {
        self.groups.iter()
    }

    /// All groups.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Group> {
        self.groups.iter_mut()
    }

    /// One of them.
    pub fn get(&self, group: usize) -> Option<&Group> {
        self.groups.get(group)
    }

    /// One of them.
    pub fn get_mut(&mut self, group: usize) -> Option<&mut Group> {
        self.groups.get_mut(group)
    }

    /// The group that a thread was in last.
    pub fn of_thread(&self, thread: u32) -> Option<&Group> {
        let id = self.of_thread.get(&thread)?;
        self.groups.iter().find(|group| group.id == *id)
    }

    /// Indices in the order in which they are to be served; the first is served next.
    pub fn rotation(&self) -> impl Iterator<Item = usize> + use<> {
        let (turn, count) = (self.turn, self.groups.len());
        (0..count).map(move |index| (turn + index) % count)
    }

    /// A group was served.
    pub fn served(&mut self, group: usize) {
        self.turn = group + 1;
    }

    /// They hop and do not walk.
    pub fn are_random(&self, silence: Duration) -> bool {
        let alive = self.groups.iter().filter(|group| self.is_alive(group, silence));
        let threads = alive.map(|group| group.threads).fold(0, u32::saturating_add);
        self.hops >= HOPS.saturating_mul(threads.max(1))
    }

    /// Finds the group that an access belongs to, or makes one.
    pub fn place(&mut self, part: usize, access: &Access) -> Placed {
        let at = access.range.start;
        let own = self.index_of(access.thread);
        if let Some(own) = own
            && !access.jump
            && self.groups[own].walk.part() == part
        {
            return self.placed(own, false);
        }
        let nearest = self
            .groups
            .iter()
            .enumerate()
            .filter(|(_, group)| group.is_at(part, at))
            .min_by_key(|(_, group)| group.front.abs_diff(at))
            .map(|(index, _)| index);
        if let Some(group) = nearest {
            let joined = own != Some(group) || self.groups[group].threads > 1;
            if joined && own.is_some() {
                self.count_return(true);
            }
            if self.groups[group].threads == 0 {
                // Nobody was here: it may be by chance.
                self.groups[group].walk.place(at);
                if let Some(own) = own {
                    self.hand_over(own, group);
                }
            }
            self.move_thread(access.thread, group);
            return self.placed(group, joined);
        }
        if let Some(bookmark) = self.bookmark_at(part, at) {
            let run_start = self
                .bookmarks
                .remove(bookmark)
                .map_or(at, |bookmark| bookmark.run_start);
            self.count_return(true);
            if let Some(own) = own {
                // It is one of several places from now on.
                self.groups[own].returns += 1;
            }
            let before = own.map(|own| self.groups[own].clone());
            let group = self.spawn(part, at);
            let found = &mut self.groups[group];
            if let Some(before) = before {
                found.walk = before.walk;
                found.walk.expect(part);
                found.take_over(&before);
            }
            found.walk.place(at);
            found.began = run_start;
            self.move_thread(access.thread, group);
            return self.placed(group, true);
        }
        match own {
            Some(own) if self.groups[own].threads == 1 => {
                let left = self.groups[own].walk.part();
                if left == part {
                    self.count_return(false);
                    if self.bookmarks.len() == MOST_BOOKMARKS {
                        self.bookmarks.pop_front();
                    }
                    let own = &self.groups[own];
                    self.bookmarks.push_back(Bookmark {
                        part,
                        end: own.end(),
                        run_start: own.walk.run_start(),
                    });
                }
                self.groups[own].front = at;
                self.placed(own, false)
            }
            _ => {
                let first = self.of_thread.is_empty();
                let before = own.map(|own| self.groups[own].clone());
                let group = self.spawn(part, at);
                match before {
                    // The next part, where the others will follow.
                    Some(before) if part == before.walk.part() + 1 => {
                        let found = &mut self.groups[group];
                        found.walk = before.walk;
                        found.window = before.window;
                        found.lost = before.lost;
                        found.inside = before.inside;
                    }
                    // Who begins elsewhere must prove that it walks.
                    _ if first && at < STEP => self.groups[group].lost = false,
                    _ if first => {}
                    _ => {
                        self.count_return(false);
                        self.hops += 1;
                    }
                }
                self.move_thread(access.thread, group);
                self.placed(group, false)
            }
        }
    }

    fn hand_over(&mut self, from: usize, to: usize) {
        let from = self.groups[from].clone();
        self.groups[to].take_over(&from);
    }

    fn placed(&self, group: usize, joined: bool) -> Placed {
        let (came_back, others) = self.returns;
        Placed {
            group,
            joined,
            returns: came_back >= others,
        }
    }

    fn count_return(&mut self, came_back: bool) {
        let (back, others) = &mut self.returns;
        *back *= FADE;
        *others *= FADE;
        *(if came_back { back } else { others }) += 1.0;
    }

    /// Follows an access that was placed; `warm` says that its place was warmed or is being warmed.
    pub fn follow(&mut self, placed: Placed, part: usize, access: &Access, met: Met, warm: bool) -> Move {
        let Some(group) = self.groups.get_mut(placed.group) else {
            return Move::On;
        };
        self.jumps += u64::from(access.jump);
        let onwards = Access {
            jump: access.jump && !placed.joined,
            ..*access
        };
        let moved = group.walk.follow(part, &onwards, warm);
        group.reach = (access.range.start / STEP + 1) * STEP;
        group.front = if moved == Move::ColdJump || group.walk.part() != part || group.threads <= 1 {
            access.range.end
        } else {
            group.front.max(access.range.end)
        };
        group.last = access.at;
        self.latest = self.latest.max(access.at);
        group.accesses = group.accesses.saturating_add(1);
        if placed.joined {
            group.returns = group.returns.saturating_add(1);
        }
        let walks = access.in_order || moved == Move::On && met.fresh > 0 && !access.jump;
        if walks || placed.joined && group.walks(access, placed) {
            self.hops = 0;
        } else if moved == Move::ColdJump {
            self.hops += 1;
        }
        moved
    }

    /// A step of `part` came back; `overtaken` says that the readers had been there first. Threads that have as many requests with the device as we do take a step
    /// while it waits for its turn: where they are ahead of us they stay ahead, unless some steps are left to them. Whether that is so.
    pub fn warmed(&mut self, part: usize, step: u64, overtaken: bool) -> bool {
        let here = self.groups.iter_mut().filter(|group| group.walk.part() == part);
        let Some(group) = here.min_by_key(|group| group.walk.step().abs_diff(step)) else {
            return false;
        };
        group.lead = if overtaken {
            (2 * group.lead).clamp(2, MOST_LEAD)
        } else {
            group.lead.saturating_sub(1)
        };
        overtaken && group.is_shared()
    }

    /// How many are somebody's place; one at least.
    pub fn alive(&mut self, silence: Duration) -> usize {
        let alive = self.groups.iter().filter(|group| self.is_alive(group, silence)).count();
        self.most = self.most.max(alive);
        alive.max(1)
    }

    /// Most that were alive at once.
    pub fn most(&self) -> usize {
        self.most
    }

    /// Whether nobody ever jumped.
    pub fn only_walk(&self) -> bool {
        self.jumps == 0
    }

    /// Whether a group is somebody's place: a thread is there, or comes back there.
    pub fn is_alive(&self, group: &Group, silence: Duration) -> bool {
        (group.threads > 0 || group.returns >= OFTEN) && self.latest.since(group.last) < silence
    }

    fn index_of(&self, thread: u32) -> Option<usize> {
        let id = self.of_thread.get(&thread)?;
        self.groups.iter().position(|group| group.id == *id)
    }

    fn bookmark_at(&self, part: usize, at: u64) -> Option<usize> {
        let is_there = |bookmark: &Bookmark| bookmark.part == part && is_return(bookmark.end, at);
        self.bookmarks.iter().position(is_there)
    }

    fn move_thread(&mut self, thread: u32, to: usize) {
        // Asked anew: its group may have made room for another.
        let from = self.index_of(thread);
        if from == Some(to) {
            return;
        }
        if let Some(from) = from.and_then(|from| self.groups.get_mut(from)) {
            from.threads = from.threads.saturating_sub(1);
        }
        if self.of_thread.len() >= MOST_THREADS {
            self.of_thread.clear();
            self.groups.iter_mut().for_each(|group| group.threads = 0);
        }
        let group = &mut self.groups[to];
        group.threads += 1;
        self.of_thread.insert(thread, group.id);
    }

    fn spawn(&mut self, part: usize, at: u64) -> usize {
        let id = self.next;
        self.next += 1;
        let fresh = Group::begin(id, part, at);
        if self.groups.len() < MOST_GROUPS {
            self.groups.push(fresh);
            return self.groups.len() - 1;
        }
        let oldest = self.groups.iter().enumerate().min_by_key(|(_, group)| group.last);
        let oldest = oldest.map_or(0, |(index, _)| index);
        let gone = std::mem::replace(&mut self.groups[oldest], fresh).id;
        self.of_thread.retain(|_, id| *id != gone);
        oldest
    }
}
