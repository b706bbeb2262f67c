//! The table against the plainest model of it, through arbitrary sequences of steps.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::catalog::{SMALLEST_WATCHED, delta::Delta};

#[derive(Clone, Debug)]
enum Step {
    File(u8, u8, u64, u64),
    Directory(u8, u8),
    Link(u8, u8, Vec<u8>),
    Remove(u8, u8),
    Settle,
}

fn step() -> impl Strategy<Value = Step> {
    let size = prop_oneof![Just(0), Just(SMALLEST_WATCHED), Just(SMALLEST_MATCHED), any::<u64>()];
    prop_oneof![
        4 => (0..6u8, 0..6u8, 0..8u64, size).prop_map(|(dir, name, inode, size)| Step::File(dir, name, inode, size)),
        2 => (0..6u8, 0..6u8).prop_map(|(dir, name)| Step::Directory(dir, name)),
        1 => (0..6u8, 0..6u8, prop::collection::vec(any::<u8>(), 0..9)).prop_map(|(dir, name, to)| Step::Link(dir, name, to)),
        3 => (0..6u8, 0..6u8).prop_map(|(dir, name)| Step::Remove(dir, name)),
        1 => Just(Step::Settle),
    ]
}

/// What is at a path: a file's inode, nothing for a directory, a link's text.
#[derive(Clone, Debug, PartialEq)]
enum Thing {
    File(u64),
    Directory,
    Link(Vec<u8>),
}

#[derive(Default)]
struct Plain {
    things: BTreeMap<Vec<u8>, Thing>,
    sizes: BTreeMap<u64, u64>,
}

impl Plain {
    fn remove(&mut self, path: &[u8]) {
        let below = [path, b"/"].concat();
        self.things
            .retain(|other, _| other != path && !other.starts_with(&below));
        self.forget_sizes();
    }
    fn forget_sizes(&mut self) {
        let there: BTreeSet<_> = self
            .things
            .values()
            .filter_map(|thing| {
                if let Thing::File(inode) = thing {
                    Some(*inode)
                } else {
                    None
                }
            })
            .collect();
        self.sizes.retain(|inode, _| there.contains(inode));
    }
    fn put(&mut self, path: &[u8], thing: Thing) {
        if !(thing == Thing::Directory && self.things.get(path) == Some(&thing)) {
            self.remove(path);
        }
        self.things.insert(path.to_vec(), thing);
    }
    fn watched(&self) -> BTreeMap<FileId, u64> {
        let large = self.sizes.iter().filter(|(_, size)| **size >= SMALLEST_WATCHED);
        large
            .map(|(inode, size)| {
                (
                    FileId {
                        device: 1,
                        inode: *inode,
                    },
                    *size,
                )
            })
            .collect()
    }
}

/// The directory that a step means: one of those there are.
fn pick(table: &Table, which: u8) -> (DirNumber, Vec<u8>) {
    let dirs: Vec<_> = table.dirs().collect();
    let dir = dirs[usize::from(which) % dirs.len()];
    (dir, table.path_of_dir(dir).into_vec())
}

fn assert_equal(table: &Table, plain: &Plain) {
    let mut things = BTreeMap::new();
    for dir in table.dirs() {
        let mut seen = BTreeSet::new();
        for node in table.children(dir) {
            assert!(seen.insert(node), "a node twice in its directory");
            assert_eq!(table.child(dir, table.name(node)), Some(node));
            let thing = match table.kind(node) {
                NodeKind::File | NodeKind::Alias => Thing::File(table.as_file(node).unwrap().0.inode),
                NodeKind::Directory => Thing::Directory,
                NodeKind::Link => Thing::Link(table.as_link(node).unwrap().to_vec()),
                NodeKind::Free => panic!("a free node in a directory"),
            };
            things.insert(table.path_of(node).into_vec(), thing);
            let matched = table.matched_by_name(table.name(node)).any(|other| other == node);
            let large = table.as_file(node).is_some_and(|(_, size)| size >= SMALLEST_MATCHED);
            assert_eq!(matched, large || table.kind(node) == NodeKind::Link);
        }
    }
    assert_eq!(things, plain.things);
    let sizes: BTreeMap<_, _> = table.files().map(|(file, size)| (file.inode, size)).collect();
    assert_eq!(sizes, plain.sizes);
    assert_eq!(
        u128::from(table.bytes()),
        sizes
            .values()
            .map(|size| u128::from(*size))
            .sum::<u128>()
            .min(u128::from(u64::MAX))
    );
    for file in table.files().map(|(file, _)| file) {
        assert_eq!(table.as_file(table.file(file).unwrap()).unwrap().0, file);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_table_is_a_tree_of_names_and_the_delta_its_net_change(steps in prop::collection::vec(step(), 1..80)) {
        let mut table = Table::default();
        let (mut plain, mut delta) = (Plain::default(), Delta::recording());
        let mut before = plain.watched();
        table.add_root(0);
        for step in steps.into_iter().chain([Step::Settle]) {
            match step {
                Step::File(dir, name, inode, size) => {
                    let (dir, path) = pick(&table, dir);
                    let file = FileId { device: 1, inode };
                    table.put(dir, &[b'a' + name], Found::File { file, size, stamp: size as u32 }, &mut delta);
                    plain.put(&join(path, name), Thing::File(inode));
                    plain.sizes.insert(inode, size);
                }
                Step::Directory(dir, name) => {
                    let (dir, path) = pick(&table, dir);
                    table.put(dir, &[b'a' + name], Found::Directory, &mut delta);
                    plain.put(&join(path, name), Thing::Directory);
                }
                Step::Link(dir, name, target) => {
                    let (dir, path) = pick(&table, dir);
                    table.put(dir, &[b'a' + name], Found::Link { target: &target }, &mut delta);
                    plain.put(&join(path, name), Thing::Link(target));
                }
                Step::Remove(dir, name) => {
                    let (dir, path) = pick(&table, dir);
                    if let Some(node) = table.child(dir, &[b'a' + name]) {
                        table.remove(node, &mut delta);
                    }
                    plain.remove(&join(path, name));
                }
                Step::Settle => {
                    let net = delta.settle(&table);
                    table.reclaim(&mut delta);
                    let mut told = before.clone();
                    told.retain(|file, _| !net.unwatched.contains(file));
                    told.extend(net.watched.iter().copied());
                    let now = plain.watched();
                    prop_assert!(told.keys().eq(now.keys()), "{net:?} leads from {before:?} not to {now:?}");
                    before = now;
                }
            }
            assert_equal(&table, &plain);
        }
    }
}

fn join(mut path: Vec<u8>, name: u8) -> Vec<u8> {
    if !path.is_empty() {
        path.push(b'/');
    }
    path.push(b'a' + name);
    path
}

#[test]
fn names_that_are_gone_give_their_memory_back() {
    let mut table = Table::default();
    let mut delta = Delta::default();
    let top = table.add_root(0);
    let name = |number: u64| format!("{number:0200}").into_bytes();
    for number in 0..40_000 {
        let file = FileId {
            device: 1,
            inode: number % 100,
        };
        let node = table
            .put(
                top,
                &name(number),
                Found::File {
                    file,
                    size: 1,
                    stamp: 0,
                },
                &mut delta,
            )
            .unwrap();
        if number >= 100 {
            table.remove(node, &mut delta);
        }
        table.reclaim(&mut delta);
    }
    assert!(table.names.len() < 4 << 20, "{} bytes of names", table.names.len());
    assert!(table.nodes.len() < 200);
    assert!((0..100).all(|number| table.child(top, &name(number)).is_some()));
}
