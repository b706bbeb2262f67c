//! The names below the roots, stored for a million files: about 90 bytes each.
//!
//! In: what directory listings and `statx` say. Out: look-ups by name, by identity and by tree. All names live in one
//! arena, all nodes in one vector, and the indexes hold node numbers only. What a batch of changes did to the *set of
//! files* is kept in [`super::delta::Delta`], so that a rename inside the roots is no change at all.
//!
//! It knows nothing of system calls or layouts, and resolves no links (see `links`).

mod edit;
#[cfg(test)]
mod random;

use std::{
    collections::HashMap,
    ffi::{OsStr, OsString},
    hash::{BuildHasher, RandomState},
    os::unix::ffi::{OsStrExt, OsStringExt},
};

use hashbrown::HashTable;
use nix::sys::inotify::WatchDescriptor;

use super::SMALLEST_MATCHED;
use crate::units::FileId;

/// "No node", "no directory".
pub(super) const NONE: u32 = u32::MAX;

/// Most names that are kept; a tree with more is a mistake or an attack, and is watched in part.
pub(super) const MOST_NAMES: usize = 4_000_000;

/// Number of a node (a name in a directory).
pub(super) type NodeNumber = u32;
/// Number of a directory.
pub(super) type DirNumber = u32;

/// What stands behind a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NodeKind {
    /// A regular file; the first name found of it.
    File,
    /// Another name of a file.
    Alias,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// An empty slot.
    Free,
}

/// What a listing found behind a name.
#[derive(Clone, Copy, Debug)]
pub(super) enum Found<'a> {
    /// A regular file.
    File { file: FileId, size: u64, stamp: u32 },
    /// A directory.
    Directory,
    /// A symbolic link with this text.
    Link { target: &'a [u8] },
}

#[derive(Clone, Copy, Debug)]
struct Node {
    inode: u64,
    /// File: bytes. Directory: its number. Link: where its text is (offset << 16 | length).
    payload: u64,
    device: u32,
    parent: DirNumber,
    name: u32,
    next: NodeNumber,
    previous: NodeNumber,
    stamp: u32,
    name_length: u8,
    kind: NodeKind,
}

/// A directory.
#[derive(Clone, Debug)]
pub(super) struct Dir {
    /// Its own name; `NONE` for a root.
    pub node: NodeNumber,
    /// Which root it is below.
    pub root: u32,
    /// Levels below the root.
    pub depth: u32,
    /// `st_dev` and inode, once it has been opened. Not the page cache's device: btrfs subvolumes share that and their
    /// top inode number.
    pub identity: Option<(u32, u64)>,
    /// Its inotify watch.
    pub watch: Option<WatchDescriptor>,
    first: NodeNumber,
    live: bool,
}

/// All names below the roots.
#[derive(Debug, Default)]
pub(super) struct Table {
    nodes: Vec<Node>,
    free_nodes: Vec<NodeNumber>,
    dirs: Vec<Dir>,
    free_dirs: Vec<DirNumber>,
    names: Vec<u8>,
    gone: usize,
    by_name: HashTable<NodeNumber>,
    by_file: HashTable<NodeNumber>,
    by_identity: HashMap<(u32, u64), DirNumber>,
    by_watch: HashMap<WatchDescriptor, DirNumber>,
    by_matched_name: HashTable<NodeNumber>,
    aliases: HashMap<FileId, Vec<NodeNumber>>,
    hasher: RandomState,
    /// Sparse files can claim 2^63 bytes each.
    bytes: u128,
}

impl Table {
    /// Names in the table.
    pub fn len(&self) -> usize {
        self.nodes.len() - self.free_nodes.len()
    }
    /// Distinct files.
    pub fn file_count(&self) -> usize {
        self.by_file.len()
    }
    /// Directories, roots included.
    pub fn dir_count(&self) -> usize {
        self.dirs.len() - self.free_dirs.len()
    }
    /// Bytes of all distinct files; at most what 64 bits hold.
    pub fn bytes(&self) -> u64 {
        u64::try_from(self.bytes).unwrap_or(u64::MAX)
    }
    /// The directory `dir`, if it still is one.
    pub fn dir(&self, dir: DirNumber) -> Option<&Dir> {
        self.dirs.get(dir as usize).filter(|dir| dir.live)
    }
    /// The numbers of all directories.
    pub fn dirs(&self) -> impl Iterator<Item = DirNumber> + '_ {
        (0..)
            .zip(&self.dirs)
            .filter(|(_, dir)| dir.live)
            .map(|(number, _)| number)
    }
    /// The directory with this `st_dev` and inode.
    pub fn dir_by_identity(&self, identity: (u32, u64)) -> Option<DirNumber> {
        self.by_identity.get(&identity).copied()
    }

    /// The directory that an inotify watch is on.
    pub fn dir_by_watch(&self, watch: WatchDescriptor) -> Option<DirNumber> {
        self.by_watch.get(&watch).copied()
    }

    /// The node `name` in `parent`.
    pub fn child(&self, parent: DirNumber, name: &[u8]) -> Option<NodeNumber> {
        let hash = self.hasher.hash_one((parent, name));
        self.by_name
            .find(hash, |node| self.is_named(*node, parent, name))
            .copied()
    }

    fn is_named(&self, node: NodeNumber, parent: DirNumber, name: &[u8]) -> bool {
        self.nodes[node as usize].parent == parent && self.name(node) == name
    }

    /// The nodes in `dir`, in no order.
    pub fn children(&self, dir: DirNumber) -> impl Iterator<Item = NodeNumber> + '_ {
        let first = self.dir(dir).map_or(NONE, |dir| dir.first);
        std::iter::successors((first != NONE).then_some(first), |node| {
            let next = self.nodes[*node as usize].next;
            (next != NONE).then_some(next)
        })
    }

    /// What kind of thing the node is.
    pub fn kind(&self, node: NodeNumber) -> NodeKind {
        self.nodes[node as usize].kind
    }
    /// Its name, without directories.
    pub fn name(&self, node: NodeNumber) -> &[u8] {
        let node = &self.nodes[node as usize];
        &self.names[node.name as usize..node.name as usize + usize::from(node.name_length)]
    }
    /// The directory it is in.
    pub fn parent(&self, node: NodeNumber) -> DirNumber {
        self.nodes[node as usize].parent
    }
    /// The directory that the node is; `None` for anything else.
    pub fn as_dir(&self, node: NodeNumber) -> Option<DirNumber> {
        let node = &self.nodes[node as usize];
        (node.kind == NodeKind::Directory).then_some(node.payload as DirNumber)
    }
    /// The file that the node names, with its size; `None` for anything else.
    pub fn as_file(&self, node: NodeNumber) -> Option<(FileId, u64)> {
        let node = &self.nodes[node as usize];
        matches!(node.kind, NodeKind::File | NodeKind::Alias).then_some((node.file(), node.payload))
    }
    /// The text of a symbolic link; `None` for anything else.
    pub fn as_link(&self, node: NodeNumber) -> Option<&[u8]> {
        let node = &self.nodes[node as usize];
        let (start, length) = node.text()?;
        Some(&self.names[start..start + length])
    }
    /// The first name of a file.
    pub fn file(&self, file: FileId) -> Option<NodeNumber> {
        self.by_file
            .find(self.hasher.hash_one(file), |node| {
                self.nodes[*node as usize].file() == file
            })
            .copied()
    }
    /// Size and version stamp of a file.
    pub fn state(&self, file: FileId) -> Option<(u64, u32)> {
        self.file(file)
            .map(|node| &self.nodes[node as usize])
            .map(|node| (node.payload, node.stamp))
    }
    /// All files, each once, with their sizes.
    pub fn files(&self) -> impl Iterator<Item = (FileId, u64)> + '_ {
        self.file_nodes()
            .map(|node| &self.nodes[node as usize])
            .map(|node| (node.file(), node.payload))
    }
    /// The first name of each file.
    pub fn file_nodes(&self) -> impl Iterator<Item = NodeNumber> + '_ {
        (0..)
            .zip(&self.nodes)
            .filter(|(_, node)| node.kind == NodeKind::File)
            .map(|(number, _)| number)
    }
    /// All symbolic links.
    pub fn links(&self) -> impl Iterator<Item = NodeNumber> + '_ {
        (0..)
            .zip(&self.nodes)
            .filter(|(_, node)| node.kind == NodeKind::Link)
            .map(|(number, _)| number)
    }
    /// Files of at least [`SMALLEST_MATCHED`] bytes and symbolic links with exactly this name.
    pub fn matched_by_name<'a>(&'a self, name: &'a [u8]) -> impl Iterator<Item = NodeNumber> + 'a {
        let hash = self.hasher.hash_one(name);
        self.by_matched_name
            .iter_hash(hash)
            .copied()
            .filter(move |node| self.name(*node) == name)
    }

    /// Path of a directory below its root, without slashes at the ends.
    pub fn path_of_dir(&self, dir: DirNumber) -> OsString {
        let mut names: Vec<&[u8]> = Vec::new();
        let mut at = dir;
        while let Some(node) = self.dir(at).map(|dir| dir.node).filter(|node| *node != NONE) {
            names.push(self.name(node));
            at = self.parent(node);
        }
        names.reverse();
        OsString::from_vec(names.join(&b'/'))
    }
    /// Path of a node below its root.
    pub fn path_of(&self, node: NodeNumber) -> OsString {
        let mut path = self.path_of_dir(self.parent(node));
        if !path.is_empty() {
            path.push("/");
        }
        path.push(OsStr::from_bytes(self.name(node)));
        path
    }
}

impl Node {
    fn file(&self) -> FileId {
        FileId {
            device: self.device,
            inode: self.inode,
        }
    }
    fn name_in<'a>(&self, names: &'a [u8]) -> &'a [u8] {
        &names[self.name as usize..self.name as usize + usize::from(self.name_length)]
    }
    /// Where the text of a link is.
    fn text(&self) -> Option<(usize, usize)> {
        (self.kind == NodeKind::Link).then_some(((self.payload >> 16) as usize, (self.payload & 0xffff) as usize))
    }
    fn is_matched(&self) -> bool {
        match self.kind {
            NodeKind::File | NodeKind::Alias => self.payload >= SMALLEST_MATCHED,
            NodeKind::Link => true,
            NodeKind::Directory | NodeKind::Free => false,
        }
    }
}
