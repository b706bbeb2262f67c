//! Which file it is: the identity that the kernel's page cache knows, and the version of its content.
//!
//! In: the answers of `statx`, and the mount table. Out: [`FileId`] and [`FileVersion`]. The eBPF programs see
//! `super_block.s_dev`; `stat` shows something else on btrfs. `/proc/self/mountinfo` prints `s_dev`, and `statx` names
//! the mount, so the two together give it. On overlayfs the page cache belongs to the file of a layer, which is looked
//! for in the layers' directories (see [`crate::sys::overlay`]). btrfs numbers inodes per subvolume, so two subvolumes can share an identity; the kernel side
//! cannot tell them apart either.

use std::{
    collections::HashMap,
    ffi::CString,
    io,
    os::{fd::AsFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use super::{model::Place, stores::Store};
use crate::{
    sys::{
        mounts::{self, Mounts},
        open::open_directory_beneath,
        overlay::{Layers, Overlay},
        stat::{self, Status, kernel_device},
        top::Top,
    },
    units::{FileId, FileVersion},
};

/// Entries after which the table is thrown away and learned anew: mounts that come and go must not add up.
const MOST_KNOWN: usize = 65_536;

/// What is known of mounts, by their number and `st_dev`.
type OfMounts<T> = RwLock<HashMap<(u64, u32), T>>;

/// The devices behind the mounts; shared by all threads.
#[derive(Debug)]
pub struct Devices {
    mountinfo: PathBuf,
    known: OfMounts<u32>,
    stores: RwLock<HashMap<u32, Store>>,
    /// For each mount, the overlay that it is of.
    overlays: OfMounts<Option<Arc<Overlay>>>,
    /// Directories below which reading is wanted though it costs money.
    fetch: Vec<PathBuf>,
}

impl Default for Devices {
    fn default() -> Self {
        Self::of(Path::new(mounts::OWN))
    }
}

impl Devices {
    /// The devices that `mountinfo` (a file in the format of `/proc/self/mountinfo`) lists.
    pub fn of(mountinfo: &Path) -> Self {
        Self {
            mountinfo: mountinfo.to_owned(),
            known: RwLock::default(),
            stores: RwLock::default(),
            overlays: RwLock::default(),
            fetch: Vec::new(),
        }
    }

    /// The same, and below these directories reading is wanted though it costs money.
    #[must_use]
    pub fn fetching(mut self, directories: Vec<PathBuf>) -> Self {
        self.fetch = directories;
        self
    }

    /// Whether the file at `path` on a device is only to be observed: see [`Store::Costly`].
    pub fn observes_only(&self, device: u32, path: &Path) -> bool {
        self.store_of(device) == Store::Costly && !self.fetch.iter().any(|directory| path.starts_with(directory))
    }

    /// What kind of store a device is.
    pub fn store_of(&self, device: u32) -> Store {
        let known = self.stores.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = known.get(&device) {
            return *store;
        }
        drop(known);
        let table = std::fs::read(&self.mountinfo).unwrap_or_default();
        let store = store_in(&table, device).unwrap_or_default();
        let mut known = self.stores.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST_KNOWN {
            known.clear();
        }
        known.insert(device, store);
        store
    }

    /// Forgets everything: call it when the mount table has changed, since mount numbers are used again.
    pub fn forget(&self) {
        self.stores.write().unwrap_or_else(PoisonError::into_inner).clear();
        self.known.write().unwrap_or_else(PoisonError::into_inner).clear();
        self.overlays.write().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The layers of the directory `below` `root`, which has this `status`; `None` where no overlay is mounted.
    pub fn layers_of(&self, root: &Top, below: &Path, status: &Status) -> Option<Layers> {
        let overlay = self.overlay_at(root, status)?;
        Some(overlay.layers_of(&root.native().join(below)))
    }

    /// Where the file is that the page cache belongs to, for the one at `place` on an overlay; `None` on any other file system, and where it is not found.
    pub fn layer_of(&self, place: &Place) -> Option<Place> {
        let (directory, name) = (place.below.parent()?, place.below.file_name()?);
        let opened = open_directory_beneath(&place.root, directory).ok()?;
        let layers = self.layers_of(&place.root, directory, &stat::status_of(&opened).ok()?)?;
        let name = CString::new(name.as_bytes()).ok()?;
        let (_, root, below) = layers.file(&name, &stat::status_at(opened.as_fd(), &name).ok()?)?;
        Some(Place { root, below })
    }

    fn overlay_at(&self, root: &Top, status: &Status) -> Option<Arc<Overlay>> {
        let key = (status.mount?, status.st_dev);
        let known = self.overlays.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(overlay) = known.get(&key) {
            return overlay.clone();
        }
        drop(known);
        // A mount of another namespace is in the table of its processes alone.
        let table = match root.process() {
            Some(process) => format!("/proc/{process}/mountinfo").into(),
            None => self.mountinfo.clone(),
        };
        let mounts = Mounts::read(&table).ok()?;
        let overlay = mounts.numbered(key.0).and_then(Overlay::of).map(Arc::new);
        let mut known = self.overlays.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST_KNOWN {
            known.clear();
        }
        known.insert(key, overlay.clone());
        overlay
    }

    /// The kernel's device number of the file system that `status` was found on; `st_dev` where the mount is not known.
    pub fn device_of(&self, status: &Status) -> u32 {
        let Some(mount) = status.mount else {
            return status.st_dev;
        };
        // The pair is the key: a mount number that was given to another file system meanwhile comes with another st_dev.
        let key = (mount, status.st_dev);
        if let Some(device) = self.known.read().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return *device;
        }
        let device = std::fs::read(&self.mountinfo)
            .ok()
            .and_then(|table| device_in(&table, mount));
        let device = device.unwrap_or(status.st_dev);
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST_KNOWN {
            known.clear();
        }
        known.insert(key, device);
        device
    }

    /// The identity of the file that `status` describes.
    pub fn file_id(&self, status: &Status) -> FileId {
        FileId {
            device: self.device_of(status),
            inode: status.inode,
        }
    }

    /// Identity and version of an open file, with its generation where the file system tells it.
    ///
    /// # Errors
    ///
    /// What `statx` says.
    pub fn version_of(&self, file: impl AsFd) -> io::Result<FileVersion> {
        let status = stat::status_of(&file)?;
        Ok(FileVersion {
            file: self.file_id(&status),
            generation: stat::generation_of(&file),
            size: status.size,
            mtime_ns: status.mtime_ns,
            ctime_ns: status.ctime_ns,
        })
    }
}

/// The device of mount number `mount`: the first and third field of `22 27 0:21 / /proc rw … - proc proc rw`.
fn device_in(table: &[u8], mount: u64) -> Option<u32> {
    table.split(|byte| *byte == b'\n').find_map(|line| {
        let mut fields = line.split(|byte| *byte == b' ');
        let number: u64 = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
        let device = std::str::from_utf8(fields.nth(1)?).ok()?;
        let (major, minor) = device.split_once(':')?;
        (number == mount).then_some(kernel_device(major.parse().ok()?, minor.parse().ok()?))
    })
}

/// Type and source of the mounts of a device, judged: the fields after the dash of `36 25 0:32 / /mnt rw shared:7 - nfs4 server:/models rw`.
fn store_in(table: &[u8], device: u32) -> Option<Store> {
    let table = String::from_utf8_lossy(table);
    table.lines().find_map(|line| {
        let (places, kinds) = line.split_once(" - ")?;
        let (major, minor) = places.split(' ').nth(2)?.split_once(':')?;
        let mut kinds = kinds.split(' ');
        (kernel_device(major.parse().ok()?, minor.parse().ok()?) == device)
            .then(|| Some(Store::of(kinds.next()?, kinds.next()?)))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::stat::Kind;

    const TABLE: &str =
        "22 27 0:21 / /proc rw,relatime - proc proc rw\n27 1 254:0 / / rw - ext4 /dev/vda rw\nrubbish\n";

    fn status(mount: Option<u64>) -> Status {
        Status {
            kind: Kind::File,
            inode: 7,
            st_dev: 99,
            mount,
            size: 0,
            links: 1,
            mtime_ns: 0,
            ctime_ns: 0,
        }
    }

    #[test]
    fn the_device_comes_from_the_mount_table_and_otherwise_from_stat() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), TABLE).unwrap();
        let devices = Devices::of(file.path());
        assert_eq!(devices.device_of(&status(Some(27))), 254 << 20);
        assert_eq!(devices.device_of(&status(Some(22))), 21);
        assert_eq!(devices.device_of(&status(Some(1000))), 99);
        assert_eq!(devices.device_of(&status(None)), 99);
    }

    #[test]
    fn a_changed_mount_table_is_read_again_after_forgetting() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), TABLE).unwrap();
        let devices = Devices::of(file.path());
        assert_eq!(devices.device_of(&status(Some(27))), 254 << 20);
        std::fs::write(file.path(), "27 1 8:1 / / rw - ext4 /dev/sda1 rw\n").unwrap();
        devices.forget();
        assert_eq!(devices.device_of(&status(Some(27))), 8 << 20 | 1);
    }

    #[test]
    fn reading_where_it_costs_money_must_be_wanted() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let table = format!("{TABLE}40 27 0:55 / /mnt/s3 rw - fuse.rclone s3:models rw\n");
        std::fs::write(file.path(), table).unwrap();
        let devices = Devices::of(file.path()).fetching(vec!["/mnt/s3/wanted".into()]);
        assert_eq!(devices.store_of(55), Store::Costly);
        assert_eq!(devices.store_of(254 << 20), Store::Local);
        assert!(devices.observes_only(55, Path::new("/mnt/s3/m.gguf")));
        assert!(!devices.observes_only(55, Path::new("/mnt/s3/wanted/m.gguf")));
        assert!(!devices.observes_only(254 << 20, Path::new("/m.gguf")));
    }

    #[test]
    fn an_open_file_tells_its_version() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "123").unwrap();
        let version = Devices::default().version_of(file.as_file()).unwrap();
        assert_eq!(version.size, 3);
        assert!(version.mtime_ns > 0 && version.file.inode > 0);
    }
}
