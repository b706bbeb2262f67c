//! What followed what: contexts, and for each the models that came next, with counts that fade. Bounded, and quick to look up at a million rows.

use std::{
    collections::{BTreeSet, HashSet},
    time::Duration,
};

use hashbrown::HashTable;

use crate::engine::learn::{
    fading::{Times, faded},
    row::{Change, MOST_CONTEXT, Number, Row, Successor},
};

/// Followers of one context. What is loaded after everything else, as by a scanner, is no use to anybody, and a look-up goes through all of them.
pub const MOST_NEXT: usize = 64;

/// What counts less than this is forgotten: a single time after four half-lives.
const FAINT: f32 = 0.06;

/// Contexts looked at for what has faded, each time that something is learned: five rows are, so that no more than a tenth of a full table is faint.
const SWEEP: usize = 8;

/// Contexts of a full table among which the lightest row is looked for.
const SAMPLE: usize = 16;

/// Who loads, and what was loaded before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Context {
    /// 0 for any program.
    pub program: Number,
    /// The last one first.
    pub models: [Number; MOST_CONTEXT],
}

impl Context {
    /// The multiplier of SplitMix64 after each number. The numbers are the engine's own: nobody can choose them so that they collide.
    fn hash(&self) -> u64 {
        self.models
            .iter()
            .chain([&self.program])
            .fold(0x9e37_79b9_7f4a_7c15, |hash: u64, number| {
                let mixed = (hash ^ u64::from(*number)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                mixed ^ mixed >> 29
            })
    }
}

/// What came next, and how often.
#[derive(Clone, Copy, Debug)]
pub struct Next {
    pub model: Number,
    weight: f32,
    /// Seconds since 1970; they suffice until 2106.
    at: u32,
    pub gap: Times,
}

impl Next {
    /// How often, as of now.
    pub fn weight(&self, now: u64, half_life: Duration) -> f32 {
        faded(self.weight, u64::from(self.at), now, half_life)
    }
}

#[derive(Debug)]
struct Node {
    context: Context,
    next: Vec<Next>,
}

/// The table.
#[derive(Debug)]
pub struct Table {
    nodes: Vec<Node>,
    /// Indices of nodes.
    index: HashTable<u32>,
    rows: usize,
    most_rows: usize,
    half_life: Duration,
    /// The node that is looked at next for what has faded.
    hand: usize,
    /// Rows that changed since the changes were taken.
    touched: BTreeSet<(Context, Number)>,
}

impl Table {
    /// An empty one for so many rows.
    pub fn new(most_rows: usize, half_life: Duration) -> Self {
        Self {
            nodes: Vec::new(),
            index: HashTable::new(),
            rows: 0,
            most_rows,
            half_life,
            hand: 0,
            touched: BTreeSet::new(),
        }
    }

    /// Rows in it.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// After which time a count is worth half.
    pub fn half_life(&self) -> Duration {
        self.half_life
    }

    /// What came after a context.
    pub fn next(&self, context: &Context) -> &[Next] {
        self.find(context).map_or(&[], |node| &self.nodes[node].next)
    }

    /// `model` came after `context`.
    pub fn learn(&mut self, now: u64, context: Context, model: Number, gap: Option<Duration>) {
        let half_life = self.half_life;
        let node = self.find_or_add(context);
        let next = &mut self.nodes[node].next;
        if let Some(known) = next.iter_mut().find(|next| next.model == model) {
            known.weight = known.weight(now, half_life) + 1.0;
            known.at = since_1970(now);
            if let Some(gap) = gap {
                known.gap.learn(gap, known.weight);
            }
            self.touched.insert((context, model));
        } else {
            let first = Next {
                model,
                weight: 1.0,
                at: since_1970(now),
                gap: Times::once(gap.unwrap_or_default()),
            };
            self.add(now, node, first);
            self.touched.insert((context, model));
        }
        self.sweep(now);
    }

    /// Takes a row that was kept. What cannot be is left out, and forgotten where it was kept.
    pub fn restore(&mut self, now: u64, row: &Successor) {
        let context = Context {
            program: row.program,
            models: row.context,
        };
        let models = &row.context;
        let has_gap = models.windows(2).any(|pair| pair[0] == 0 && pair[1] != 0);
        let gap = Times::plausible(row.gap_log, row.gap_spread);
        let is_weight = row.weight > 0.0 && row.weight <= 1e6;
        let Some(gap) = gap.filter(|_| is_weight && !has_gap) else {
            self.touched.insert((context, row.next));
            return;
        };
        let kept = Next {
            model: row.next,
            weight: row.weight,
            at: since_1970(row.at.min(now)),
            gap,
        };
        if kept.weight(now, self.half_life) < FAINT {
            self.touched.insert((context, row.next));
            return;
        }
        let node = self.find_or_add(context);
        match self.nodes[node].next.iter_mut().find(|next| next.model == row.next) {
            Some(known) => *known = kept,
            None => self.add(now, node, kept),
        }
    }

    /// Makes room for as many rows in one piece.
    pub fn reserve(&mut self, rows: usize) {
        let rows = rows.min(self.most_rows);
        self.index
            .reserve(rows, |node| self.nodes[*node as usize].context.hash());
    }

    /// Forgets all that mentions one of the models or of the programs. Who told of it does not need to hear of each row.
    pub fn forget(&mut self, models: &HashSet<Number>, programs: &HashSet<Number>) {
        let mut node = 0;
        while let Some(found) = self.nodes.get_mut(node) {
            let gone = programs.contains(&found.context.program)
                || found.context.models.iter().any(|model| models.contains(model));
            let before = found.next.len();
            found.next.retain(|next| !gone && !models.contains(&next.model));
            self.rows -= before - found.next.len();
            if found.next.is_empty() {
                self.remove(node);
            } else {
                node += 1;
            }
        }
        self.touched.retain(|(context, next)| {
            !programs.contains(&context.program)
                && !context.models.iter().chain([next]).any(|model| models.contains(model))
        });
    }

    /// Rows put and faded since the last time.
    pub fn take_changes(&mut self) -> Vec<Change> {
        let touched = std::mem::take(&mut self.touched);
        let change = |(context, next): (Context, Number)| {
            let row = self.next(&context).iter().find(|known| known.model == next);
            let (program, models) = (context.program, context.models);
            row.map_or(
                Change::Fade {
                    program,
                    context: models,
                    next,
                },
                |row| {
                    Change::Put(Row::Successor(Successor {
                        program,
                        context: models,
                        next,
                        weight: row.weight,
                        at: u64::from(row.at),
                        gap_log: row.gap.log,
                        gap_spread: row.gap.spread,
                    }))
                },
            )
        };
        touched.into_iter().map(change).collect()
    }

    fn find(&self, context: &Context) -> Option<usize> {
        let is_it = |node: &u32| self.nodes[*node as usize].context == *context;
        self.index.find(context.hash(), is_it).map(|node| *node as usize)
    }

    fn find_or_add(&mut self, context: Context) -> usize {
        if let Some(node) = self.find(&context) {
            return node;
        }
        let node = self.nodes.len();
        self.nodes.push(Node {
            context,
            next: Vec::new(),
        });
        let nodes = &self.nodes;
        self.index
            .insert_unique(context.hash(), node as u32, |node| nodes[*node as usize].context.hash());
        node
    }

    /// Adds a row to a node; the lightest one makes room where there is none.
    fn add(&mut self, now: u64, node: usize, row: Next) {
        let half_life = self.half_life;
        let Node { context, next } = &mut self.nodes[node];
        if next.len() >= MOST_NEXT {
            if let Some((lightest, _)) = lightest(next, now, half_life, None) {
                self.touched.insert((*context, next[lightest].model));
                next[lightest] = row;
            }
            return;
        }
        // Most contexts have one follower: no more is allocated than is needed.
        if next.len() == next.capacity() {
            next.reserve_exact(next.len().max(1));
        }
        next.push(row);
        let spared = (*context, row.model);
        self.rows += 1;
        if self.rows > self.most_rows {
            self.make_room(now, spared);
        }
    }

    /// Drops the lightest row of a sample; not the one that room is made for.
    fn make_room(&mut self, now: u64, spared: (Context, Number)) {
        let mut found: Option<(usize, usize, f32)> = None;
        for offset in 0..SAMPLE.min(self.nodes.len()) {
            let node = (self.hand + offset) % self.nodes.len();
            let Node { context, next } = &self.nodes[node];
            let keep = (*context == spared.0).then_some(spared.1);
            if let Some((row, weight)) = lightest(next, now, self.half_life, keep)
                && found.is_none_or(|(.., least)| weight < least)
            {
                found = Some((node, row, weight));
            }
        }
        self.hand = (self.hand + SAMPLE) % self.nodes.len().max(1);
        if let Some((node, row, _)) = found {
            self.drop_rows(node, |index, _| index == row);
        }
    }

    /// Drops what has faded, a few contexts at a time.
    fn sweep(&mut self, now: u64) {
        let half_life = self.half_life;
        for _ in 0..SWEEP.min(self.nodes.len()) {
            self.hand = if self.hand >= self.nodes.len() { 0 } else { self.hand };
            if self.drop_rows(self.hand, |_, next| next.weight(now, half_life) < FAINT) {
                self.hand += 1;
            }
            if self.nodes.is_empty() {
                break;
            }
        }
    }

    /// Drops rows of a node; whether the node is still there.
    fn drop_rows(&mut self, node: usize, drops: impl Fn(usize, &Next) -> bool) -> bool {
        let Node { context, next } = &mut self.nodes[node];
        let before = next.len();
        let mut index = 0;
        next.retain(|row| {
            let dropped = drops(index, row);
            index += 1;
            if dropped {
                self.touched.insert((*context, row.model));
            }
            !dropped
        });
        self.rows -= before - next.len();
        if next.is_empty() {
            self.remove(node);
            return false;
        }
        if next.len() < before {
            next.shrink_to_fit();
        }
        true
    }

    /// Removes a node; the last one takes its place.
    fn remove(&mut self, node: usize) {
        for (moved, place) in [(node, None), (self.nodes.len() - 1, Some(node))] {
            let hash = self.nodes[moved].context.hash();
            if let Ok(mut entry) = self.index.find_entry(hash, |index| *index as usize == moved) {
                match place {
                    None => drop(entry.remove()),
                    Some(place) => *entry.get_mut() = place as u32,
                }
            }
        }
        self.nodes.swap_remove(node);
    }
}

/// The lightest row but the one of `spared`.
fn lightest(next: &[Next], now: u64, half_life: Duration, spared: Option<Number>) -> Option<(usize, f32)> {
    let others = next.iter().enumerate().filter(|(_, row)| Some(row.model) != spared);
    let weights = others.map(|(index, row)| (index, row.weight(now, half_life)));
    weights.min_by(|one, other| one.1.total_cmp(&other.1))
}

fn since_1970(seconds: u64) -> u32 {
    u32::try_from(seconds).unwrap_or(u32::MAX)
}
