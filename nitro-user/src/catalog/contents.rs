//! The contents of small files that layouts have read: manifests and indexes, each of which many answers rest on.
//!
//! In: a file, its version, its bytes. Out: the bytes again for the same version. A store of a hundred models has a hundred manifests, and any of them may
//! name the blob that is asked about: opening them all for every answer took milliseconds, during which nothing is warmed.

use std::{collections::HashMap, sync::Arc};

use crate::units::FileId;

/// Bytes of all contents; when there are more, all are forgotten and read again.
const MOST_BYTES: usize = 16 << 20;

/// Larger files are read every time.
const LARGEST: usize = 256 << 10;

/// Size in bytes and stamp of a file.
type Version = (u64, u32);

/// What was read.
#[derive(Debug, Default)]
pub(super) struct Contents {
    files: HashMap<FileId, (Version, Arc<[u8]>)>,
    bytes: usize,
}

impl Contents {
    /// The bytes of this version of the file.
    pub fn of(&self, file: FileId, version: Version) -> Option<Arc<[u8]>> {
        let (known, bytes) = self.files.get(&file)?;
        (*known == version).then(|| bytes.clone())
    }

    /// Keeps them.
    pub fn keep(&mut self, file: FileId, version: Version, bytes: &[u8]) {
        if bytes.len() > LARGEST || bytes.len() as u64 != version.0 {
            return;
        }
        if self.bytes + bytes.len() > MOST_BYTES {
            *self = Self::default();
        }
        self.bytes += bytes.len();
        if let Some((_, old)) = self.files.insert(file, (version, bytes.into())) {
            self.bytes -= old.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_version_is_another_content() {
        let file = FileId { device: 1, inode: 2 };
        let mut contents = Contents::default();
        contents.keep(file, (3, 7), b"abc");
        assert_eq!(contents.of(file, (3, 7)).as_deref(), Some(&b"abc"[..]));
        assert_eq!(contents.of(file, (3, 8)), None);
        // It was read while it changed.
        contents.keep(file, (9, 9), b"abcd");
        assert_eq!(contents.of(file, (9, 9)), None);
    }

    #[test]
    fn the_bytes_are_bounded() {
        let mut contents = Contents::default();
        let text = vec![0; LARGEST];
        for inode in 0..200 {
            contents.keep(FileId { device: 1, inode }, (LARGEST as u64, 1), &text);
        }
        let kept: usize = contents.files.values().map(|(_, bytes)| bytes.len()).sum();
        assert_eq!(kept, contents.bytes);
        assert!(kept <= MOST_BYTES);
    }
}
