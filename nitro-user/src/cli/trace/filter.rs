//! Which records are wanted: by program, by process, by directory.
//!
//! What belongs to no process is wanted if it is about a file that one of those that are wanted has touched.

use std::{
    collections::{HashMap, HashSet},
    fs,
    path::PathBuf,
};

use crate::{catalog::model::Description, engine::Input, trace::Record, units::FileId};

/// Files below the directories that are wanted.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    directories: Vec<PathBuf>,
    files: HashSet<FileId>,
}

impl Wanted {
    /// `files` are below `directories`; others are added as the engine is told of them.
    pub fn new(directories: &[PathBuf], files: impl IntoIterator<Item = FileId>) -> Self {
        let canonical = |path: &PathBuf| path.canonicalize().unwrap_or_else(|_| path.clone());
        Self {
            directories: directories.iter().map(canonical).collect(),
            files: files.into_iter().collect(),
        }
    }

    fn learn(&mut self, description: &Description) {
        let parts = description.model.parts.iter();
        let below = parts.filter(|part| self.directories.iter().any(|directory| part.is_at(directory)));
        self.files.extend(below.map(|part| part.file));
    }
}

/// What is wanted.
#[derive(Debug, Default)]
pub struct Filter {
    programs: Vec<String>,
    processes: Vec<u32>,
    files: Option<Wanted>,
    /// What is known of processes.
    known: HashMap<u32, bool>,
    touched: HashSet<FileId>,
}

impl Filter {
    /// Wants what programs of these names and these processes do, all of them where none is named, in these files, all of them without.
    pub fn new(programs: &[String], processes: &[u32], files: Option<Wanted>) -> Self {
        Self {
            programs: programs.to_vec(),
            processes: processes.to_vec(),
            files,
            ..Self::default()
        }
    }

    /// The processes that were named.
    pub fn processes(&self) -> &[u32] {
        &self.processes
    }

    /// In words; empty when everything is wanted.
    pub fn words(&self, directories: &[String]) -> Vec<String> {
        let programs = self.programs.iter().map(|name| format!("program {name}"));
        let processes = self.processes.iter().map(|process| format!("process {process}"));
        let directories = directories.iter().map(|path| format!("below {path}"));
        programs.chain(processes).chain(directories).collect()
    }

    /// Whether a record is wanted.
    pub fn wants(&mut self, record: &Record) -> bool {
        if let Record::Input {
            input: Input::Program { process, name, .. },
            ..
        } = record
        {
            self.known.insert(*process, self.by_name(*process, name));
        }
        if let (
            Some(files),
            Record::Input {
                input:
                    Input::Described {
                        description: Some(description),
                        ..
                    }
                    | Input::Named { description, .. },
                ..
            },
        ) = (&mut self.files, record)
        {
            files.learn(description);
        }
        let (process, file) = concerns(record);
        if let (Some(wanted), Some(file)) = (&self.files, file)
            && !wanted.files.contains(&file)
        {
            return false;
        }
        match (process, file) {
            (Some(process), file) => {
                let wanted = self.wants_process(process);
                if wanted {
                    self.touched.extend(file);
                }
                wanted
            }
            (None, Some(file)) if self.by_process() => self.touched.contains(&file),
            (None, _) => true,
        }
    }

    const fn by_process(&self) -> bool {
        !self.programs.is_empty() || !self.processes.is_empty()
    }

    fn wants_process(&mut self, process: u32) -> bool {
        if !self.by_process() {
            return true;
        }
        if let Some(known) = self.known.get(&process) {
            return *known;
        }
        let wanted = self.by_name(process, &program_of(process).unwrap_or_default());
        self.known.insert(process, wanted);
        wanted
    }

    /// The kernel keeps the first 15 bytes of a name.
    fn by_name(&self, process: u32, name: &str) -> bool {
        let is_cut = name.len() == 15;
        let fits = |wanted: &String| wanted == name || is_cut && wanted.starts_with(name);
        self.processes.contains(&process) || self.programs.iter().any(fits)
    }
}

/// What the program of a process is called now.
pub fn program_of(process: u32) -> Option<String> {
    let name = fs::read(format!("/proc/{process}/comm")).ok()?;
    Some(String::from_utf8_lossy(&name).trim_end_matches('\n').to_owned())
}

/// The process that a record is of, and the file that it is about.
pub fn concerns(record: &Record) -> (Option<u32>, Option<FileId>) {
    match record {
        Record::Input { input, .. } => match input {
            Input::Access(access) => (Some(access.process), Some(access.file)),
            Input::Direct { process, file } => (Some(*process), Some(*file)),
            Input::Named { process, description } => (Some(*process), Some(description.file)),
            Input::Program { process, .. } | Input::Ended { process } => (Some(*process), None),
            Input::Described { file, .. }
            | Input::Removed { file, .. }
            | Input::Gone { file }
            | Input::Changed { file } => (None, Some(*file)),
            Input::Outcome(outcome) => (None, Some(outcome.file)),
            _ => (None, None),
        },
        // The agent brings in what others want: whose it is, the file says.
        Record::Brought { file, .. } => (None, Some(*file)),
        Record::Call { process, file, .. } | Record::Counts { process, file, .. } => (Some(*process), Some(*file)),
        Record::Receipt { .. } | Record::Lost { .. } | Record::File { .. } | Record::Process { .. } => (None, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        engine::{Access, AccessKind},
        units::{ByteRange, Moment},
    };

    const FILE: FileId = FileId { device: 1, inode: 2 };

    fn access(process: u32, file: FileId) -> Record {
        Record::Input {
            at: Moment(1),
            input: Input::Access(Access {
                at: Moment(1),
                process,
                thread: process,
                file,
                generation: 0,
                range: ByteRange::new(0, 4096),
                kind: AccessKind::Read,
                jump: false,
                in_order: false,
                written: false,
            }),
        }
    }

    fn removed(file: FileId) -> Record {
        let range = ByteRange::new(0, 4096);
        Record::Input {
            at: Moment(2),
            input: Input::Removed { file, range },
        }
    }

    #[test]
    fn without_a_filter_everything_is_wanted() {
        let mut all = Filter::default();
        assert!(all.wants(&access(u32::MAX, FILE)) && all.wants(&removed(FILE)));
    }

    #[test]
    fn of_a_process_comes_what_it_does_and_what_becomes_of_its_files() {
        let own = std::process::id();
        let mut filter = Filter {
            processes: vec![own],
            ..Filter::default()
        };
        assert!(!filter.wants(&removed(FILE)), "nobody has touched it yet");
        assert!(!filter.wants(&access(1, FILE)));
        assert!(filter.wants(&access(own, FILE)));
        assert!(filter.wants(&removed(FILE)));
        let other = FileId { inode: 3, ..FILE };
        assert!(!filter.wants(&removed(other)));
    }

    #[test]
    fn a_program_is_known_by_its_name_and_by_what_the_engine_was_told() {
        let name = fs::read_to_string("/proc/self/comm").unwrap().trim_end().to_owned();
        let mut filter = Filter {
            programs: vec![name],
            ..Filter::default()
        };
        assert!(filter.wants(&access(std::process::id(), FILE)));
        assert!(!filter.wants(&access(u32::MAX, FILE)));
        let told = Record::Input {
            at: Moment(1),
            input: Input::Program {
                process: u32::MAX,
                name: filter.programs[0].clone(),
                user: 0,
            },
        };
        assert!(filter.wants(&told) && filter.wants(&access(u32::MAX, FILE)));
    }

    #[test]
    fn files_elsewhere_are_left_out() {
        let mut filter = Filter {
            files: Some(Wanted::new(&["/models".into()], [FILE])),
            ..Filter::default()
        };
        assert!(filter.wants(&access(1, FILE)));
        let other = FileId { inode: 3, ..FILE };
        assert!(!filter.wants(&access(1, other)));
    }
}
