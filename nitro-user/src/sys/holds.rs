//! Which of several files a process reads whose identities look the same.
//!
//! The page cache of btrfs knows a file by its number and its device, and a snapshot's files have both in common with the original's, and the generation, too. `st_dev` tells them
//! apart, and to ask for it takes a name or a descriptor: those of the process. In: a process, and the file that it is believed to read. Out: whether it is that one.

use std::{
    ffi::CString,
    fs::{self, File},
    os::unix::fs::MetadataExt,
};

use super::{
    lent::{Info, MOST_DESCRIPTORS},
    proc::read_at_most,
    stat::{device_alone, device_alone_at, kernel_device},
};
use crate::units::FileId;

/// Longest list of mappings that is read: some hundred thousand of them.
const MOST_MAPS: usize = 16 << 20;

/// Whether `process` has `file` open or mapped, which is `id` for the page cache: `Some(false)` if what it has is only others of this number; `None` if it has neither, has ended,
/// or may not be looked at.
pub fn has(process: u32, id: FileId, file: &File) -> Option<bool> {
    let own = device_alone(file).ok()?;
    let seen = descriptors(process, id.inode).chain(mappings(process, id));
    let mut another = None;
    for device in seen {
        if device == own {
            return Some(true);
        }
        another = Some(false);
    }
    another
}

/// The devices of descriptors with this inode number. Of other file systems there may be some, and they are asked for nothing that a server would answer.
fn descriptors(process: u32, inode: u64) -> impl Iterator<Item = u32> {
    let entries = fs::read_dir(format!("/proc/{process}/fdinfo"));
    let entries = entries.into_iter().flatten().flatten().take(MOST_DESCRIPTORS);
    entries.filter_map(move |entry| {
        let number: u32 = entry.file_name().to_str()?.parse().ok()?;
        let info = Info::of(&format!("/proc/{process}/fdinfo/{number}"))?;
        let path = CString::new(format!("/proc/{process}/fd/{number}")).ok()?;
        (info.inode == inode).then(|| device_alone_at(&path).ok())?
    })
}

/// The devices of files that are mapped, as far as their names still lead to them.
fn mappings(process: u32, id: FileId) -> impl Iterator<Item = u32> {
    let maps = read_at_most(format!("/proc/{process}/maps"), MOST_MAPS).unwrap_or_default();
    let maps = String::from_utf8_lossy(&maps);
    let names: Vec<String> = maps.lines().filter_map(|line| named(line, id)).collect();
    names.into_iter().filter_map(move |name| {
        let status = fs::symlink_metadata(format!("/proc/{process}/root{name}")).ok()?;
        let device = kernel_device(libc::major(status.dev()), libc::minor(status.dev()));
        (status.ino() == id.inode).then_some(device)
    })
}

/// The path in a line of `maps`, if it is of a file that the page cache knows as `id`.
fn named(line: &str, id: FileId) -> Option<String> {
    let mut fields = line.splitn(6, ' ');
    let (device, inode, path) = (fields.nth(3)?, fields.next()?, fields.next()?);
    let (major, minor) = device.split_once(':')?;
    let number = |text: &str| u32::from_str_radix(text, 16).ok();
    let is_it = kernel_device(number(major)?, number(minor)?) == id.device && inode.parse() == Ok(id.inode);
    let path = path.trim_start();
    (is_it && path.starts_with('/')).then(|| path.to_owned())
}
