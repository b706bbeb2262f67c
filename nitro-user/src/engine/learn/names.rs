//! Numbers for models and programs, so that what is learned of them is small.
//!
//! In: absolute paths of models' first parts, names of programs, rows. Out: numbers from 1 on, and the rows that give them a meaning. There is room for so many; whoever was not
//! heard of for longest makes room, a sixteenth at a time, since all that mentions it must go as well. A number that was given up is not given to another soon.

use std::{
    borrow::Borrow,
    collections::{BTreeMap, HashMap, HashSet},
    hash::Hash,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    fading::seconds,
    row::{BEGINNING, Change, Number, Row},
};

/// Models that have a number.
pub const MOST_MODELS: usize = 65_536;

/// Programs that have one.
pub const MOST_PROGRAMS: usize = 4096;

/// The share of them that goes when there is no room: one in so many.
const SHARE: usize = 16;

/// Models and programs by name and by number.
#[derive(Debug)]
pub struct Names {
    models: Table<PathBuf>,
    programs: Table<String>,
    changes: Vec<Change>,
}

/// What has no name any more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// Models.
    pub models: HashSet<Number>,
    /// Programs.
    pub programs: HashSet<Number>,
}

impl Default for Names {
    fn default() -> Self {
        Self::new(MOST_MODELS, MOST_PROGRAMS)
    }
}

impl Names {
    /// None yet, and room for so many.
    pub fn new(most_models: usize, most_programs: usize) -> Self {
        Self {
            models: Table::new(most_models),
            programs: Table::new(most_programs),
            changes: Vec::new(),
        }
    }

    /// The number of the model whose first part is at `path`, which is used at `now`, since 1970.
    pub fn model(&mut self, now: Duration, path: &Path) -> Number {
        let (number, is_new) = self.models.number(seconds(now), path);
        if is_new {
            let path = path.to_owned();
            self.changes.push(Change::Put(Row::Model { number, path }));
        }
        number
    }

    /// The number of a program of this name.
    pub fn program(&mut self, now: Duration, name: &str) -> Number {
        let (number, is_new) = self.programs.number(seconds(now), name);
        if is_new {
            let name = name.to_owned();
            self.changes.push(Change::Put(Row::Program { number, name }));
        }
        number
    }

    /// The number of a model, if it has one; this is no use of it.
    pub fn known_model(&self, path: &Path) -> Option<Number> {
        self.models.numbers.get(path).copied()
    }

    /// The same of a program.
    pub fn known_program(&self, name: &str) -> Option<Number> {
        self.programs.numbers.get(name).copied()
    }

    /// Where the first part of a model is.
    pub fn path(&self, model: Number) -> Option<&Path> {
        self.models.entries.get(&model).map(|entry| entry.name.as_path())
    }

    /// What a program is called.
    pub fn name(&self, program: Number) -> Option<&str> {
        self.programs.entries.get(&program).map(|entry| entry.name.as_str())
    }

    /// A model is no more: nothing at or below `path` is watched, or it was deleted.
    pub fn forget(&mut self, path: &Path) {
        let below = |entry: &Entry<PathBuf>| entry.name.starts_with(path);
        self.models.forget(below);
    }

    /// Takes a row that was kept. Rows of models and programs come before those that mention them, from which is learned when they were used last.
    pub fn restore(&mut self, row: &Row) {
        match row {
            Row::Model { number, path } => self.models.restore(*number, path.clone()),
            Row::Program { number, name } => self.programs.restore(*number, name.clone()),
            Row::Heat { model, at, .. } => self.models.used(*model, *at),
            Row::Successor(row) => {
                self.models.used(row.next, row.at);
                self.programs.used(row.program, row.at);
            }
            Row::Order(row) => {
                self.models.used(row.model, row.at);
                self.programs.used(row.program, row.at);
            }
            Row::Lead(row) => self.programs.used(row.program, row.at),
            Row::Calibration { .. } | Row::Device { .. } => {}
        }
    }

    /// What has gone since the last time, for those who keep something about it. To be taken before the changes, and before anything else is learned.
    pub fn take_forgotten(&mut self) -> Forgotten {
        let forgotten = Forgotten {
            models: std::mem::take(&mut self.models.gone),
            programs: std::mem::take(&mut self.programs.gone),
        };
        let sorted = |numbers: &HashSet<Number>| {
            let mut numbers: Vec<Number> = numbers.iter().copied().collect();
            numbers.sort_unstable();
            numbers
        };
        let models = sorted(&forgotten.models).into_iter().map(Change::ForgetModel);
        let programs = sorted(&forgotten.programs).into_iter().map(Change::ForgetProgram);
        self.changes.extend(models.chain(programs));
        forgotten
    }

    /// What is to be kept and forgotten, in this order.
    pub fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }
}

#[derive(Debug)]
struct Entry<Name> {
    name: Name,
    /// Seconds since 1970.
    used: u64,
}

#[derive(Debug)]
struct Table<Name> {
    most: usize,
    numbers: HashMap<Name, Number>,
    entries: BTreeMap<Number, Entry<Name>>,
    /// The number given last.
    last: Number,
    gone: HashSet<Number>,
}

impl<Name: Clone + Eq + Hash> Table<Name> {
    fn new(most: usize) -> Self {
        Self {
            most: most.max(1),
            numbers: HashMap::new(),
            entries: BTreeMap::new(),
            last: 0,
            gone: HashSet::new(),
        }
    }

    /// The number of a name, and whether it is new.
    fn number<Key>(&mut self, now: u64, name: &Key) -> (Number, bool)
    where
        Name: Borrow<Key>,
        Key: Eq + Hash + ToOwned<Owned = Name> + ?Sized,
    {
        if let Some(&number) = self.numbers.get(name) {
            self.used(number, now);
            return (number, false);
        }
        if self.entries.len() >= self.most {
            self.make_room();
        }
        let number = self.free();
        self.insert(number, name.to_owned(), now);
        (number, true)
    }

    /// Gives a name the number it had. Where the name has another one or there is no room, the number goes with all that mentions it.
    fn restore(&mut self, number: Number, name: Name) {
        if is_reserved(number) || self.entries.contains_key(&number) {
            return;
        }
        self.last = self.last.max(number);
        if self.numbers.contains_key(&name) || self.entries.len() >= self.most {
            self.gone.insert(number);
        } else {
            self.insert(number, name, 0);
        }
    }

    fn insert(&mut self, number: Number, name: Name, used: u64) {
        self.numbers.insert(name.clone(), number);
        self.entries.insert(number, Entry { name, used });
    }

    fn used(&mut self, number: Number, at: u64) {
        if let Some(entry) = self.entries.get_mut(&number) {
            entry.used = entry.used.max(at);
        }
    }

    /// The next number that nobody has. After four billion they begin again.
    fn free(&mut self) -> Number {
        loop {
            self.last = self.last.wrapping_add(1);
            if !is_reserved(self.last) && !self.entries.contains_key(&self.last) && !self.gone.contains(&self.last) {
                return self.last;
            }
        }
    }

    /// Drops those that were not used for longest; of two alike the one with the lower number.
    fn make_room(&mut self) {
        let mut oldest: Vec<(u64, Number)> = self
            .entries
            .iter()
            .map(|(number, entry)| (entry.used, *number))
            .collect();
        let count = (self.most / SHARE).max(1);
        if count < oldest.len() {
            oldest.select_nth_unstable(count);
            oldest.truncate(count);
        }
        let oldest: HashSet<Number> = oldest.into_iter().map(|(_, number)| number).collect();
        self.drop_all(oldest);
    }

    fn forget(&mut self, which: impl Fn(&Entry<Name>) -> bool) {
        let found = self.entries.iter().filter(|(_, entry)| which(entry));
        self.drop_all(found.map(|(number, _)| *number).collect());
    }

    fn drop_all(&mut self, numbers: HashSet<Number>) {
        for number in &numbers {
            if let Some(entry) = self.entries.remove(number) {
                self.numbers.remove(&entry.name);
            }
        }
        self.gone.extend(numbers);
    }
}

fn is_reserved(number: Number) -> bool {
    number == 0 || number == BEGINNING
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn second(second: u64) -> Duration {
        Duration::from_secs(second)
    }

    #[test]
    fn numbers_begin_with_one_and_stay() {
        let mut names = Names::default();
        assert_eq!(names.model(second(1), Path::new("/m/a")), 1);
        assert_eq!(names.model(second(1), Path::new("/m/b")), 2);
        assert_eq!(names.model(second(2), Path::new("/m/a")), 1);
        assert_eq!(names.program(second(1), "ollama"), 1);
        assert_eq!(
            (names.path(2), names.name(1)),
            (Some(Path::new("/m/b")), Some("ollama"))
        );
        assert_eq!(
            (names.known_model(Path::new("/m/b")), names.known_model(Path::new("/m"))),
            (Some(2), None)
        );
        assert_eq!(names.take_changes().len(), 3);
        assert!(names.take_changes().is_empty());
    }

    #[test]
    fn whoever_was_not_heard_of_for_longest_makes_room() {
        let mut names = Names::new(3, 1);
        for (at, path) in [(1, "a"), (2, "b"), (3, "c"), (4, "a"), (5, "d")] {
            names.model(second(at), Path::new(path));
        }
        let forgotten = names.take_forgotten();
        assert_eq!(forgotten.models, HashSet::from([2]));
        assert_eq!(names.take_changes().last(), Some(&Change::ForgetModel(2)));
        assert_eq!(
            (names.known_model(Path::new("a")), names.known_model(Path::new("b"))),
            (Some(1), None)
        );
        names.program(second(1), "one");
        assert_eq!(names.program(second(2), "other"), 2);
        assert_eq!(names.take_forgotten().programs, HashSet::from([1]));
    }

    #[test]
    fn what_was_restored_was_used_when_it_is_mentioned() {
        let mut names = Names::new(2, 2);
        for (number, path) in [(5, "a"), (3, "b")] {
            names.restore(&Row::Model {
                number,
                path: path.into(),
            });
        }
        names.restore(&Row::Heat {
            model: 3,
            heat: 1.0,
            asked: false,
            at: 100,
        });
        assert_eq!(names.model(second(200), Path::new("c")), 6);
        assert_eq!(names.take_forgotten().models, HashSet::from([5]));
        assert_eq!(names.path(3), Some(Path::new("b")));
    }

    #[test]
    fn rows_that_cannot_be_are_forgotten() {
        let mut names = Names::new(2, 2);
        for (number, path) in [
            (0, "a"),
            (BEGINNING, "b"),
            (1, "c"),
            (1, "d"),
            (2, "c"),
            (3, "e"),
            (4, "f"),
        ] {
            names.restore(&Row::Model {
                number,
                path: path.into(),
            });
        }
        assert_eq!(names.take_forgotten().models, HashSet::from([2, 4]));
        assert_eq!(names.take_changes(), [2, 4].map(Change::ForgetModel));
        // A number that was given stands for what it was given to; none and the beginning are no models.
        assert_eq!(
            (names.path(1), names.path(3)),
            (Some(Path::new("c")), Some(Path::new("e")))
        );
    }

    #[test]
    fn the_last_number_is_followed_by_the_first() {
        let mut names = Names::default();
        names.restore(&Row::Model {
            number: BEGINNING - 1,
            path: "a".into(),
        });
        assert_eq!(names.model(second(1), Path::new("b")), 1);
    }

    #[test]
    fn a_directory_is_forgotten_with_all_below_it() {
        let mut names = Names::default();
        for path in ["/m/a", "/m/a/b", "/m/ab"] {
            names.model(second(1), Path::new(path));
        }
        names.forget(Path::new("/m/a"));
        assert_eq!(names.take_forgotten().models, HashSet::from([1, 2]));
        assert_eq!(names.known_model(Path::new("/m/ab")), Some(3));
    }

    proptest! {
        /// A store that follows the changes has the names that a new table restores from it, and no number means two things at once.
        #[test]
        fn bounded_and_the_same_after_a_restart(uses in prop::collection::vec((0..40_u8, 0..5_u64), 1..300), most in 1..20_usize) {
            let mut names = Names::new(most, 1);
            let mut store: BTreeMap<Number, PathBuf> = BTreeMap::new();
            let mut now = 0;
            for (path, pause) in uses {
                now += pause;
                let path = PathBuf::from(path.to_string());
                let number = names.model(second(now), &path);
                prop_assert_eq!(names.path(number), Some(path.as_path()));
                names.take_forgotten();
                for change in names.take_changes() {
                    match change {
                        Change::Put(Row::Model { number, path }) => prop_assert!(store.insert(number, path).is_none()),
                        Change::ForgetModel(number) => prop_assert!(store.remove(&number).is_some()),
                        other => panic!("{other:?}"),
                    }
                }
                prop_assert!(store.len() <= most);
            }
            let mut again = Names::new(most, 1);
            for (number, path) in &store {
                again.restore(&Row::Model { number: *number, path: path.clone() });
            }
            prop_assert!(again.take_changes().is_empty());
            for (number, path) in &store {
                prop_assert_eq!(again.known_model(path), names.known_model(path));
                prop_assert_eq!(again.path(*number), Some(path.as_path()));
            }
        }
    }
}
