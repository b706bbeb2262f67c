//! Any series of numbered files in one directory: `name-00001.ext`, `frame_0001.png`, `pytorch_model-00001-of-00002.bin`.
//!
//! In: names. Out: the files in the order of their numbers; gaps are allowed. It does not look into files.

use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    path::Path,
};

use super::{Group, Layout, MOST_PARTS, PARTS_BEFORE, View, group, split};
use crate::catalog::model::LayoutKind;

/// Digits that make a number a running one by themselves. `model-v1.bin` and `model-v2.bin` are two models; three of
/// them, or `-001`, are a series.
const PADDED: usize = 3;
/// Members from which unpadded numbers count as running.
const ENOUGH: usize = 3;

/// The layout.
#[derive(Debug)]
pub struct Numbered;

impl Layout for Numbered {
    fn kind(&self) -> LayoutKind {
        LayoutKind::Numbered
    }

    fn group_of(&self, view: &dyn View, named: &Path) -> Option<Group> {
        let name = named.file_name()?;
        if let Some(split) = split::parse(name.as_encoded_bytes()) {
            let title = String::from_utf8_lossy(split.prefix).into_owned();
            return group(view, named, title, split.all(named), &|_| 0).filter(|group| group.members.len() > 1);
        }
        let own = parse(name.as_encoded_bytes())?;
        let directory = named.parent()?;
        let mut around = Around::new((own.number, name.to_owned()));
        let mut count = 0usize;
        view.list(directory, &mut |name, _| {
            if let Some(other) = parse(name.as_encoded_bytes())
                && (other.prefix, other.suffix) == (own.prefix, own.suffix)
            {
                count += 1;
                around.add((other.number, name.to_owned()));
            }
            true
        });
        if count < 2 || (count < ENOUGH && own.width < PADDED) {
            return None;
        }
        let title = String::from_utf8_lossy(own.prefix)
            .trim_end_matches(['-', '_', '.'])
            .to_owned();
        let paths = around.in_order().map(|(_, name)| directory.join(name));
        group(view, named, title, paths, &|_| 0).filter(|group| group.members.len() > 1)
    }
}

/// A name with a number at the end of its stem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name<'a> {
    /// All before the number.
    pub prefix: &'a [u8],
    /// The number.
    pub number: u64,
    /// Its digits.
    pub width: usize,
    /// The extension with its dot; empty when there is none.
    pub suffix: &'a [u8],
}

/// Takes a name apart; `None` when its stem does not end in a number of at most 18 digits.
pub fn parse(name: &[u8]) -> Option<Name<'_>> {
    let dot = name.iter().rposition(|byte| *byte == b'.').filter(|at| *at > 0);
    let (stem, suffix) = name.split_at(dot.unwrap_or(name.len()));
    let start = stem
        .iter()
        .rposition(|byte| !byte.is_ascii_digit())
        .map_or(0, |at| at + 1);
    let digits = &stem[start..];
    if digits.is_empty() || digits.len() > 18 {
        return None;
    }
    let number = digits
        .iter()
        .fold(0, |number, digit| number * 10 + u64::from(digit - b'0'));
    Some(Name {
        prefix: &stem[..start],
        number,
        width: digits.len(),
        suffix,
    })
}

/// Names in order around one of them: a few before it, many after; bounded however many there are.
#[derive(Debug)]
pub(super) struct Around<K> {
    own: K,
    before: BTreeSet<K>,
    after: BTreeSet<K>,
}

impl<K: Ord> Around<K> {
    pub fn new(own: K) -> Self {
        Self {
            own,
            before: BTreeSet::new(),
            after: BTreeSet::new(),
        }
    }

    pub fn add(&mut self, key: K) {
        if key < self.own {
            self.before.insert(key);
            if self.before.len() > PARTS_BEFORE {
                self.before.pop_first();
            }
        } else if key > self.own {
            self.after.insert(key);
            if self.after.len() >= MOST_PARTS - PARTS_BEFORE {
                self.after.pop_last();
            }
        }
    }

    pub fn in_order(self) -> impl Iterator<Item = K> {
        self.before.into_iter().chain([self.own]).chain(self.after)
    }
}

/// A key that sorts names as people do: numbers by their value, so that `part10` comes after `part9`.
pub fn natural_key(name: &OsStr) -> Vec<(u64, OsString)> {
    let mut key = Vec::new();
    let mut rest = name.as_encoded_bytes();
    while !rest.is_empty() {
        let text = rest.iter().position(u8::is_ascii_digit).unwrap_or(rest.len());
        let (text, after) = rest.split_at(text);
        // Nineteen digits and more are taken in pieces: still an order, and no overflow.
        let digits = after
            .iter()
            .take(18)
            .position(|byte| !byte.is_ascii_digit())
            .unwrap_or(after.len().min(18));
        let (digits, after) = after.split_at(digits);
        let number = digits
            .iter()
            .fold(0, |number, digit| number * 10 + u64::from(digit - b'0'));
        let text: OsString = std::os::unix::ffi::OsStringExt::from_vec(text.to_vec());
        match key.last_mut() {
            None => key.extend([(0, text), (number, OsString::new())]),
            Some(last) => {
                last.1 = text;
                key.push((number, OsString::new()));
            }
        }
        rest = after;
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::layout::MemoryView;

    fn grouped(names: &[&str], asked: &str) -> Option<Vec<String>> {
        let mut view = MemoryView::default();
        for name in names {
            view.add_file(format!("/d/{name}"), 2 << 20, []);
        }
        let group = Numbered.group_of(&view, &Path::new("/d").join(asked))?;
        Some(
            group
                .members
                .iter()
                .map(|member| super::super::printable(&member.seen.path))
                .collect(),
        )
    }

    #[test]
    fn numbers_count_by_value_and_gaps_are_allowed() {
        let names = ["f10.png", "f9.png", "f1.png", "f200.png", "g2.png", "f3.jpg", "f.png"];
        assert_eq!(
            grouped(&names, "f9.png").unwrap(),
            ["f1.png", "f9.png", "f10.png", "f200.png"]
        );
    }

    #[test]
    fn two_versions_are_not_a_series() {
        assert_eq!(grouped(&["model-v1.bin", "model-v2.bin"], "model-v1.bin"), None);
        assert!(grouped(&["part-001.bin", "part-002.bin"], "part-001.bin").is_some());
        assert_eq!(
            grouped(&["llama-7b.bin", "llama-13b.bin", "llama-70b.bin"], "llama-7b.bin"),
            None
        );
    }

    #[test]
    fn parts_of_a_known_total_are_found_by_their_names() {
        let names = [
            "pytorch_model-00001-of-00002.bin",
            "pytorch_model-00002-of-00002.bin",
            "pytorch_model-00001-of-00003.bin",
        ];
        assert_eq!(grouped(&names, names[1]).unwrap(), names[..2]);
    }

    #[test]
    fn of_a_long_series_a_group_holds_the_part_around_the_file() {
        let names: Vec<_> = (0..10_000).map(|number| format!("{number:05}.bin")).collect();
        let mut view = MemoryView::default();
        for name in &names {
            view.add_file(format!("/d/{name}"), 2 << 20, []);
        }
        let group = Numbered.group_of(&view, Path::new("/d/05000.bin")).unwrap();
        assert_eq!(
            group.members[0].seen.path,
            Path::new("/d").join(&names[5000 - PARTS_BEFORE])
        );
        assert_eq!(group.members.len(), MOST_PARTS);
    }

    #[test]
    fn names_sort_as_people_do() {
        let mut names = [
            "a10",
            "a9",
            "a",
            "b1",
            "10",
            "9",
            "a9b2",
            "a9b10",
            "99999999999999999999999999999999",
        ]
        .map(OsStr::new);
        names.sort_by_key(|name| natural_key(name));
        assert_eq!(
            names,
            [
                "9",
                "10",
                "99999999999999999999999999999999",
                "a",
                "a9",
                "a9b2",
                "a9b10",
                "a10",
                "b1"
            ]
        );
    }
}
