//! Changes on their way to the disk: of several of one row the last one, of what was forgotten nothing.
//!
//! In: changes in their order. Out: what is left of them, in a form whose order no longer matters: clear everything, forget these models, then put or remove these rows.
//! Every change has a number, so that a model is forgotten without a look at all that waits, and so that a batch that could not be written and what came
//! after it become one.

use std::{collections::HashMap, mem};

use crate::{
    catalog::model::LayoutKind,
    engine::learn::row::{BEGINNING, Change, MOST_CONTEXT, Number, Row, Run},
};

/// Memory that rows take while the disk takes none.
pub const MOST_BYTES: usize = 32 << 20;

/// Models that are to be forgotten meanwhile: four times as many as there can be on disk.
const MOST_FORGOTTEN: usize = 1 << 18;

/// What a row says something of: of two rows with one key the later one counts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    Model(Number),
    Program(Number),
    Heat(Number),
    Successor {
        program: Number,
        context: [Number; MOST_CONTEXT],
        next: Number,
    },
    Order {
        model: Number,
        program: Number,
    },
    Lead {
        layout: LayoutKind,
        program: Number,
    },
    Calibration(u8),
    Device(String),
}

impl Key {
    /// That of a row.
    pub fn of(row: &Row) -> Self {
        match row {
            Row::Model { number, .. } => Self::Model(*number),
            Row::Program { number, .. } => Self::Program(*number),
            Row::Heat { model, .. } => Self::Heat(*model),
            Row::Successor(row) => Self::Successor {
                program: row.program,
                context: row.context,
                next: row.next,
            },
            Row::Order(row) => Self::Order {
                model: row.model,
                program: row.program,
            },
            Row::Lead(row) => Self::Lead {
                layout: row.layout,
                program: row.program,
            },
            Row::Calibration { bucket, .. } => Self::Calibration(*bucket),
            Row::Device { identity, .. } => Self::Device(identity.clone()),
        }
    }

    /// The models it mentions; 0 is none.
    pub fn models(&self) -> [Number; MOST_CONTEXT + 1] {
        self.numbers()
            .map(|number| if number == BEGINNING { 0 } else { number })
    }

    fn numbers(&self) -> [Number; MOST_CONTEXT + 1] {
        match self {
            Self::Model(model) | Self::Heat(model) | Self::Order { model, .. } => [*model, 0, 0, 0],
            Self::Successor { context, next, .. } => [context[0], context[1], context[2], *next],
            Self::Program(_) | Self::Lead { .. } | Self::Calibration(_) | Self::Device(_) => [0; MOST_CONTEXT + 1],
        }
    }

    /// The program it mentions; 0 is none.
    pub fn program(&self) -> Number {
        match self {
            Self::Program(program)
            | Self::Successor { program, .. }
            | Self::Order { program, .. }
            | Self::Lead { program, .. } => *program,
            Self::Model(_) | Self::Heat(_) | Self::Calibration(_) | Self::Device(_) => 0,
        }
    }
}

/// What is to become of one row.
#[derive(Clone, Debug, PartialEq)]
struct Fate {
    /// Number of the change.
    count: u64,
    /// `None`: it is removed.
    row: Option<Row>,
}

/// Changes that wait.
#[derive(Debug, Default)]
pub struct Pending {
    /// All that is on disk goes first.
    clear: bool,
    /// Then all that mentions these models; with the number of the change.
    forgotten: HashMap<Number, u64>,
    /// And these programs.
    forgotten_programs: HashMap<Number, u64>,
    rows: HashMap<Key, Fate>,
    bytes: usize,
    /// Changes for which there was no room.
    lost: u64,
}

impl Pending {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        !self.clear && self.forgotten.is_empty() && self.forgotten_programs.is_empty() && self.rows.is_empty()
    }

    /// Changes for which there was no room.
    pub const fn lost(&self) -> u64 {
        self.lost
    }

    /// Everything on disk is to go before the rest.
    pub const fn clears(&self) -> bool {
        self.clear
    }

    /// Takes up a change, the `count`th of all.
    pub fn add(&mut self, count: u64, change: Change) {
        match change {
            Change::Put(row) => self.set(Key::of(&row), Fate { count, row: Some(row) }),
            Change::Fade { program, context, next } => {
                let key = Key::Successor { program, context, next };
                self.set(key, Fate { count, row: None });
            }
            Change::ForgetOrder { model, program } => self.remove(count, Key::Order { model, program }),
            Change::ForgetModel(0 | BEGINNING) | Change::ForgetProgram(0) => {}
            Change::ForgetModel(model) => {
                self.lost += forget(&mut self.forgotten, model, count);
            }
            Change::ForgetProgram(program) => {
                self.lost += forget(&mut self.forgotten_programs, program, count);
            }
            Change::ForgetAll => {
                *self = Self {
                    clear: true,
                    ..Self::default()
                }
            }
        }
    }

    /// Removes one row, as the `count`th change.
    pub fn remove(&mut self, count: u64, key: Key) {
        self.set(key, Fate { count, row: None });
    }

    fn set(&mut self, key: Key, fate: Fate) {
        let size = size_of_entry(&fate);
        let before = self.rows.get(&key).map_or(0, size_of_entry);
        if self.bytes - before + size > MOST_BYTES {
            // What is on disk stays; an older change of the same row still goes there.
            self.lost += 1;
            return;
        }
        self.bytes = self.bytes - before + size;
        self.rows.insert(key, fate);
    }

    /// Leaves nothing behind.
    pub fn take(&mut self) -> Self {
        mem::take(self)
    }

    /// Adds changes that came after these.
    pub fn absorb(&mut self, later: Self) {
        if later.clear {
            *self = later;
            return;
        }
        self.lost += later.lost;
        for (model, count) in later.forgotten {
            self.lost += forget(&mut self.forgotten, model, count);
        }
        for (program, count) in later.forgotten_programs {
            self.lost += forget(&mut self.forgotten_programs, program, count);
        }
        for (key, fate) in later.rows {
            self.set(key, fate);
        }
    }

    /// The models that are to be forgotten, in any order.
    pub fn forgotten(&self) -> impl Iterator<Item = Number> {
        self.forgotten.keys().copied()
    }

    /// The programs, likewise.
    pub fn forgotten_programs(&self) -> impl Iterator<Item = Number> {
        self.forgotten_programs.keys().copied()
    }

    /// What is to become of which row after that, in any order: `None`, it is removed.
    pub fn rows(&self) -> impl Iterator<Item = (&Key, Option<&Row>)> {
        let outlives = |key: &Key, fate: &Fate| {
            let forgotten = |model: &Number| self.forgotten.get(model).is_some_and(|count| *count > fate.count);
            let program = self.forgotten_programs.get(&key.program());
            !key.models().iter().any(forgotten) && program.is_none_or(|count| *count <= fate.count)
        };
        let rows = self.rows.iter().filter(move |(key, fate)| outlives(key, fate));
        rows.map(|(key, fate)| (key, fate.row.as_ref()))
    }
}

/// Notes that a number is forgotten by the `count`th change; changes lost for want of room.
fn forget(forgotten: &mut HashMap<Number, u64>, number: Number, count: u64) -> u64 {
    if let Some(before) = forgotten.get_mut(&number) {
        *before = count.max(*before);
    } else if forgotten.len() >= MOST_FORGOTTEN {
        return 1;
    } else {
        forgotten.insert(number, count);
    }
    0
}

/// What it takes in memory, roughly: a hash table is half empty.
fn size_of_entry(fate: &Fate) -> usize {
    let beside = match &fate.row {
        Some(Row::Model { path, .. }) => path.as_os_str().len(),
        Some(Row::Program { name, .. }) => name.len(),
        Some(Row::Order(order)) => order.runs.len() * size_of::<Run>(),
        Some(Row::Device { identity, .. }) => 2 * identity.len(),
        _ => 0,
    };
    2 * size_of::<(Key, Fate)>() + beside
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::tests::{heat, model, successor};

    fn rows(pending: &Pending) -> Vec<Row> {
        let mut rows: Vec<_> = pending.rows().collect();
        rows.sort_by(|one, other| one.0.cmp(other.0));
        rows.into_iter().filter_map(|(_, row)| row.cloned()).collect()
    }

    fn add(pending: &mut Pending, changes: impl IntoIterator<Item = (u64, Change)>) {
        changes
            .into_iter()
            .for_each(|(count, change)| pending.add(count, change));
    }

    #[test]
    fn of_several_changes_of_a_row_the_last_one_is_written() {
        let mut pending = Pending::default();
        add(
            &mut pending,
            [
                (1, Change::Put(heat(1, 1.0))),
                (2, Change::Put(heat(2, 1.0))),
                (3, Change::Put(heat(1, 3.0))),
            ],
        );
        assert_eq!(rows(&pending), [heat(1, 3.0), heat(2, 1.0)]);
    }

    #[test]
    fn what_mentions_a_forgotten_model_goes_and_what_came_later_stays() {
        let mut pending = Pending::default();
        add(
            &mut pending,
            [
                (1, Change::Put(model(1))),
                (2, Change::Put(successor(1, [2, 1, 0], 3, 1.0))),
                (3, Change::Put(successor(1, [2, 0, 0], 3, 1.0))),
                (4, Change::ForgetModel(1)),
                (5, Change::Put(heat(1, 5.0))),
                // None is not a model.
                (6, Change::ForgetModel(0)),
            ],
        );
        assert_eq!(rows(&pending), [heat(1, 5.0), successor(1, [2, 0, 0], 3, 1.0)]);
        assert_eq!(pending.forgotten().collect::<Vec<_>>(), [1]);
        pending.add(7, Change::ForgetAll);
        assert!(pending.clears() && rows(&pending).is_empty() && pending.forgotten().count() == 0);
    }

    #[test]
    fn what_could_not_be_written_and_what_came_later_become_one() {
        let mut before = Pending::default();
        add(
            &mut before,
            [
                (1, Change::ForgetAll),
                (2, Change::Put(heat(1, 2.0))),
                (3, Change::Put(heat(2, 3.0))),
                (4, Change::Put(heat(3, 4.0))),
            ],
        );
        let mut later = Pending::default();
        add(
            &mut later,
            [(5, Change::ForgetModel(2)), (6, Change::Put(heat(3, 6.0)))],
        );
        before.absorb(later);
        assert!(before.clears());
        assert_eq!(rows(&before), [heat(1, 2.0), heat(3, 6.0)]);
        let mut last = Pending::default();
        add(&mut last, [(7, Change::ForgetAll), (8, Change::Put(heat(4, 8.0)))]);
        before.absorb(last);
        assert_eq!(rows(&before), [heat(4, 8.0)]);
    }

    #[test]
    fn what_waits_is_bounded_and_what_finds_no_room_is_counted() {
        let mut pending = Pending::default();
        let each = size_of_entry(&Fate {
            count: 0,
            row: Some(heat(1, 1.0)),
        });
        let most = (MOST_BYTES / each) as u32;
        for number in 1..=most + 10 {
            pending.add(number.into(), Change::Put(heat(number, 1.0)));
        }
        assert_eq!((pending.rows().count(), pending.lost()), (most as usize, 10));
        // What waits already is still brought up to date, and room is made by forgetting.
        pending.add(u64::MAX - 1, Change::Put(heat(1, 2.0)));
        assert_eq!(pending.lost(), 10);
        // What is to go is not kept waiting by what is to stay.
        pending.add(u64::MAX, Change::ForgetModel(2));
        assert_eq!((pending.rows().count(), pending.lost()), (most as usize - 1, 10));
        pending.add(u64::MAX, Change::ForgetAll);
        assert_eq!((pending.bytes, pending.lost()), (0, 0));
    }
}
