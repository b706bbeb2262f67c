//! Reading files of /proc, whose length others choose.

use std::{fs::File, io::Read, path::Path};

/// The first `most` bytes of a file; `None` when it cannot be read, as when the process has ended.
pub fn read_at_most(path: impl AsRef<Path>, most: usize) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(path).ok()?;
    file.take(most as u64).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}
