//! `statx` and the inode generation: what identifies a file and its version.
//!
//! In: descriptors and names relative to them. Out: plain values. Symbolic links are not followed and automounts are
//! not triggered.

use std::{
    ffi::CStr,
    io,
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
};

/// What a name in a directory stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A FIFO, socket or device: never touched.
    Other,
}

/// The answer of `statx` that the catalog uses.
#[derive(Clone, Copy, Debug)]
pub struct Status {
    /// What it is.
    pub kind: Kind,
    /// Inode number.
    pub inode: u64,
    /// `st_dev` in the kernel's encoding (major << 20 | minor): on btrfs and overlayfs not the page cache's device.
    pub st_dev: u32,
    /// Which mount it was found through; `None` before 5.8.
    pub mount: Option<u64>,
    /// Size in bytes.
    pub size: u64,
    /// Number of names.
    pub links: u32,
    /// Last modification, nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Last change of the inode, nanoseconds since 1970.
    pub ctime_ns: i64,
}

/// Status of `name` in `directory`; an empty name means the directory's own descriptor.
///
/// # Errors
///
/// What `statx` (4.11+) says; `ENOENT` for a file that has vanished.
pub fn status_at(directory: BorrowedFd<'_>, name: &CStr) -> io::Result<Status> {
    let mut answer = MaybeUninit::<libc::statx>::zeroed();
    let flags = libc::AT_SYMLINK_NOFOLLOW | libc::AT_NO_AUTOMOUNT | libc::AT_EMPTY_PATH;
    let mask = libc::STATX_BASIC_STATS | libc::STATX_MNT_ID;
    // SAFETY: the descriptor is open for the borrow, the name ends in NUL, and the kernel writes at most one statx.
    let result = unsafe { libc::statx(directory.as_raw_fd(), name.as_ptr(), flags, mask, answer.as_mut_ptr()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: all bytes were zeroed and every bit pattern is a valid statx.
    let answer = unsafe { answer.assume_init() };
    let kind = match u32::from(answer.stx_mode) & libc::S_IFMT {
        libc::S_IFREG => Kind::File,
        libc::S_IFDIR => Kind::Directory,
        libc::S_IFLNK => Kind::Link,
        _ => Kind::Other,
    };
    Ok(Status {
        kind,
        inode: answer.stx_ino,
        st_dev: kernel_device(answer.stx_dev_major, answer.stx_dev_minor),
        mount: (answer.stx_mask & libc::STATX_MNT_ID != 0).then_some(answer.stx_mnt_id),
        size: answer.stx_size,
        links: answer.stx_nlink,
        mtime_ns: nanoseconds(answer.stx_mtime),
        ctime_ns: nanoseconds(answer.stx_ctime),
    })
}

/// Status of an open file.
///
/// # Errors
///
/// As [`status_at`].
pub fn status_of(file: impl AsFd) -> io::Result<Status> {
    status_at(file.as_fd(), c"")
}

/// The device of an open file, in the kernel's encoding, of somebody who may ask no more than that: the file system is not asked, so that neither a server that hangs nor one
/// that refuses us matters.
///
/// # Errors
///
/// As [`status_at`].
pub fn device_alone(file: impl AsFd) -> io::Result<u32> {
    device_of(file.as_fd().as_raw_fd(), c"")
}

/// The same of an absolute path; symbolic links are followed.
///
/// # Errors
///
/// As [`status_at`].
pub fn device_alone_at(path: &CStr) -> io::Result<u32> {
    device_of(libc::AT_FDCWD, path)
}

fn device_of(directory: RawFd, name: &CStr) -> io::Result<u32> {
    let mut answer = MaybeUninit::<libc::statx>::zeroed();
    let flags = libc::AT_EMPTY_PATH | libc::AT_STATX_DONT_SYNC;
    // SAFETY: as in `status_at`.
    let result = unsafe { libc::statx(directory, name.as_ptr(), flags, 0, answer.as_mut_ptr()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: as in `status_at`.
    let answer = unsafe { answer.assume_init() };
    Ok(kernel_device(answer.stx_dev_major, answer.stx_dev_minor))
}

/// A device number as the kernel keeps it in `super_block.s_dev`: 12 bits of major, 20 of minor.
pub const fn kernel_device(major: u32, minor: u32) -> u32 {
    major << 20 | (minor & 0xf_ffff)
}

fn nanoseconds(time: libc::statx_timestamp) -> i64 {
    time.tv_sec
        .saturating_mul(1_000_000_000)
        .saturating_add(i64::from(time.tv_nsec))
}

mod request {
    nix::ioctl_read!(
        /// `FS_IOC_GETVERSION`. Declared with `long`, but file systems write an `int`.
        get_version,
        b'v',
        1,
        libc::c_long
    );
}

/// `i_generation` of an open file, 0 where the file system does not tell it.
pub fn generation_of(file: impl AsFd) -> u32 {
    let mut generation: libc::c_long = 0;
    // SAFETY: the descriptor is open for the borrow and the kernel writes at most a long.
    match unsafe { request::get_version(file.as_fd().as_raw_fd(), &raw mut generation) } {
        // Four bytes are written, at the start: the low ones on little-endian machines.
        Ok(_) => u32::from_ne_bytes(first_four(generation.to_ne_bytes())),
        Err(_) => 0,
    }
}

fn first_four(bytes: [u8; size_of::<libc::c_long>()]) -> [u8; 4] {
    [bytes[0], bytes[1], bytes[2], bytes[3]]
}

#[cfg(test)]
mod tests {
    use std::{fs::File, os::unix::fs::MetadataExt};

    use super::*;

    #[test]
    fn statx_agrees_with_stat() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("f"), "12345").unwrap();
        let file = File::open(dir.path().join("f")).unwrap();
        let (status, other) = (status_of(&file).unwrap(), file.metadata().unwrap());
        assert_eq!((status.inode, status.size, status.kind), (other.ino(), 5, Kind::File));
        assert_eq!(device_alone(&file).unwrap(), status.st_dev);
        assert_eq!(status.mtime_ns, other.mtime() * 1_000_000_000 + other.mtime_nsec());
        let by_name = status_at(File::open(dir.path()).unwrap().as_fd(), c"f").unwrap();
        assert_eq!(by_name.inode, status.inode);
    }

    #[test]
    fn a_recycled_inode_number_differs_in_generation_or_none_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let file = File::create(dir.path().join("f")).unwrap();
        // tmpfs tells none; ext4, xfs and btrfs do. Either way the call is harmless and repeatable.
        assert_eq!(generation_of(&file), generation_of(&file));
    }
}
