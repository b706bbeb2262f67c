//! Directories below the roots that not even root may look into: on FUSE mounts without `allow_other`, on network file systems that take root for nobody.
//!
//! In: refused listings, and the text of the mount table. Out: [`Refusals`], so that their file systems are watched as a whole, and what is read on them is described through
//! whoever reads it (see `lent`). Only file systems of servers are: on this machine nothing is refused to root but by a security module, which means it.
//!
//! They are tried again when the mount table changes.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{Catalog, delta::Delta, exclude::Exclude, stores::Store, table::DirNumber};
use crate::sys::{
    mounts::{self, Mounts},
    top::Top,
};

/// Refused directories that are remembered.
const MOST: usize = 1024;

/// One such directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The device of its file system.
    pub device: u32,
    /// The root that it is, or is below.
    pub root: Top,
    /// Its path there; empty for the root itself.
    pub below: PathBuf,
}

impl Refusal {
    /// Its absolute path.
    pub fn path(&self) -> PathBuf {
        // Joining nothing would add a slash.
        match self.below.as_os_str().is_empty() {
            true => self.root.to_path_buf(),
            false => self.root.join(&self.below),
        }
    }
}

/// All that one part of the catalog was refused.
#[derive(Clone, Debug, Default)]
pub struct Refusals {
    /// Which part.
    pub part: usize,
    /// The directories.
    pub places: Vec<Refusal>,
    /// What of them is left out.
    pub exclude: Exclude,
}

/// Whether an error is one that rights would cure.
pub(super) fn is_refusal(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}

impl Catalog {
    /// Notes that the directory `below` the root at `root` may not be looked into. False where that is not for this module.
    pub(super) fn refuse(&mut self, root: &Top, below: &Path) -> bool {
        if root.process().is_some() || self.refused.len() >= MOST {
            return false;
        }
        let mut refusal = Refusal {
            device: 0,
            root: root.clone(),
            below: below.to_owned(),
        };
        let Some(device) = device_at(
            &Mounts::read(Path::new(mounts::OWN)).unwrap_or_default(),
            &refusal.path(),
        ) else {
            return false;
        };
        refusal.device = device;
        if !self.refused.contains(&refusal) {
            let path = refusal.path();
            self.refused.retain(|other| other.path() != path);
            self.refused.push(refusal);
            self.refusals_changed = true;
            self.warnings.once(&format!("refused {path:?}"), || {
                format!("root is refused at {path:?}: its files are known, and warmed, once somebody reads them and keeps them open")
            });
        }
        true
    }

    /// The same of a directory of the table, of which nothing is known from now on.
    pub(super) fn refuse_dir(&mut self, dir: DirNumber, delta: &mut Delta) -> bool {
        let Some(job) = self.job(dir) else { return false };
        if !self.refuse(&job.root, &job.below) {
            return false;
        }
        self.table.empty(dir, delta);
        self.table.set_unknown(dir, delta);
        true
    }

    /// The directory at this absolute path may be looked into, or there is none.
    pub(super) fn admit(&mut self, path: &Path) {
        if !self.refused.is_empty() {
            self.keep_refused(|refusal| refusal.path() != path);
        }
    }

    /// The mount table is another one: what was refused on a file system that has gone is forgotten.
    pub(super) fn recheck_refused(&mut self) {
        if !self.refused.is_empty() {
            let mounts = Mounts::read(Path::new(mounts::OWN)).unwrap_or_default();
            self.keep_refused(|refusal| device_at(&mounts, &refusal.path()) == Some(refusal.device));
        }
    }

    /// Nothing at or below this path is watched any more.
    pub(super) fn unwatch_refused(&mut self, path: &Path) {
        if !self.refused.is_empty() {
            self.keep_refused(|refusal| !refusal.path().starts_with(path));
            // Of a directory that stays, a part may be left out from now on.
            self.refusals_changed = true;
        }
    }

    fn keep_refused(&mut self, keep: impl Fn(&Refusal) -> bool) {
        let before = self.refused.len();
        self.refused.retain(keep);
        self.refusals_changed |= self.refused.len() != before;
    }

    /// Whether the root at this path is refused.
    pub(super) fn is_refused(&self, path: &Path) -> bool {
        self.refused.iter().any(|refusal| refusal.path() == path)
    }

    /// What is refused, if that is not what was told last.
    pub(super) fn take_refusals(&mut self) -> Option<Refusals> {
        std::mem::take(&mut self.refusals_changed).then(|| Refusals {
            part: self.part,
            places: self.refused.clone(),
            exclude: self.exclude.clone(),
        })
    }
}

/// The device of the server's file system that holds `path`; `None` for one of this machine.
fn device_at(mounts: &Mounts, path: &Path) -> Option<u32> {
    let mount = mounts.at(path)?;
    (Store::of(&mount.kind, "") != Store::Local).then_some(mount.device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_file_systems_of_servers_are_watched_as_a_whole() {
        let mounts = Mounts::parse(
            b"22 1 254:0 / / rw - ext4 /dev/vda rw\n30 22 0:44 / /home/u/store rw - fuse.rclone r: rw\n\
              31 22 8:1 / /home/u/ntfs rw - fuseblk /dev/sda1 rw\n",
        );
        let device = |path: &str| device_at(&mounts, Path::new(path));
        assert_eq!(device("/home/u/store/models"), Some(44));
        assert_eq!(device("/home/u/ntfs/models"), None);
        assert_eq!(device("/home/u"), None);
    }
}
