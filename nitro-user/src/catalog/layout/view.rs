//! What a layout may see of the world: names, sizes, and a bounded number of bytes.
//!
//! The catalog's own view is in `describe`; [`MemoryView`] is a tree made of values, for tests and fuzzing.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    ffi::OsStr,
    io::{Cursor, Read},
    path::{Component, Path, PathBuf},
};

use crate::units::FileId;

/// A regular file below a root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Which file.
    pub file: FileId,
    /// Its size in bytes.
    pub size: u64,
    /// Where it really is: absolute, no link in it.
    pub path: PathBuf,
}

/// What a name in a directory stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listed {
    /// A regular file of this size in bytes.
    File(u64),
    /// A directory.
    Directory,
    /// A symbolic link, wherever it leads.
    Link,
}

/// A file that was not believed, and why. It becomes one warning per file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

/// What is below the watch roots. All paths are absolute; nothing outside the roots is ever found.
pub trait View {
    /// The regular file at `path`; links are followed as long as they stay below the roots.
    fn file(&self, path: &Path) -> Option<Seen>;

    /// Tells every name in `directory`, in no order, until `each` returns false. False when it is no directory.
    fn list(&self, directory: &Path, each: &mut dyn FnMut(&OsStr, Listed) -> bool) -> bool;

    /// The first bytes of the file at `path`, at most `limit` of them; `None` when it cannot be opened.
    fn head(&self, path: &Path, limit: u64) -> Option<Box<dyn Read + '_>>;

    /// Notes that a file was not believed.
    fn refuse(&self, path: &Path, reason: &str);

    /// Whether `path` is a directory.
    fn is_directory(&self, path: &Path) -> bool {
        self.list(path, &mut |_, _| false)
    }

    /// All of a small file; a larger one than `limit` bytes is refused.
    /// All of a small file; a larger one than `limit` bytes is refused.
    fn read(&self, path: &Path, limit: u64) -> Option<Content>;
}

/// All of a small file.
#[derive(Clone, Debug)]
pub struct Content {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// The same version of it was read before: what is wrong with it has been told.
    pub known: bool,
}

/// All of the file at `path`; one larger than `limit` bytes is refused.
pub fn read_small(view: &dyn View, path: &Path, limit: u64) -> Option<Content> {
    let seen = view.file(path)?;
    if seen.size > limit {
        view.refuse(path, &format!("it has {} bytes, more than {limit}", seen.size));
        return None;
    }
    let mut bytes = Vec::new();
    // One more than allowed: it may have grown since it was looked at.
    view.head(path, limit + 1)?.read_to_end(&mut bytes).ok()?;
    if bytes.len() as u64 > limit {
        view.refuse(path, &format!("it has more than {limit} bytes"));
        return None;
    }
    Some(Content { bytes, known: false })
}

/// A tree of files in memory.
#[derive(Debug, Default)]
pub struct MemoryView {
    nodes: BTreeMap<PathBuf, MemoryNode>,
    refusals: RefCell<Vec<Refusal>>,
}

#[derive(Debug)]
enum MemoryNode {
    File { size: u64, bytes: Vec<u8> },
    Directory,
    Link(PathBuf),
}

impl MemoryView {
    /// Adds a file with these first bytes and at least their size; directories above it come by themselves.
    pub fn add_file(&mut self, path: impl Into<PathBuf>, size: u64, bytes: impl Into<Vec<u8>>) -> &mut Self {
        let bytes = bytes.into();
        let size = size.max(bytes.len() as u64);
        self.add(path.into(), MemoryNode::File { size, bytes })
    }

    /// Adds a symbolic link.
    pub fn add_link(&mut self, path: impl Into<PathBuf>, target: impl Into<PathBuf>) -> &mut Self {
        self.add(path.into(), MemoryNode::Link(target.into()))
    }

    /// Adds an empty directory.
    pub fn add_directory(&mut self, path: impl Into<PathBuf>) -> &mut Self {
        self.add(path.into(), MemoryNode::Directory)
    }

    /// What was refused.
    pub fn refusals(&self) -> Vec<Refusal> {
        self.refusals.borrow().clone()
    }

    fn add(&mut self, path: PathBuf, node: MemoryNode) -> &mut Self {
        for above in path.ancestors().skip(1) {
            self.nodes.entry(above.to_owned()).or_insert(MemoryNode::Directory);
        }
        self.nodes.insert(path, node);
        self
    }

    /// Follows links in the last component only, lexically: enough for a hub cache.
    fn real(&self, path: &Path) -> Option<PathBuf> {
        let mut path = lexically(path)?;
        for _ in 0..8 {
            match self.nodes.get(&path)? {
                MemoryNode::Link(target) => path = lexically(&path.parent()?.join(target))?,
                _ => return Some(path),
            }
        }
        None
    }
}

/// `path` with `..` taken by its text; `None` when that leaves `/`.
fn lexically(path: &Path) -> Option<PathBuf> {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => plain.pop().then_some(())?,
            Component::CurDir => {}
            part => plain.push(part),
        }
    }
    Some(plain)
}

impl View for MemoryView {
    fn file(&self, path: &Path) -> Option<Seen> {
        let path = self.real(path)?;
        let MemoryNode::File { size, .. } = self.nodes.get(&path)? else {
            return None;
        };
        let inode = self.nodes.range(..path.clone()).count() as u64 + 1;
        Some(Seen {
            file: FileId { device: 1, inode },
            size: *size,
            path,
        })
    }

    fn list(&self, directory: &Path, each: &mut dyn FnMut(&OsStr, Listed) -> bool) -> bool {
        let Some(directory) = self.real(directory) else {
            return false;
        };
        if !matches!(self.nodes.get(&directory), Some(MemoryNode::Directory)) {
            return false;
        }
        for (path, node) in self
            .nodes
            .range(directory.clone()..)
            .skip(1)
            .take_while(|(path, _)| path.starts_with(&directory))
        {
            let Some(name) = path.file_name().filter(|_| path.parent() == Some(&directory)) else {
                continue;
            };
            let listed = match node {
                MemoryNode::File { size, .. } => Listed::File(*size),
                MemoryNode::Directory => Listed::Directory,
                MemoryNode::Link(_) => Listed::Link,
            };
            if !each(name, listed) {
                break;
            }
        }
        true
    }

    fn head(&self, path: &Path, limit: u64) -> Option<Box<dyn Read + '_>> {
        match self.nodes.get(&self.real(path)?)? {
            MemoryNode::File { bytes, .. } => Some(Box::new(Cursor::new(bytes.as_slice()).take(limit))),
            _ => None,
        }
    }

    fn read(&self, path: &Path, limit: u64) -> Option<Content> {
        read_small(self, path, limit)
    }

    fn refuse(&self, path: &Path, reason: &str) {
        self.refusals.borrow_mut().push(Refusal {
            path: path.to_owned(),
            reason: reason.to_owned(),
        });
    }
}
