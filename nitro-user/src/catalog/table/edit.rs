//! Putting names into the table and taking them out.
//!
//! In: what was found behind a name. Out: the table with all its indexes in step, and every step noted in the [`Delta`].

use std::hash::BuildHasher;

use nix::sys::inotify::WatchDescriptor;

use super::{Dir, DirNumber, Found, MOST_NAMES, NONE, Node, NodeKind, NodeNumber, SMALLEST_MATCHED, Table};
use crate::{
    catalog::{SMALLEST_WATCHED, delta::Delta},
    units::FileId,
};

/// Names are moved together when at least this much of the arena, and half of it, belongs to names that are gone.
const WORTH_MOVING: usize = 1 << 20;

impl Table {
    /// Adds the top directory of root `root`.
    pub fn add_root(&mut self, root: u32) -> DirNumber {
        self.add_dir(NONE, root, 0)
    }

    fn add_dir(&mut self, node: NodeNumber, root: u32, depth: u32) -> DirNumber {
        let dir = Dir {
            node,
            root,
            depth,
            identity: None,
            watch: None,
            first: NONE,
            live: true,
        };
        if let Some(number) = self.free_dirs.pop() {
            self.dirs[number as usize] = dir;
            return number;
        }
        self.dirs.push(dir);
        (self.dirs.len() - 1) as DirNumber
    }

    /// Notes what the directory is and how it is watched.
    pub fn set_opened(
        &mut self,
        dir: DirNumber,
        identity: (u32, u64),
        watch: Option<WatchDescriptor>,
        delta: &mut Delta,
    ) {
        let Some(known) = self.dirs.get_mut(dir as usize).filter(|dir| dir.live) else {
            return;
        };
        let (before, watched) = (
            known.identity.replace(identity),
            std::mem::replace(&mut known.watch, watch),
        );
        if watched != watch {
            delta.unwatched_dirs.extend(watched);
            if let Some(watched) = watched {
                self.leave_watch(watched, dir);
            }
        }
        watch.map(|watch| self.by_watch.insert(watch, dir));
        if let Some(before) = before
            && self.by_identity.get(&before) == Some(&dir)
        {
            self.by_identity.remove(&before);
        }
        self.by_identity.insert(identity, dir);
    }

    /// Notes that another directory stands here than the one that was known: that one may turn up elsewhere, even where this one came from.
    pub fn set_unknown(&mut self, dir: DirNumber, delta: &mut Delta) {
        let Some(known) = self.dirs.get_mut(dir as usize).filter(|dir| dir.live) else {
            return;
        };
        let (identity, watch) = (known.identity.take(), known.watch.take());
        if let Some(identity) = identity
            && self.by_identity.get(&identity) == Some(&dir)
        {
            self.by_identity.remove(&identity);
        }
        delta.unwatched_dirs.extend(watch);
        if let Some(watch) = watch {
            self.leave_watch(watch, dir);
        }
    }

    fn leave_watch(&mut self, watch: WatchDescriptor, dir: DirNumber) {
        // A directory that was moved took its watch along.
        if self.by_watch.get(&watch) == Some(&dir) {
            self.by_watch.remove(&watch);
        }
    }

    /// Notes that the kernel has taken a watch away.
    pub fn lost_watch(&mut self, watch: WatchDescriptor) {
        if let Some(dir) = self
            .by_watch
            .remove(&watch)
            .and_then(|dir| self.dirs.get_mut(dir as usize))
        {
            dir.watch = None;
        }
    }

    /// Puts what was found at `name` in `parent` into the table; whatever else stood there goes. Returns its node, or
    /// `None` when the table is full or the name impossible.
    pub fn put(&mut self, parent: DirNumber, name: &[u8], found: Found<'_>, delta: &mut Delta) -> Option<NodeNumber> {
        if let Some(node) = self.child(parent, name) {
            let same = match found {
                Found::File { file, .. } => self.as_file(node).is_some_and(|(known, _)| known == file),
                Found::Directory => self.kind(node) == NodeKind::Directory,
                Found::Link { target } => self.as_link(node) == Some(target),
            };
            if same {
                if let Found::File { file, size, stamp } = found {
                    self.refresh(file, size, stamp, delta);
                }
                return Some(node);
            }
            self.remove(node, delta);
        }
        let (root, depth) = self.dir(parent).map(|dir| (dir.root, dir.depth))?;
        let text = if let Found::Link { target } = found {
            target
        } else {
            &[]
        };
        let full = self.len() >= MOST_NAMES || self.names.len() + name.len() + text.len() >= NONE as usize;
        if full || name.is_empty() || name.len() > 255 || text.len() > 4096 {
            return None;
        }
        delta.touch_dir(parent);
        let mut node = Node {
            inode: 0,
            payload: 0,
            device: 0,
            parent,
            name: self.names.len() as u32,
            next: NONE,
            previous: NONE,
            stamp: 0,
            name_length: name.len() as u8,
            kind: NodeKind::Directory,
        };
        self.names.extend_from_slice(name);
        let number = self.free_nodes.pop().unwrap_or(self.nodes.len() as NodeNumber);
        match found {
            Found::File { file, size, stamp } => {
                let first = self.file(file).is_none();
                if first {
                    delta.touch_file(file, None);
                } else {
                    self.refresh(file, size, stamp, delta);
                }
                node = Node {
                    inode: file.inode,
                    device: file.device,
                    payload: size,
                    stamp,
                    ..node
                };
                node.kind = if first { NodeKind::File } else { NodeKind::Alias };
            }
            Found::Directory => node.payload = u64::from(self.add_dir(number, root, depth + 1)),
            Found::Link { target } => {
                node.payload = (self.names.len() as u64) << 16 | target.len() as u64;
                node.kind = NodeKind::Link;
                self.names.extend_from_slice(target);
            }
        }
        match self.nodes.get_mut(number as usize) {
            Some(slot) => *slot = node,
            None => self.nodes.push(node),
        }
        self.enter(number);
        Some(number)
    }

    /// Puts a filled node into its directory and the indexes.
    fn enter(&mut self, number: NodeNumber) {
        let node = self.nodes[number as usize];
        let first = std::mem::replace(&mut self.dirs[node.parent as usize].first, number);
        self.nodes[number as usize].next = first;
        if let Some(next) = self.nodes.get_mut(first as usize) {
            next.previous = number;
        }
        let hash = self.hash_name(number);
        let (nodes, names, hasher) = (&self.nodes, &self.names, &self.hasher);
        self.by_name.insert_unique(hash, number, |other| {
            let other = &nodes[*other as usize];
            hasher.hash_one((other.parent, other.name_in(names)))
        });
        match node.kind {
            NodeKind::File => {
                self.bytes += u128::from(node.payload);
                let hash = self.hasher.hash_one(node.file());
                let (nodes, hasher) = (&self.nodes, &self.hasher);
                self.by_file
                    .insert_unique(hash, number, |other| hasher.hash_one(nodes[*other as usize].file()));
            }
            NodeKind::Alias => self.aliases.entry(node.file()).or_default().push(number),
            _ => {}
        }
        self.index_for_matching(number);
    }

    fn index_for_matching(&mut self, number: NodeNumber) {
        if !self.nodes[number as usize].is_matched() {
            return;
        }
        let hash = self.hasher.hash_one(self.name(number));
        let (nodes, names, hasher) = (&self.nodes, &self.names, &self.hasher);
        self.by_matched_name.insert_unique(hash, number, |other| {
            hasher.hash_one(nodes[*other as usize].name_in(names))
        });
    }

    fn forget_for_matching(&mut self, number: NodeNumber) {
        let hash = self.hasher.hash_one(self.name(number));
        if let Ok(entry) = self.by_matched_name.find_entry(hash, |other| *other == number) {
            entry.remove();
        }
    }

    fn hash_name(&self, number: NodeNumber) -> u64 {
        self.hasher.hash_one((self.parent(number), self.name(number)))
    }

    /// Brings size and stamp of a known file up to date under all its names.
    fn refresh(&mut self, file: FileId, size: u64, stamp: u32, delta: &mut Delta) {
        let Some(first) = self.file(file) else { return };
        let known = self.nodes[first as usize];
        if (known.payload, known.stamp) == (size, stamp) {
            return;
        }
        delta.touch_file(file, Some((known.payload, known.stamp)));
        self.bytes = self.bytes - u128::from(known.payload) + u128::from(size);
        let crossed = (known.payload >= SMALLEST_MATCHED) != (size >= SMALLEST_MATCHED);
        // A listing of large files is another one only then; a growing log must not void every answer beside it.
        let listed = (known.payload >= SMALLEST_WATCHED) != (size >= SMALLEST_WATCHED);
        let others = self.aliases.get(&file).cloned().unwrap_or_default();
        for number in std::iter::once(first).chain(others) {
            if listed {
                delta.touch_dir(self.parent(number));
            }
            if crossed {
                self.forget_for_matching(number);
            }
            let node = &mut self.nodes[number as usize];
            (node.payload, node.stamp) = (size, stamp);
            if crossed {
                self.index_for_matching(number);
            }
        }
    }

    /// Takes a node out, with everything below it.
    pub fn remove(&mut self, node: NodeNumber, delta: &mut Delta) {
        if self.kind(node) == NodeKind::Free {
            return;
        }
        let mut doomed = vec![node];
        // Children come behind their parents, so going backwards empties directories before they go.
        let mut at = 0;
        while let Some(dir) = doomed.get(at).copied().map(|node| self.as_dir(node)) {
            if let Some(dir) = dir {
                doomed.extend(self.children(dir));
            }
            at += 1;
        }
        for node in doomed.into_iter().rev() {
            self.remove_one(node, delta);
        }
    }

    /// Takes out everything in `dir`, which stays.
    pub fn empty(&mut self, dir: DirNumber, delta: &mut Delta) {
        let children: Vec<_> = self.children(dir).collect();
        for node in children {
            self.remove(node, delta);
        }
    }

    /// Lets the numbers that a batch has freed be used again. Not earlier: a scan may still hold them.
    pub fn reclaim(&mut self, delta: &mut Delta) {
        self.free_nodes.append(&mut delta.freed_nodes);
        self.free_dirs.append(&mut delta.freed_dirs);
    }

    /// Takes out the top directory of a root with everything in it.
    pub fn remove_root(&mut self, dir: DirNumber, delta: &mut Delta) {
        self.empty(dir, delta);
        self.drop_dir(dir, delta);
    }

    fn drop_dir(&mut self, number: DirNumber, delta: &mut Delta) {
        let Some(dir) = self.dirs.get_mut(number as usize).filter(|dir| dir.live) else {
            return;
        };
        dir.live = false;
        delta.touch_dir(number);
        let (watch, identity) = (dir.watch.take(), dir.identity.take());
        if let Some(watch) = watch {
            delta.unwatched_dirs.push(watch);
            self.leave_watch(watch, number);
        }
        if let Some(identity) = identity
            && self.by_identity.get(&identity) == Some(&number)
        {
            self.by_identity.remove(&identity);
        }
        delta.freed_dirs.push(number);
    }

    fn remove_one(&mut self, number: NodeNumber, delta: &mut Delta) {
        let node = self.nodes[number as usize];
        delta.touch_dir(node.parent);
        let hash = self.hash_name(number);
        if let Ok(entry) = self.by_name.find_entry(hash, |other| *other == number) {
            entry.remove();
        }
        self.forget_for_matching(number);
        match self.nodes.get_mut(node.previous as usize) {
            Some(previous) => previous.next = node.next,
            None => self.dirs[node.parent as usize].first = node.next,
        }
        if let Some(next) = self.nodes.get_mut(node.next as usize) {
            next.previous = node.previous;
        }
        match node.kind {
            NodeKind::File => self.remove_first_name(number, delta),
            NodeKind::Alias => self.forget_alias(node.file(), number),
            NodeKind::Directory => self.drop_dir(node.payload as DirNumber, delta),
            NodeKind::Link | NodeKind::Free => {}
        }
        self.gone += usize::from(node.name_length) + node.text().map_or(0, |(_, length)| length);
        self.nodes[number as usize].kind = NodeKind::Free;
        delta.freed_nodes.push(number);
        if self.gone > WORTH_MOVING && self.gone * 2 > self.names.len() {
            self.move_names_together();
        }
    }

    /// The first name of a file goes: another one takes its place, or the file is gone.
    fn remove_first_name(&mut self, number: NodeNumber, delta: &mut Delta) {
        let node = self.nodes[number as usize];
        let file = node.file();
        let Ok(entry) = self
            .by_file
            .find_entry(self.hasher.hash_one(file), |other| *other == number)
        else {
            return;
        };
        if let Some(other) = self.aliases.get(&file).and_then(|others| others.last()).copied() {
            *entry.into_mut() = other;
            self.nodes[other as usize].kind = NodeKind::File;
            self.forget_alias(file, other);
        } else {
            entry.remove();
            self.bytes -= u128::from(node.payload);
            delta.touch_file(file, Some((node.payload, node.stamp)));
        }
    }

    fn forget_alias(&mut self, file: FileId, number: NodeNumber) {
        if let Some(others) = self.aliases.get_mut(&file) {
            others.retain(|other| *other != number);
            if others.is_empty() {
                self.aliases.remove(&file);
            }
        }
    }

    fn move_names_together(&mut self) {
        let mut names = Vec::with_capacity(self.names.len() - self.gone);
        for node in self.nodes.iter_mut().filter(|node| node.kind != NodeKind::Free) {
            let name = names.len() as u32;
            names.extend_from_slice(node.name_in(&self.names));
            if let Some((start, length)) = node.text() {
                node.payload = (names.len() as u64) << 16 | length as u64;
                names.extend_from_slice(&self.names[start..start + length]);
            }
            node.name = name;
        }
        self.names = names;
        self.gone = 0;
    }
}
