//! What kind of reader a load has, where that says more than how it reads.

use std::{collections::HashMap, time::Duration};

use serde::{Deserialize, Serialize};

use crate::units::Moment;

/// A kind of reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pattern {
    /// It reads everything once: backup, checksum, antivirus. That it reads one model says nothing of the next one, nor that anybody wants it again.
    Scanner,
    /// It moves on at many places at once.
    Interleaved,
    /// It brings in itself, far ahead, what it is going to read.
    Prefetching,
}

impl Pattern {
    /// For people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Scanner => "scanner",
            Self::Interleaved => "many cursors",
            Self::Prefetching => "prefetches by itself",
        }
    }
}

/// Places from which a reader is called interleaved. Two or three are tensors and their scales, or a file and its index.
pub const MANY_PLACES: usize = 4;

/// Unrelated models that a process has read from their first byte to their last, in order, before it is taken for a scanner.
const PASSES: u32 = 2;

/// Processes whose passes are remembered.
const MOST_PROCESSES: usize = 4096;

/// Names of scanners, as the kernel keeps them: 15 bytes. What people warm the cache with (`cat`, `dd`, `cp`) is not among them.
const SCANNERS: [&str; 54] = [
    "7z",
    "7za",
    "aide",
    "b2sum",
    "b3sum",
    "baloo_file_extr",
    "borg",
    "bsdtar",
    "cksum",
    "clamd",
    "clamdscan",
    "clamscan",
    "cpio",
    "czkawka_cli",
    "du",
    "duperemove",
    "duplicity",
    "fdupes",
    "file",
    "find",
    "grep",
    "hashdeep",
    "jdupes",
    "kopia",
    "localsearch-3",
    "md5sum",
    "mdsd",
    "plocate",
    "rclone",
    "rdfind",
    "restic",
    "rg",
    "rhash",
    "rmlint",
    "rsync",
    "sha1sum",
    "sha224sum",
    "sha256sum",
    "sha384sum",
    "sha512sum",
    "shasum",
    "star",
    "strings",
    "sum",
    "tar",
    "tracker-extract",
    "tracker-miner-f",
    "tripwire",
    "updatedb",
    "wdavdaemon",
    "xxh128sum",
    "xxh64sum",
    "xxhsum",
    "zip",
];

/// Whether programs of this name are scanners.
pub fn is_scanner(program: &str) -> bool {
    SCANNERS.binary_search(&program).is_ok()
}

/// A scanner goes on at once: what a process reads so long after its last pass is no part of it. A server that changes its models reads each from end to end, too.
const AT_ONCE: Duration = Duration::from_secs(20);

/// How many models each process has read in one pass, and when it has ended the last.
#[derive(Debug, Default)]
pub struct Passes(HashMap<u32, (u32, Moment)>);

impl Passes {
    /// It has read another.
    pub fn note(&mut self, now: Moment, process: u32) {
        if self.0.len() >= MOST_PROCESSES && !self.0.contains_key(&process) {
            self.0.clear();
        }
        let (passes, last) = self.0.entry(process).or_default();
        let before = if now.since(*last) < AT_ONCE { *passes } else { 0 };
        (*passes, *last) = (before.saturating_add(1), now);
    }

    /// It has ended.
    pub fn forget(&mut self, process: u32) {
        self.0.remove(&process);
    }

    /// Whether the next model that it reads is read by a scanner.
    pub fn are_many(&self, now: Moment, process: u32) -> bool {
        let found = self.0.get(&process);
        found.is_some_and(|(passes, last)| *passes >= PASSES && now.since(*last) < AT_ONCE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_in_order_and_no_longer_than_the_kernel_keeps() {
        assert!(SCANNERS.is_sorted());
        assert!(SCANNERS.iter().all(|name| name.len() <= 15));
        assert!(is_scanner("rsync") && is_scanner("sha256sum") && !is_scanner("cat"));
    }

    #[test]
    fn the_third_model_in_a_row_is_a_scanners() {
        let second = |second: u64| Moment(second * 1_000_000_000);
        let mut passes = Passes::default();
        assert!(!passes.are_many(second(1), 7));
        passes.note(second(1), 7);
        assert!(!passes.are_many(second(2), 7));
        passes.note(second(5), 7);
        assert!(passes.are_many(second(6), 7));
        assert!(!passes.are_many(second(60), 7), "it has another reason");
        passes.note(second(60), 7);
        assert!(!passes.are_many(second(61), 7));
        passes.note(second(61), 7);
        passes.forget(7);
        assert!(!passes.are_many(second(62), 7));
    }
}
