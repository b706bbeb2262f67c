//! What simple prefetchers would bring in, to compare predictors with. Pure functions of names and sizes: they learn nothing.

use std::{cmp::Ordering, path::Path};

use crate::units::ByteRange;

/// Files that the first of them takes up.
const SIBLINGS: usize = 5;

/// A prefetcher that knows names only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Baseline {
    /// The next five files of the directory, as `ls` sorts them in the C locale.
    Siblings,
    /// The next file of the directory, where numbers in names count as numbers: the next part, or the next model.
    Sequence,
    /// The file that is read, from its first byte to its last, and nothing else.
    WholeFile,
}

/// A file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named<'a> {
    /// Where it is.
    pub path: &'a Path,
    /// Its bytes.
    pub size: u64,
}

impl Baseline {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Siblings, Self::Sequence, Self::WholeFile];

    /// What it brings in when the file with index `read` is begun: indexes, and ranges of them, the first one first.
    pub fn wanted(self, files: &[Named<'_>], read: usize) -> Vec<(usize, ByteRange)> {
        let Some(begun) = files.get(read) else {
            return Vec::new();
        };
        let order = match self {
            Self::WholeFile => return vec![(read, ByteRange::new(0, begun.size))],
            Self::Siblings => plain,
            Self::Sequence => natural,
        };
        let count = if self == Self::Siblings { SIBLINGS } else { 1 };
        let is_next = |file: &Named<'_>| {
            file.path.parent() == begun.path.parent() && order(file.path, begun.path) == Ordering::Greater
        };
        let mut next: Vec<usize> = (0..files.len()).filter(|index| is_next(&files[*index])).collect();
        next.sort_by(|one, other| order(files[*one].path, files[*other].path));
        next.truncate(count);
        next.into_iter()
            .map(|index| (index, ByteRange::new(0, files[index].size)))
            .collect()
    }
}

fn plain(one: &Path, other: &Path) -> Ordering {
    name(one).cmp(name(other))
}

/// Digits in a row are a number: the longer one is larger, once zeros before it are taken away.
fn natural(one: &Path, other: &Path) -> Ordering {
    let (mut one_rest, mut other_rest) = (name(one), name(other));
    loop {
        let (one_number, other_number) = (number(one_rest), number(other_rest));
        let order = if one_number.is_empty() || other_number.is_empty() {
            match (one_rest.first(), other_rest.first()) {
                // What differs in its zeros alone.
                (None, None) => return plain(one, other),
                (first, second) => first.cmp(&second),
            }
        } else {
            let digits =
                |number: &[u8]| -> Vec<u8> { number.iter().copied().skip_while(|digit| *digit == b'0').collect() };
            let (one, other) = (digits(one_number), digits(other_number));
            one.len().cmp(&other.len()).then_with(|| one.cmp(&other))
        };
        if order != Ordering::Equal {
            return order;
        }
        one_rest = &one_rest[one_number.len().max(1)..];
        other_rest = &other_rest[other_number.len().max(1)..];
    }
}

fn name(path: &Path) -> &[u8] {
    path.file_name().map_or(&[], |name| name.as_encoded_bytes())
}

/// The digits that `text` begins with.
fn number(text: &[u8]) -> &[u8] {
    let end = text.iter().position(|byte| !byte.is_ascii_digit());
    &text[..end.unwrap_or(text.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 9] = [
        "a/m-2", "a/m-1", "a/m-10", "a/m-9", "b/m-3", "a/m-02", "a/n", "a/m-11", "a/m",
    ];

    fn wanted(baseline: Baseline, read: &str) -> Vec<&'static str> {
        let files: Vec<Named<'_>> = (1..)
            .zip(NAMES)
            .map(|(size, name)| Named {
                path: Path::new(name),
                size,
            })
            .collect();
        let read = NAMES.iter().position(|name| *name == read).unwrap();
        let found = baseline.wanted(&files, read);
        for (index, range) in &found {
            assert_eq!(*range, ByteRange::new(0, files[*index].size));
        }
        found.into_iter().map(|(index, _)| NAMES[index]).collect()
    }

    #[test]
    fn five_siblings_come_as_ls_sorts_them() {
        assert_eq!(
            wanted(Baseline::Siblings, "a/m-1"),
            ["a/m-10", "a/m-11", "a/m-2", "a/m-9", "a/n"]
        );
        assert_eq!(wanted(Baseline::Siblings, "a/m").len(), 5);
        assert!(wanted(Baseline::Siblings, "b/m-3").is_empty());
    }

    #[test]
    fn numbers_are_in_sequence() {
        let mut name = "a/m";
        let mut order = vec![name];
        while let Some(next) = wanted(Baseline::Sequence, name).first().copied() {
            order.push(next);
            name = next;
        }
        assert_eq!(
            order,
            ["a/m", "a/m-1", "a/m-02", "a/m-2", "a/m-9", "a/m-10", "a/m-11", "a/n"]
        );
    }

    #[test]
    fn a_whole_file_is_that_file() {
        assert_eq!(wanted(Baseline::WholeFile, "b/m-3"), ["b/m-3"]);
        assert!(Baseline::ALL.iter().all(|baseline| baseline.wanted(&[], 3).is_empty()));
    }
}
