//! Files that belong together by their numbers only, and many that do not belong together at all.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::{ModelTree, data::Filler, sub_seed};

/// `PREFIX-000.bin` and so on, `count` files of about `bytes` together.
///
/// # Errors
/// When a file cannot be written.
pub fn numbered(root: &Path, prefix: &str, seed: u64, count: usize, bytes: u64) -> Result<ModelTree> {
    let files = (0..count)
        .map(|index| root.join(format!("{prefix}-{index:03}.bin")))
        .collect();
    fill(root, files, seed, bytes / count.max(1) as u64)
}

/// `count` files of `each` bytes with unrelated names, in directories of at most a thousand.
///
/// # Errors
/// When a file cannot be written.
pub fn unrelated(root: &Path, seed: u64, count: usize, each: u64) -> Result<ModelTree> {
    let name = |index: usize| format!("{}.dat", super::hex_digits(sub_seed(seed, index), 16));
    let files = (0..count)
        .map(|index| root.join(format!("{:02}", index / 1000)).join(name(index)))
        .collect();
    fill(root, files, seed, each)
}

/// Files of `each` bytes with these names below `root`.
///
/// # Errors
/// When a file cannot be written.
pub fn named(root: &Path, names: &[&str], seed: u64, each: u64) -> Result<ModelTree> {
    fill(root, names.iter().map(|name| root.join(name)).collect(), seed, each)
}

fn fill(root: &Path, files: Vec<PathBuf>, seed: u64, each: u64) -> Result<ModelTree> {
    for (index, path) in files.iter().enumerate() {
        Filler::create(path, sub_seed(seed, index), each)?.fill_to(each)?;
    }
    ModelTree::of(root, files)
}
