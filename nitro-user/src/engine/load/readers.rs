//! Who takes part in a load: one process, or several that read the same model together.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Processes remembered that have ended while others read on: a script that starts a reader for each piece of a model starts many.
const MOST_SETTLED: usize = 64;

/// One process.
#[derive(Debug, Default)]
pub struct Reader {
    /// Its program, once known.
    program: Option<String>,
    /// Its real user, once known.
    user: Option<u32>,
    ended: bool,
    /// Its command line named the model.
    named: bool,
    /// It has read more than a header.
    reads: bool,
    /// It reads past the page cache.
    direct: bool,
    /// It reads everything once, this model among others.
    scans: bool,
    /// It made a mapping and the event mode said so: it may read without a sign.
    mapped: bool,
}

/// The processes of one load, in the order of their numbers, and which was first.
#[derive(Debug)]
pub struct Readers {
    first: u32,
    by_process: BTreeMap<u32, Reader>,
    /// Those that ended while others read on, in that order: their counters were taken.
    settled: VecDeque<u32>,
    /// Users of those that read and are not remembered any more.
    forgotten: BTreeSet<Option<u32>>,
}

impl Readers {
    /// The process that began it.
    pub fn begin(process: u32) -> Self {
        Self {
            first: process,
            by_process: BTreeMap::from([(process, Reader::default())]),
            settled: VecDeque::new(),
            forgotten: BTreeSet::new(),
        }
    }

    /// Whether a process takes part.
    pub fn contains(&self, process: u32) -> bool {
        self.by_process.contains_key(&process)
    }

    /// Whether it takes part and has not ended.
    pub fn is_there(&self, process: u32) -> bool {
        self.by_process.get(&process).is_some_and(|reader| !reader.ended)
    }

    /// A process takes part from now on; whether it is new.
    pub fn join(&mut self, process: u32) -> bool {
        // A number that is used again is another process.
        let new = !self.is_there(process);
        if new {
            self.settled.retain(|settled| *settled != process);
            self.forget(process);
            self.by_process.insert(process, Reader::default());
        }
        new
    }

    /// A process takes no part any more, if one that counts without it is left; whether it left.
    pub fn leave(&mut self, process: u32) -> bool {
        let reads = self.by_process.get(&process).is_some_and(|reader| reader.reads);
        let mut others = self.by_process.iter().filter(|(other, _)| **other != process);
        let Some(other) = others.find(|(_, other)| !reads || other.reads).map(|(other, _)| *other) else {
            return false;
        };
        self.by_process.remove(&process);
        self.settled.retain(|settled| *settled != process);
        if self.first == process {
            self.first = other;
        }
        true
    }

    /// The counters of a process that has ended were taken. The oldest of many such is remembered only by its user.
    pub fn settle(&mut self, process: u32) {
        self.settled.push_back(process);
        if self.settled.len() > MOST_SETTLED
            && let Some(oldest) = self.settled.pop_front()
        {
            self.forget(oldest);
        }
    }

    fn forget(&mut self, process: u32) {
        if let Some(reader) = self.by_process.remove(&process)
            && reader.reads
        {
            self.forgotten.insert(reader.user);
        }
    }

    /// Whether the counters of a process are still to be taken.
    pub fn awaits(&self, process: u32) -> bool {
        self.contains(process) && !self.settled.contains(&process)
    }

    /// Learns who a process is.
    pub fn identify(&mut self, process: u32, program: &str, user: u32) {
        if let Some(reader) = self.by_process.get_mut(&process) {
            reader.program = Some(program.to_owned());
            reader.user = Some(user);
        }
    }

    /// A process has ended.
    pub fn ended(&mut self, process: u32) {
        if let Some(reader) = self.by_process.get_mut(&process) {
            reader.ended = true;
        }
    }

    /// Whether all that take part have.
    pub fn all_ended(&self) -> bool {
        self.counting().all(|(_, reader)| reader.ended)
    }

    /// Those that read more than a header and live.
    pub fn alive(&self) -> impl Iterator<Item = u32> {
        self.by_process
            .iter()
            .filter(|(_, reader)| reader.reads && !reader.ended)
            .map(|(process, _)| *process)
    }

    /// Those that have.
    pub fn gone(&self) -> impl Iterator<Item = u32> {
        self.by_process
            .iter()
            .filter(|(_, reader)| reader.ended)
            .map(|(process, _)| *process)
    }

    /// A process reads past the page cache; whether all of them do.
    pub fn note_direct(&mut self, process: u32) -> bool {
        if let Some(reader) = self.by_process.get_mut(&process) {
            reader.direct = true;
        }
        self.counting().all(|(_, reader)| reader.direct || reader.ended)
    }

    /// The command line of a process names the model.
    pub fn note_named(&mut self, process: u32) {
        if let Some(reader) = self.by_process.get_mut(&process) {
            reader.named = true;
        }
    }

    /// A process reads more than a header.
    pub fn note_progress(&mut self, process: u32) {
        if let Some(reader) = self.by_process.get_mut(&process) {
            reader.reads = true;
        }
    }

    /// A process is a scanner.
    pub fn note_scanner(&mut self, process: u32) {
        if let Some(reader) = self.by_process.get_mut(&process) {
            reader.scans = true;
        }
    }

    /// Whether none but scanners take part.
    pub fn scan(&self) -> bool {
        self.counting().all(|(_, reader)| reader.scans)
    }

    /// The only process that takes part.
    pub fn only(&self) -> Option<u32> {
        let mut counting = self.counting().map(|(process, _)| process);
        let only = counting.next()?;
        counting.next().is_none().then_some(only)
    }

    /// A process made a mapping.
    pub fn note_mapping(&mut self, process: u32) {
        if let Some(reader) = self.by_process.get_mut(&process) {
            reader.mapped = true;
        }
    }

    /// Whether it did.
    pub fn maps(&self, process: u32) -> bool {
        self.by_process.get(&process).is_some_and(|reader| reader.mapped)
    }

    /// The process that began it, or the first of those that count.
    pub fn first(&self) -> u32 {
        let mut counting = self.counting().map(|(process, _)| process);
        let other = counting.next().unwrap_or(self.first);
        if counting.chain([other]).any(|process| process == self.first) {
            self.first
        } else {
            other
        }
    }

    /// Whether a process is one of those that count: see [`Readers::taking_part`].
    pub fn counts(&self, process: u32) -> bool {
        self.counting().any(|(counting, _)| counting == process)
    }

    /// All processes whose counters are still to be taken.
    pub fn unsettled(&self) -> Vec<u32> {
        let all = self.by_process.keys().copied();
        all.filter(|process| !self.settled.contains(process)).collect()
    }

    /// Those that read it; before anybody did, those whose command line names it, or all. Who looked at a header only, as a listing does, takes no part.
    pub fn taking_part(&self) -> Vec<u32> {
        self.counting().map(|(process, _)| process).collect()
    }

    /// The first one's program, or any that is known.
    pub fn program(&self) -> Option<&str> {
        let first = self.by_process.get(&self.first).filter(|first| first.reads);
        let mut known = self.counting().filter_map(|(_, reader)| reader.program.as_deref());
        first
            .and_then(|reader| reader.program.as_deref())
            .or_else(|| known.next())
    }

    /// The user, if all have the same: who else took part is nobody else's business.
    pub fn user(&self) -> Option<u32> {
        let forgotten = self.forgotten.iter().copied();
        let mut users = self.counting().map(|(_, reader)| reader.user).chain(forgotten);
        let first = users.next()??;
        users.all(|user| user == Some(first)).then_some(first)
    }

    fn counting(&self) -> impl Iterator<Item = (u32, &Reader)> {
        let any = |what: fn(&Reader) -> bool| self.by_process.values().any(what);
        let counts: fn(&Reader) -> bool = if any(|reader| reader.reads) {
            |reader| reader.reads
        } else if any(|reader| reader.named) {
            |reader| reader.named
        } else {
            |_| true
        };
        let readers = self.by_process.iter().filter(move |(_, reader)| counts(reader));
        readers.map(|(process, reader)| (*process, reader))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_of_two_users_belongs_to_neither() {
        let mut readers = Readers::begin(7);
        assert_eq!(readers.user(), None, "not known yet");
        readers.identify(7, "vllm", 1000);
        assert_eq!(readers.user(), Some(1000));
        assert!(readers.join(8));
        readers.identify(8, "vllm", 1001);
        assert_eq!(readers.user(), None);
    }

    #[test]
    fn who_looked_at_the_header_takes_no_part() {
        let mut readers = Readers::begin(7);
        readers.identify(7, "ollama", 0);
        readers.join(8);
        readers.identify(8, "runner", 1000);
        readers.note_progress(8);
        assert_eq!(readers.taking_part(), [8]);
        assert_eq!((readers.program(), readers.user()), (Some("runner"), Some(1000)));
        assert_eq!(readers.unsettled(), [7, 8]);
    }

    #[test]
    fn before_anybody_reads_who_was_named_counts() {
        let mut readers = Readers::begin(7);
        readers.join(8);
        readers.note_named(8);
        assert_eq!(readers.taking_part(), [8]);
        assert!(readers.note_direct(8), "the one that counts reads past the page cache");
        readers.ended(8);
        assert!(readers.all_ended());
    }

    #[test]
    fn a_header_is_no_reason_to_go_on_without_the_reader() {
        let mut readers = Readers::begin(7);
        readers.join(8);
        readers.note_progress(8);
        assert!(!readers.leave(8));
        assert!(readers.leave(7));
    }

    #[test]
    fn of_many_that_come_and_go_few_are_remembered_and_every_user() {
        let mut readers = Readers::begin(1);
        for process in 1..1000 {
            readers.join(process);
            readers.identify(process, "dd", if process == 1 { 1000 } else { 1001 });
            readers.note_progress(process);
            readers.ended(process);
            readers.settle(process);
        }
        assert_eq!(readers.taking_part().len(), MOST_SETTLED);
        assert!(readers.unsettled().is_empty());
        assert_eq!(readers.user(), None);
    }

    #[test]
    fn it_ends_with_the_last_process() {
        let mut readers = Readers::begin(7);
        readers.join(8);
        readers.ended(7);
        assert!(!readers.all_ended());
        readers.ended(8);
        assert!(readers.all_ended());
        assert!(readers.join(8), "another process with its number");
        assert!(!readers.all_ended());
    }
}
