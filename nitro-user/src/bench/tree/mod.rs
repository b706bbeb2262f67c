//! Models on disk as loaders find them: structurally valid, of any size, and the same for the same seed.
//!
//! One on-disk layout per file. The data is pseudo-random and differs from page to page, so that a checksum over one byte of
//! every page tells a page in the wrong place; digests in names are made up, since hashing gigabytes would only cost time.

mod data;
pub mod gguf;
pub mod hugging_face;
pub mod ollama;
pub mod safetensors;
pub mod series;

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

/// Files of one model, in the order in which its loader reads them.
#[derive(Clone, Debug)]
pub struct ModelTree {
    /// The directory to watch.
    pub root: PathBuf,
    /// What a loader opens, in its order: paths as the loader sees them, symlinks and all.
    pub files: Vec<PathBuf>,
    /// Bytes of all files together.
    pub bytes: u64,
}

impl ModelTree {
    fn of(root: &Path, files: Vec<PathBuf>) -> Result<Self> {
        let sizes = files.iter().map(|file| {
            Ok(fs::metadata(file)
                .with_context(|| format!("size of {}", file.display()))?
                .len())
        });
        let bytes = sizes.sum::<Result<u64>>()?;
        Ok(Self {
            root: root.to_owned(),
            files,
            bytes,
        })
    }

    /// The share of its pages that are in the page cache now, 0–1.
    ///
    /// # Errors
    /// When a file cannot be opened or asked about.
    pub fn resident(&self) -> Result<f64> {
        resident(&self.files)
    }
}

/// The share of the files' pages that are in the page cache now, 0–1.
///
/// # Errors
/// When a file cannot be opened or asked about.
pub fn resident(files: &[PathBuf]) -> Result<f64> {
    let (mut resident, mut all) = (0, 0);
    for path in files {
        let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
        let (here, pages) =
            crate::sys::measure::resident_pages(&file).with_context(|| format!("residency of {}", path.display()))?;
        resident += here;
        all += pages;
    }
    Ok(if all == 0 { 0.0 } else { resident as f64 / all as f64 })
}

/// In a seed: headers as ever, and behind them holes, which read as zeroes and take no room.
pub const HOLLOW: u64 = 1 << 63;

/// A seed for one of several files, so that they differ.
fn sub_seed(seed: u64, index: usize) -> u64 {
    // Odd constant: distinct indices give distinct seeds.
    let sub = seed.wrapping_add((index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    (sub & !HOLLOW) | (seed & HOLLOW)
}

/// `length` hex digits that look like a digest.
fn hex_digits(seed: u64, length: usize) -> String {
    let mut random = fastrand::Rng::with_seed(seed);
    (0..length).map(|_| random.digit(16)).collect()
}

fn create_parent(path: &Path) -> Result<()> {
    let parent = path
        .parent()
        .with_context(|| format!("{} has no directory", path.display()))?;
    fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))
}

fn write_small(path: &Path, text: &str) -> Result<()> {
    create_parent(path)?;
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::scratch::ScratchDir;

    fn read_all(tree: &ModelTree) -> Vec<Vec<u8>> {
        tree.files.iter().map(|file| fs::read(file).unwrap()).collect()
    }

    #[test]
    fn the_same_seed_makes_the_same_model() {
        let dirs: Vec<_> = (0..3)
            .map(|_| ScratchDir::new(&std::env::temp_dir()).unwrap())
            .collect();
        let make = |dir: usize, seed| gguf::single(dirs[dir].path(), "m", seed, 3 << 20).unwrap();
        let (first, again, other) = (make(0, 1), make(1, 1), make(2, 2));
        assert_eq!(read_all(&first), read_all(&again));
        assert_ne!(read_all(&first), read_all(&other));
    }

    #[test]
    fn a_hollow_model_has_its_headers_and_takes_no_room() {
        let dir = ScratchDir::new(&std::env::temp_dir()).unwrap();
        let tree = hugging_face::snapshot(dir.path(), "org", "name", HOLLOW | 1, 2, 32 << 20).unwrap();
        let full = hugging_face::snapshot(&dir.path().join("full"), "org", "name", 1, 2, 32 << 20).unwrap();
        assert_eq!(tree.bytes, full.bytes);
        let room = |tree: &ModelTree| {
            let blocks = |file: &PathBuf| std::os::unix::fs::MetadataExt::blocks(&fs::metadata(file).unwrap()) * 512;
            tree.files.iter().map(blocks).sum::<u64>()
        };
        assert!(room(&tree) < 1 << 20 && room(&full) >= 32 << 20);
        let header = |tree: &ModelTree| fs::read(tree.files.last().unwrap()).unwrap()[..512].to_vec();
        assert_eq!(header(&tree), header(&full));
    }

    #[test]
    fn a_tree_has_about_the_size_that_was_asked_for() {
        let dir = ScratchDir::new(&std::env::temp_dir()).unwrap();
        let wanted = 24u64 << 20;
        for tree in [
            gguf::single(&dir.path().join("a"), "m", 1, wanted).unwrap(),
            gguf::splits(&dir.path().join("b"), "m", 1, 3, wanted).unwrap(),
            ollama::model(&dir.path().join("c"), "llama", "8b", 1, wanted).unwrap(),
            hugging_face::snapshot(&dir.path().join("d"), "org", "name", 1, 4, wanted).unwrap(),
            series::numbered(&dir.path().join("e"), "part", 1, 5, wanted).unwrap(),
        ] {
            assert!(
                tree.bytes.abs_diff(wanted) < wanted / 50,
                "{:?} has {} bytes",
                tree.root,
                tree.bytes
            );
        }
    }
}
