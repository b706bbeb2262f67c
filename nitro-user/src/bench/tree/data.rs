//! Fills files with data that is cheap to make and different in every page.

use std::{fs::File, io::Write, path::Path};

use anyhow::{Context, Result};
use nix::fcntl::{FallocateFlags, fallocate};

use super::HOLLOW;
use crate::sys::measure::PAGE;

/// Bytes made once and written again and again with other page stamps: making them is slower than a disk.
const BLOCK: usize = 4 << 20;

/// A file being filled.
pub struct Filler {
    file: File,
    block: Vec<u8>,
    seed: u64,
    written: u64,
}

impl Filler {
    /// Creates the file and allocates `bytes` for it, so that it lies on the disk in one piece.
    pub fn create(path: &Path, seed: u64, bytes: u64) -> Result<Self> {
        super::create_parent(path)?;
        let file = File::create(path).with_context(|| format!("create {}", path.display()))?;
        if seed & HOLLOW == 0 {
            // Only a matter of layout; a file system without it is filled just as well.
            let _ = fallocate(&file, FallocateFlags::FALLOC_FL_KEEP_SIZE, 0, bytes as i64);
        }
        let mut block = vec![0; BLOCK.min(bytes.max(1) as usize)];
        fastrand::Rng::with_seed(seed).fill(&mut block);
        Ok(Self {
            file,
            block,
            seed,
            written: 0,
        })
    }

    /// Appends the given bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).context("write a header")?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Appends pseudo-random data up to `end`, or a hole.
    pub fn fill_to(&mut self, end: u64) -> Result<()> {
        if self.seed & HOLLOW != 0 {
            self.file.set_len(end).context("size a model file")?;
            self.written = end;
        }
        while self.written < end {
            let mut random = fastrand::Rng::with_seed(self.seed ^ self.written);
            let length = (self.block.len() as u64).min(end - self.written) as usize;
            // The first byte of each page of the *file* is new: it is what the readers' checksum sees.
            let first = (self.written.next_multiple_of(PAGE) - self.written) as usize;
            for stamp in self.block[..length].iter_mut().skip(first).step_by(PAGE as usize) {
                *stamp = random.u8(..);
            }
            self.file
                .write_all(&self.block[..length])
                .context("fill a model file")?;
            self.written += length as u64;
        }
        Ok(())
    }
}
