//! Where facts are read: the file tree of a machine, this one's or one that a test has made.
//!
//! In: a root below which `/proc`, `/sys` and the rest are. Out: texts, numbers and names, each with a bound, since on this machine some of them were written by others.
//! What cannot be read is not there.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::mpsc,
    time::Duration,
};

use crate::sys::{
    mounts::{self, Mounts},
    proc::read_at_most,
};

/// Longest text that is looked at: `/proc/cpuinfo` is longer, and all its processors are alike.
const MOST_TEXT: usize = 64 << 10;

/// Names that are taken from a directory.
const MOST_NAMES: usize = 256;

/// How long a look at a file system may take that may not answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// A machine, as far as files tell of it.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Where its files are.
    pub(super) root: PathBuf,
    /// `x86_64`, `aarch64`.
    pub architecture: &'static str,
    /// Bytes of a page.
    pub page: u64,
}

impl Machine {
    /// This one.
    pub fn own() -> Self {
        Self::at(Path::new("/"))
    }

    /// One whose files are below `root`; processor and pages are this machine's.
    pub fn at(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            architecture: std::env::consts::ARCH,
            page: crate::sys::page_size(),
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

    /// The names in a directory, in order.
    pub fn names(&self, directory: impl AsRef<Path>) -> Vec<String> {
        let entries = fs::read_dir(self.path(directory)).into_iter().flatten().flatten();
        let names = entries.take(MOST_NAMES);
        let mut names: Vec<String> = names
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    /// The mount table of the processes that see what we see; empty where it cannot be read.
    pub fn mounts(&self) -> Mounts {
        Mounts::read(&self.path(mounts::OWN)).unwrap_or_default()
    }

    /// The absolute path `path` without links.
    ///
    /// # Errors
    /// What the file system says; [`io::ErrorKind::TimedOut`] when it says nothing.
    pub fn canonical(&self, path: &Path) -> io::Result<PathBuf> {
        let (root, place) = (self.root.clone(), self.path(path));
        let found = patiently(move || {
            let (found, root) = (place.canonicalize()?, root.canonicalize()?);
            let below = found.strip_prefix(&root);
            let below = below.map_err(|_| io::Error::other("a link leads out of the machine's files"))?;
            Ok(Path::new("/").join(below))
        });
        let silent = || {
            let words = format!("its file system does not answer within {} s", PATIENCE.as_secs());
            io::Error::new(io::ErrorKind::TimedOut, words)
        };
        found.unwrap_or_else(|| Err(silent()))
    }
}

/// Does what may hang in a dead file system, on a thread of its own; `None` when it takes too long. The thread is left behind: it ends with the process.
pub fn patiently<T: Send + 'static>(what: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (tell, told) = mpsc::sync_channel(1);
    let thread = std::thread::Builder::new().name("nitro-doctor".into());
    thread.spawn(move || tell.send(what())).ok()?;
    told.recv_timeout(PATIENCE).ok()
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
        fs::create_dir_all(tree.path().join("srv/models")).unwrap();
        std::os::unix::fs::symlink("srv/models", tree.path().join("link")).unwrap();
        assert_eq!(machine.canonical(Path::new("/link")).unwrap(), Path::new("/srv/models"));
        let gone = machine.canonical(Path::new("/gone")).unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::NotFound);
    }
}
