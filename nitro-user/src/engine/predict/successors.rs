//! What a program loads next: a Markov model of variable order over the models that it loaded before.
//!
//! In: loads, one after the other. Out: candidates for the next one, each with a confidence that was checked against what came true, and when it is due. It knows
//! neither files nor memory, and has no clock.
//!
//! A program's loads are looked at by themselves, whatever others load in between. After [`HORIZON`] without one it begins anew; that nothing came is learned as well.
//! Loads within [`TOGETHER`] of each other are taken for things that belong together, a base and its adapter, a projector and its model: whichever comes first stands for
//! the others.

mod blend;
#[cfg(test)]
mod measure;
mod table;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod workloads;

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use self::{
    blend::{Share, after, beginning, blend, contexts, is_within, later, with},
    table::{Context, Table},
};
use super::calibration::Calibration;
use crate::engine::learn::{
    fading::{Times, seconds},
    row::{Change, MOST_CONTEXT, Number, Row},
};

/// A program that has loaded nothing for so long begins anew.
pub const HORIZON: Duration = Duration::from_secs(3600);

/// Loads that follow each other so closely belong together.
pub const TOGETHER: Duration = Duration::from_secs(10);

/// Rows that are kept.
pub const MOST_ROWS: usize = 1_000_000;

/// A habit that was given up counts half after so long. Measured as in `blend`: 14 days 1.995 bits, 30 1.955, 60 1.949, but where habits change 60 days are worse (1.581
/// instead of 1.555).
pub const HALF_LIFE: Duration = Duration::from_secs(30 * 86_400);

/// Candidates of one prediction.
pub const MOST_CANDIDATES: usize = 8;

/// What is less likely is not offered.
const LEAST: f64 = 0.02;

/// Models that belong together, at most: more, and the program reads everything.
const MOST_TOGETHER: usize = 8;

/// Models whose followers are looked at in turn, for what is loaded together with them …
const MOST_EXPANDED: usize = 6;

/// … where they are as likely as this.
const WORTH_EXPANDING: f64 = 0.1;

/// A model that may be loaded next, or together with the next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// Which.
    pub model: Number,
    /// How often such a prediction comes true, 0–1.
    pub confidence: f32,
    /// The same before it was corrected by experience.
    pub raw: f32,
    /// From now until it is loaded: no sooner in nine of ten cases, in half of them, and no later in nine of ten.
    pub due: [Duration; 3],
    /// Why.
    pub reason: Reason,
}

/// What a candidate is concluded from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reason {
    /// Whose habit it is; 0 where that program has none, and it is what any program does.
    pub program: Number,
    /// After these models, the last one first; [`BEGINNING`](crate::engine::learn::row::BEGINNING) stands for nothing for long, 0 for whatever came before.
    pub context: [Number; MOST_CONTEXT],
    /// So often it came, …
    pub times: f32,
    /// … of so many times; both fade.
    pub of: f32,
    /// It comes together with this one, which may be next.
    pub with: Option<Number>,
}

#[derive(Clone, Debug, Default)]
struct Session {
    /// What is looked at for what follows: what was loaded together in the order of its numbers, whichever came first, and what was loaded before that.
    models: [Number; MOST_CONTEXT],
    /// The last load; none since the beginning.
    last: Option<Duration>,
    /// What was loaded together with the last one, that one included, and when.
    together: Vec<(Number, Duration)>,
    /// What had been loaded before these.
    before: [Number; MOST_CONTEXT],
}

impl Session {
    fn load(&mut self, now: Duration, model: Number) {
        let is_close = self.last.is_some_and(|last| now.saturating_sub(last) <= TOGETHER);
        let is_again = self.together.iter().any(|(other, _)| *other == model);
        if !is_close || is_again || self.together.len() >= MOST_TOGETHER {
            self.together.clear();
            self.before = self.models;
        }
        self.together.push((model, now));
        self.models = with(&self.before, self.together.iter().map(|(model, _)| *model).collect());
        self.last = Some(self.last.map_or(now, |last| last.max(now)));
    }

    fn begin(&mut self, models: [Number; MOST_CONTEXT]) {
        self.together.clear();
        (self.models, self.before) = (models, models);
    }

    /// What was loaded together, nothing for a model by itself.
    fn group(&self) -> Vec<Number> {
        let group = self.together.iter().map(|(model, _)| *model);
        group.filter(|_| self.together.len() > 1).collect()
    }
}

/// The predictor.
#[derive(Debug)]
pub struct Successors {
    table: Table,
    calibration: Calibration,
    sessions: BTreeMap<Number, Session>,
    /// When it was first told anything.
    since: Option<Duration>,
}

impl Default for Successors {
    fn default() -> Self {
        Self::new(MOST_ROWS, HALF_LIFE)
    }
}

impl Successors {
    /// One that has seen nothing, for so many rows, in which counts are worth half after `half_life`.
    pub fn new(most_rows: usize, half_life: Duration) -> Self {
        Self {
            table: Table::new(most_rows.max(1), half_life),
            calibration: Calibration::default(),
            sessions: BTreeMap::new(),
            since: None,
        }
    }

    /// Makes room for `rows` before they are restored.
    pub fn reserve(&mut self, rows: usize) {
        self.table.reserve(rows);
    }

    /// Takes a row that was kept; others than its own are ignored.
    pub fn restore(&mut self, now: Duration, row: &Row) {
        match row {
            Row::Successor(row) => self.table.restore(seconds(now), row),
            Row::Calibration { bucket, right, all } => self.calibration.restore(*bucket, *right, *all),
            _ => {}
        }
    }

    /// A program (0: nobody knows which) begins to load a model. Times are since 1970; one before that of the load before counts as that.
    pub fn loaded(&mut self, now: Duration, program: Number, model: Number) {
        if model == 0 {
            return;
        }
        self.session(now, program);
        let (table, second) = (&mut self.table, seconds(now));
        let Some(session) = self.sessions.get_mut(&program) else {
            return;
        };
        let gap = session.last.map(|last| now.saturating_sub(last));
        for (context, _) in contexts(program, &session.models) {
            table.learn(second, context, model, gap);
        }
        session.load(now, model);
        // Had this one come first, the others would have come after it.
        for (other, at) in session.together.iter().rev().skip(1) {
            let apart = now.saturating_sub(*at);
            for (context, _) in contexts(program, &after(&[0; MOST_CONTEXT], model)).filter(|(_, length)| *length == 1)
            {
                table.learn(second, context, *other, Some(apart));
            }
        }
        self.calibration.came(now, program, model);
        let offered = self.raw(second, program);
        let offered = offered.iter().map(|share| (share.model, share.share as f32));
        self.calibration.offer(now, program, offered.collect());
    }

    /// What a program (0: nobody knows which) loads next, the most likely first.
    pub fn predict(&mut self, now: Duration, program: Number) -> Vec<Candidate> {
        self.session(now, program);
        let last = self.sessions.get(&program).and_then(|session| session.last);
        let elapsed = last.map_or(Duration::ZERO, |last| now.saturating_sub(last));
        let mut shares = self.raw(seconds(now), program);
        self.wait(&mut shares, elapsed);
        shares.iter().map(|found| self.candidate(found, elapsed)).collect()
    }

    /// What a program loads after a model, whatever it has loaded before that, the most likely first.
    pub fn followers(&self, now: Duration, program: Number, model: Number) -> Vec<Candidate> {
        let models = after(&[0; MOST_CONTEXT], model);
        let shares = blend(&self.table, seconds(now), program, &models, &[]);
        let mut found: Vec<Found> = shares
            .iter()
            .filter(|share| share.model != 0 && share.share >= LEAST)
            .map(|share| Found::of(share, None))
            .collect();
        found.sort_by(Found::order);
        found.truncate(MOST_CANDIDATES);
        found
            .iter()
            .map(|found| self.candidate(found, Duration::ZERO))
            .collect()
    }

    fn candidate(&self, found: &Found, elapsed: Duration) -> Candidate {
        let raw = found.share as f32;
        Candidate {
            model: found.model,
            confidence: self.calibration.corrected(raw),
            raw,
            due: [0.1, 0.5, 0.9].map(|share| found.gap.within(share).saturating_sub(elapsed)),
            reason: found.reason,
        }
    }

    /// Ends what has been silent for [`HORIZON`]: that nothing came is learned. To be called before the changes are taken for the last time, and now and then.
    pub fn settle(&mut self, now: Duration) {
        let programs: Vec<Number> = self.sessions.keys().copied().collect();
        programs.into_iter().for_each(|program| self.session(now, program));
        self.calibration.settle(now);
    }

    /// Forgets models and programs. Whoever told of it does not need to hear of each row.
    pub fn forget(&mut self, models: &HashSet<Number>, programs: &HashSet<Number>) {
        self.table.forget(models, programs);
        self.calibration.forget(models, programs);
        self.sessions.retain(|program, _| !programs.contains(program));
        for session in self.sessions.values_mut() {
            session.together.retain(|(model, _)| !models.contains(model));
            // What came before something that is forgotten is not what came before.
            for known in [&mut session.models, &mut session.before] {
                if let Some(gone) = known.iter().position(|model| models.contains(model)) {
                    known[gone..].fill(0);
                }
            }
        }
    }

    /// Rows that were put and that have faded since the last time. Whoever keeps nothing takes them as well.
    pub fn take_changes(&mut self) -> Vec<Change> {
        let mut changes = self.table.take_changes();
        changes.extend(self.calibration.take_changes());
        changes
    }

    /// Rows of successors.
    pub fn rows(&self) -> usize {
        self.table.len()
    }

    /// How well predictions have come true, for `status`.
    pub fn calibration(&self) -> &Calibration {
        &self.calibration
    }

    /// Makes sure that a program has a session and that it is not over.
    fn session(&mut self, now: Duration, program: Number) {
        let since = *self.since.get_or_insert(now);
        let Some(session) = self.sessions.get_mut(&program) else {
            // Of a program that runs since before the agent nobody knows what it loaded last.
            let is_new = now.saturating_sub(since) > HORIZON;
            let models = if is_new { beginning() } else { [0; MOST_CONTEXT] };
            self.sessions.entry(program).or_default().begin(models);
            return;
        };
        let Some(last) = session.last else { return };
        if now.saturating_sub(last) <= HORIZON || session.models == beginning() {
            return;
        }
        let over = seconds(last + HORIZON);
        for (context, _) in contexts(program, &session.models) {
            self.table.learn(over, context, 0, Some(HORIZON));
        }
        session.begin(beginning());
    }

    /// The candidates as the counts have them.
    fn raw(&self, now: u64, program: Number) -> Vec<Found> {
        let Some(session) = self.sessions.get(&program) else {
            return Vec::new();
        };
        let mut found: Vec<Found> = Vec::new();
        let first = blend(&self.table, now, program, &session.models, &session.group());
        for share in first.into_iter().filter(|share| share.model != 0) {
            found.push(Found::of(&share, None));
        }
        found.sort_by(Found::order);
        self.expand(now, program, session, &mut found);
        found.sort_by(Found::order);
        found.retain(|found| found.share >= LEAST);
        found.truncate(MOST_CANDIDATES);
        found
    }

    /// Adds what is loaded together with what may be next.
    fn expand(&self, now: u64, program: Number, session: &Session, found: &mut Vec<Found>) {
        let worth = found.iter().filter(|found| found.share >= WORTH_EXPANDING);
        let mut open: Vec<Path> = worth.map(|found| Path::begin(session, found)).collect();
        for _ in 0..MOST_EXPANDED {
            let likeliest = open.iter().enumerate();
            let Some((index, _)) = likeliest.max_by(|one, other| one.1.share.total_cmp(&other.1.share)) else {
                return;
            };
            let path = open.swap_remove(index);
            for next in blend(
                &self.table,
                now,
                program,
                &with(&path.before, path.group.clone()),
                &path.group,
            ) {
                let share = path.share * next.share;
                let is_known = next.model == 0 || path.group.contains(&next.model);
                if is_known || share < LEAST || !is_within(next.gap, TOGETHER) {
                    continue;
                }
                let gap = later(path.gap, next.gap);
                let more = Found {
                    share,
                    gap,
                    ..Found::of(&next, path.group.last().copied())
                };
                match found.iter_mut().find(|found| found.model == next.model) {
                    None => found.push(more),
                    Some(known) => {
                        let share = known.share + share;
                        if known.share < more.share {
                            *known = more;
                        }
                        known.share = share;
                    }
                }
                if share >= WORTH_EXPANDING && path.group.len() < MOST_TOGETHER {
                    let mut group = path.group.clone();
                    group.push(next.model);
                    open.push(Path {
                        share,
                        gap,
                        group,
                        before: path.before,
                    });
                }
            }
        }
    }

    /// After a while without a load, what usually comes sooner is less likely.
    fn wait(&self, shares: &mut Vec<Found>, elapsed: Duration) {
        if elapsed.is_zero() {
            return;
        }
        let before: f64 = shares.iter().map(|found| found.share).sum();
        for found in shares.iter_mut() {
            found.share *= found.gap.longer_than(elapsed);
        }
        let left: f64 = shares.iter().map(|found| found.share).sum();
        let whole = (1.0 - before).max(0.0) + left;
        shares.iter_mut().for_each(|found| found.share /= whole.max(1e-9));
        shares.retain(|found| found.share >= LEAST);
        shares.sort_by(Found::order);
    }
}

/// A group that is loaded together, as far as it is foreseen.
struct Path {
    share: f64,
    gap: Times,
    /// Its members, those that were loaded already included; the one that comes last at the end.
    group: Vec<Number>,
    /// What was loaded before it.
    before: [Number; MOST_CONTEXT],
}

impl Path {
    fn begin(session: &Session, first: &Found) -> Self {
        let mut path = Self {
            share: first.share,
            gap: first.gap,
            group: vec![first.model],
            before: session.models,
        };
        let is_again = session.together.iter().any(|(model, _)| *model == first.model);
        if is_within(first.gap, TOGETHER) && !is_again {
            path.before = session.before;
            path.group = session
                .together
                .iter()
                .map(|(model, _)| *model)
                .chain([first.model])
                .collect();
        }
        path
    }
}

/// A candidate in the making.
#[derive(Clone, Copy, Debug)]
struct Found {
    model: Number,
    share: f64,
    gap: Times,
    reason: Reason,
}

impl Found {
    fn of(share: &Share, with: Option<Number>) -> Self {
        let Context { program, models } = share.context;
        Self {
            model: share.model,
            share: share.share,
            gap: share.gap,
            reason: Reason {
                program,
                context: models,
                times: share.times,
                of: share.of,
                with,
            },
        }
    }

    /// The likeliest first; of two alike the one that was there first.
    fn order(one: &Self, other: &Self) -> std::cmp::Ordering {
        other.share.total_cmp(&one.share).then(one.model.cmp(&other.model))
    }
}
