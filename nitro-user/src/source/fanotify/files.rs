//! The watched files, by the names that they have in /proc and in the catalog.

use std::collections::HashMap;

use crate::units::FileId;

/// All that are watched.
#[derive(Debug, Default)]
pub struct Files {
    /// By device, as `stat` tells it, and inode.
    by_status: HashMap<(u64, u64), FileId>,
    known: HashMap<FileId, (u64, u64)>,
    /// How many have this inode number, on whichever device.
    inodes: HashMap<u64, u32>,
}

impl Files {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether this is one of them.
    pub fn contains(&self, file: FileId) -> bool {
        self.known.contains_key(&file)
    }

    /// Whether one of them has this inode number.
    pub fn may_be(&self, inode: u64) -> bool {
        self.inodes.contains_key(&inode)
    }

    /// The one with this device, as `stat` tells it, and inode.
    pub fn name(&self, device: u64, inode: u64) -> Option<FileId> {
        self.by_status.get(&(device, inode)).copied()
    }

    /// Adds one, with its device, as `stat` tells it, and inode.
    pub fn insert(&mut self, file: FileId, status: (u64, u64)) {
        self.remove(file);
        self.by_status.insert(status, file);
        self.known.insert(file, status);
        *self.inodes.entry(status.1).or_default() += 1;
    }

    /// Removes one.
    pub fn remove(&mut self, file: FileId) {
        let Some(status) = self.known.remove(&file) else { return };
        self.by_status.remove(&status);
        if let Some(count) = self.inodes.get_mut(&status.1) {
            *count -= 1;
            if *count == 0 {
                self.inodes.remove(&status.1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_files_may_share_an_inode_number() {
        let file = |device| FileId { device, inode: 7 };
        let mut files = Files::default();
        files.insert(file(1), (10, 7));
        files.insert(file(2), (20, 7));
        assert_eq!((files.name(10, 7), files.name(20, 7)), (Some(file(1)), Some(file(2))));
        files.remove(file(1));
        assert!(files.may_be(7) && files.contains(file(2)) && !files.contains(file(1)));
        files.insert(file(2), (30, 7));
        files.remove(file(2));
        assert!(!files.may_be(7));
        assert_eq!((files.len(), files.name(30, 7)), (0, None));
    }
}
