//! Readers that map their file.

use std::{fs::File, ops::Range, path::PathBuf};

use anyhow::{Context, Result};
use memmap2::{Advice, Mmap};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use super::{Cap, Progress};
use crate::{
    bench::tree::gguf,
    sys::measure::{PAGE, map_file},
};

/// Pages between two looks at the clock.
const STRIDE: usize = 256;

/// What the reader tells the kernel beforehand.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Hints {
    None,
    Populate,
}

pub fn in_order(paths: &[PathBuf], hints: Hints, cap: &Cap, progress: &mut Progress) -> Result<()> {
    // As llama.cpp does: all files mapped first, one after the other, then used.
    let mut maps = Vec::new();
    for path in paths {
        let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
        if hints == Hints::Populate {
            posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_SEQUENTIAL).context("FADV_SEQUENTIAL")?;
        }
        let map = map_file(&file, hints == Hints::Populate).with_context(|| format!("map {}", path.display()))?;
        if hints == Hints::Populate {
            map.advise(Advice::WillNeed).context("MADV_WILLNEED")?;
        }
        maps.push(map);
    }
    for map in &maps {
        touch(map, 0..map.len() as u64, cap, progress);
    }
    Ok(())
}

pub fn in_tensor_order(paths: &[PathBuf], seed: u64, cap: &Cap, progress: &mut Progress) -> Result<()> {
    for path in paths {
        let mut file = File::open(path).with_context(|| format!("open {}", path.display()))?;
        let map = map_file(&file, false).with_context(|| format!("map {}", path.display()))?;
        map.advise(Advice::Random).context("MADV_RANDOM")?;
        let mut tensors = gguf::read_tensors(&mut file).with_context(|| format!("tensors of {}", path.display()))?;
        let header_end = tensors.first().map_or(map.len() as u64, |tensor| tensor.offset);
        fastrand::Rng::with_seed(seed).shuffle(&mut tensors);
        progress
            .first_tensors
            .extend(tensors.iter().take(4).map(|tensor| tensor.name.clone()));
        touch(&map, 0..header_end, cap, progress);
        for tensor in &tensors {
            touch(&map, tensor.offset..tensor.offset + tensor.bytes, cap, progress);
        }
    }
    Ok(())
}

/// Touches the pages that *begin* in the range, so that ranges that share a page touch it once.
fn touch(map: &Mmap, range: Range<u64>, cap: &Cap, progress: &mut Progress) {
    let first = range.start.next_multiple_of(PAGE);
    let mut pages = (first..range.end).step_by(PAGE as usize).peekable();
    while pages.peek().is_some() && !progress.capped {
        for offset in pages.by_ref().take(STRIDE) {
            progress.checksum = progress.checksum.wrapping_add(u64::from(map[offset as usize]));
            progress.bytes += PAGE.min(map.len() as u64 - offset);
        }
        progress.capped = cap.reached();
    }
}
