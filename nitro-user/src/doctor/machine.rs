//! Where facts are read: the file tree of a machine, this one's or one that a test has made.
//!
//! In: a root below which `/proc`, `/sys` and the rest are. Out: texts, numbers and names, each with a bound, since on this machine some of them were written by others.
//! What cannot be read is not there.

use std::{
    fs,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::{
    fcntl::{OFlag, open},
    sys::stat::Mode,
};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    discover::walk::{self, Place, Stop, User},
    sys::{
        aside,
        mounts::{self, Mounts},
        proc::read_at_most,
    },
};

/// Longest text that is looked at: `/proc/cpuinfo` is longer, and all its processors are alike.
const MOST_TEXT: usize = 64 << 10;

/// Names that are taken from a directory, and that are looked at for them.
const MOST_NAMES: usize = 256;
const MOST_ENTRIES: usize = 65_536;

/// What the kernel calls the agent's process.
const PROGRAM: &str = "nitro-agent";

/// How long all looks together may take at file systems that may not answer.
pub const PATIENCE: Duration = Duration::from_secs(6);

/// A machine, as far as files tell of it.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Where its files are.
    pub(super) root: PathBuf,
    /// `x86_64`, `aarch64`.
    pub architecture: &'static str,
    /// Bytes of a page.
    pub page: u64,
    /// Until when there is an answer from file systems that may not answer; they are asked by other processes. `None`: they answer, and are asked right here.
    pub(super) until: Option<Instant>,
}

impl Machine {
    /// This one. From now on [`PATIENCE`] runs.
    pub fn own() -> Self {
        Self {
            until: Some(Instant::now() + PATIENCE),
            ..Self::at(Path::new("/"))
        }
    }

    /// The same, of whose patience half is left.
    pub fn half(&self) -> Self {
        let now = Instant::now();
        let half = |until: Instant| now + until.saturating_duration_since(now) / 2;
        Self {
            until: self.until.map(half),
            ..self.clone()
        }
    }

    /// One whose files are below `root`, and answer; processor and pages are this machine's.
    pub fn at(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            architecture: std::env::consts::ARCH,
            page: crate::sys::page_size(),
            until: None,
        }
    }

    /// Where a file of the machine is.
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Whether there is something.
    pub fn has(&self, path: impl AsRef<Path>) -> bool {
        self.path(path).exists()
    }

    /// The beginning of a text file; bytes that are not UTF-8 are replaced.
    pub fn text(&self, path: impl AsRef<Path>) -> Option<String> {
        let bytes = self.bytes(path, MOST_TEXT)?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The first bytes of a file. What is no regular file is not opened: a FIFO would hold us.
    pub fn bytes(&self, path: impl AsRef<Path>, most: usize) -> Option<Vec<u8>> {
        let path = self.path(path);
        fs::metadata(&path).ok()?.is_file().then(|| read_at_most(&path, most))?
    }

    /// The first line of a file, without the blanks around it.
    pub fn word(&self, path: impl AsRef<Path>) -> Option<String> {
        let text = self.text(path)?;
        Some(text.lines().next().unwrap_or_default().trim().to_owned())
    }

    /// A number that is all there is in a file.
    pub fn number(&self, path: impl AsRef<Path>) -> Option<u64> {
        self.word(path)?.parse().ok()
    }

    /// The word in brackets of those in a file, as in `none [mq-deadline] bfq`; without brackets, all of it.
    pub fn chosen(&self, path: impl AsRef<Path>) -> Option<String> {
        let line = self.word(path)?;
        let chosen = line
            .split_once('[')
            .and_then(|(_, rest)| rest.split_once(']'))
            .map(|(word, _)| word.to_owned());
        Some(chosen.unwrap_or(line)).filter(|word| !word.is_empty())
    }

    /// The names in a directory that are wanted, in order.
    pub fn names(&self, directory: impl AsRef<Path>, is_wanted: impl Fn(&str) -> bool) -> Vec<String> {
        let entries = fs::read_dir(self.path(directory)).into_iter().flatten().flatten();
        let names = entries
            .take(MOST_ENTRIES)
            .map(|entry| entry.file_name().to_string_lossy().into_owned());
        let mut names: Vec<String> = names.filter(|name| is_wanted(name)).take(MOST_NAMES).collect();
        names.sort();
        names
    }

    /// Whether the process is one of the agent's: one in a container has a number of its own there, which is another process here.
    pub fn is_agent(&self, process: u32) -> bool {
        self.word(format!("/proc/{process}/comm")).as_deref() == Some(PROGRAM)
    }

    /// The mount table of the processes that see what we see; empty where it cannot be read.
    pub fn mounts(&self) -> Mounts {
        Mounts::read(&self.path(mounts::OWN)).unwrap_or_default()
    }

    /// Where the absolute path `path` leads from the directory `top`, seen from which the mounts are `mounts`. No server is asked, and no process: at a file system that may hang it stops.
    pub fn walk(&self, top: &Path, mounts: &Mounts, path: &Path) -> Result<Place, Stop> {
        let top = self.top(top).ok_or(Stop::Closed)?;
        walk::walk(top.as_fd(), mounts, path, &User::root())
    }

    fn top(&self, path: &Path) -> Option<OwnedFd> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        open(&self.path(path), flags, Mode::empty()).ok()
    }

    /// Puts the questions, all at once; `None` for each that was not answered in time.
    pub fn ask<Q, A: Serialize + DeserializeOwned>(&self, questions: &[Q], answer: impl Fn(&Q) -> A) -> Vec<Option<A>> {
        let Some(until) = self.until else {
            return questions.iter().map(|question| Some(answer(question))).collect();
        };
        let asked: Vec<_> = questions
            .iter()
            .map(|question| aside::ask(|| answer(question)))
            .collect();
        asked.into_iter().map(|asked| asked.ok()?.wait(until)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_brackets_is_chosen() {
        let tree = tempfile::tempdir().unwrap();
        let machine = Machine::at(tree.path());
        for (text, chosen) in [
            ("none [mq-deadline] kyber\n", Some("mq-deadline")),
            ("none\n", Some("none")),
            ("[unclosed\n", Some("[unclosed")),
            ("", None),
        ] {
            fs::write(tree.path().join("f"), text).unwrap();
            assert_eq!(machine.chosen("/f").as_deref(), chosen, "{text:?}");
        }
        assert_eq!(machine.chosen("/gone"), None);
    }

    #[test]
    fn files_of_others_are_bounded_and_a_fifo_is_not_opened() {
        let tree = tempfile::tempdir().unwrap();
        let machine = Machine::at(tree.path());
        fs::write(tree.path().join("long"), vec![0xff; 1 << 20]).unwrap();
        assert!(machine.text("/long").unwrap().chars().count() <= MOST_TEXT);
        nix::unistd::mkfifo(&tree.path().join("fifo"), nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert_eq!(machine.text("/fifo"), None);
        fs::write(tree.path().join("number"), "99999999999999999999999\n").unwrap();
        assert_eq!(machine.number("/number"), None);
    }

    #[test]
    fn a_path_is_one_of_the_machine() {
        let tree = tempfile::tempdir().unwrap();
        let machine = Machine::at(tree.path());
        let mounts = Mounts::parse(b"1 0 8:1 / / rw - ext4 a rw\n2 1 0:9 / /net rw - nfs4 server:/ rw\n");
        fs::create_dir_all(tree.path().join("srv/models")).unwrap();
        fs::create_dir_all(tree.path().join("net/models")).unwrap();
        std::os::unix::fs::symlink("/srv/models", tree.path().join("link")).unwrap();
        std::os::unix::fs::symlink("/etc", tree.path().join("out")).unwrap();
        let walk = |path: &str| machine.walk(Path::new("/"), &mounts, Path::new(path));
        assert_eq!(walk("/link").unwrap().path, Path::new("/srv/models"));
        assert_eq!(walk("/gone"), Err(Stop::Nothing));
        assert_eq!(walk("/out"), Err(Stop::Nothing));
        assert!(matches!(walk("/net/models"), Err(Stop::Foreign(..))));
    }

    #[test]
    fn many_names_that_nobody_wants_hide_none_that_is_wanted() {
        let tree = tempfile::tempdir().unwrap();
        for number in 0..4 * MOST_NAMES {
            fs::write(tree.path().join(format!("loop{number}")), "").unwrap();
        }
        fs::write(tree.path().join("zram0"), "").unwrap();
        let machine = Machine::at(tree.path());
        assert_eq!(machine.names("/", |name| name.starts_with("zram")), ["zram0"]);
        assert_eq!(machine.names("/", |_| true).len(), MOST_NAMES);
    }
}
