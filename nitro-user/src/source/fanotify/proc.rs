//! What /proc tells of a process that has a watched file open: its descriptors, mappings, the calls it waits in, and how much it has read.
//!
//! In: process numbers. Out: values; `None` and empty lists for a process that has ended or may not be looked at. Others choose what their files and programs
//! are called, so that nothing but numbers is taken from these texts, and each is read up to a bound.

use std::{
    fs::{self, File},
    io::Read,
    os::unix::fs::{FileExt, MetadataExt},
};

use super::files::Files;
use crate::{sys::stat::kernel_device, units::FileId};

/// Descriptors of one process that are looked at: a loader opens its model early.
const MOST_DESCRIPTORS: usize = 1024;

/// Threads of one process whose calls are looked at.
const MOST_THREADS: usize = 64;

/// Longest list of mappings that is read: some hundred thousand of them.
const MOST_MAPS: u64 = 16 << 20;

/// Longest of the other texts.
const MOST_TEXT: u64 = 16 << 10;

/// How a process has a file open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Byte that the next `read` begins at.
    pub position: u64,
    /// Flags of `open`.
    pub flags: i32,
}

impl Opened {
    /// Whether it may be written through.
    pub const fn writes(self) -> bool {
        self.flags & libc::O_ACCMODE != libc::O_RDONLY
    }

    /// Whether it goes past the page cache.
    pub const fn is_direct(self) -> bool {
        self.flags & libc::O_DIRECT != 0
    }
}

/// A mapping of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Addresses in the process.
    pub start: u64,
    /// First address behind it.
    pub end: u64,
    /// Byte of the file at `start`.
    pub offset: u64,
    /// Which file.
    pub file: FileId,
}

/// A descriptor of a watched file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its number.
    pub number: u32,
    /// Which file.
    pub file: FileId,
    /// Bytes of the file.
    pub size: u64,
}

/// What a process has read since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Io {
    /// Bytes that its calls of `read` and the like returned, of whatever.
    pub read: u64,
    /// Bytes that devices were asked for on its behalf, readahead and faults included.
    pub fetched: u64,
}

/// A call that a thread waits in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// Descriptor.
    pub descriptor: u32,
    /// Byte it began at; `None` for the descriptor's position.
    pub offset: Option<u64>,
    /// Bytes asked for; 0 where that lies in the process's memory.
    pub bytes: u64,
}

/// The descriptors of watched files. `stat` is asked only where the inode number, which /proc tells from Linux 5.14 on, is that of one: of a file on a server that
/// has died it would not return.
pub fn descriptors(process: u32, files: &Files) -> Vec<Found> {
    let entries = fs::read_dir(format!("/proc/{process}/fdinfo"))
        .into_iter()
        .flatten()
        .flatten();
    let found = entries.take(MOST_DESCRIPTORS).filter_map(|entry| {
        let number: u32 = entry.file_name().to_str()?.parse().ok()?;
        let info = text(&format!("/proc/{process}/fdinfo/{number}"), MOST_TEXT)?;
        if !parse_inode(&info).is_none_or(|inode| files.may_be(inode)) {
            return None;
        }
        let status = fs::metadata(format!("/proc/{process}/fd/{number}")).ok()?;
        let (file, size) = (files.name(status.dev(), status.ino())?, status.len());
        Some(Found { number, file, size })
    });
    found.collect()
}

/// How a descriptor is open.
pub fn opened(process: u32, descriptor: u32) -> Option<Opened> {
    parse_opened(&text(&format!("/proc/{process}/fdinfo/{descriptor}"), MOST_TEXT)?)
}

/// The mappings of watched files.
pub fn mappings(process: u32, files: &Files) -> Vec<Mapping> {
    let maps = text(&format!("/proc/{process}/maps"), MOST_MAPS).unwrap_or_default();
    let found = maps.lines().filter_map(parse_mapping);
    found.filter(|mapping| files.contains(mapping.file)).collect()
}

/// What it has read.
pub fn io(process: u32) -> Option<Io> {
    parse_io(&text(&format!("/proc/{process}/io"), MOST_TEXT)?)
}

/// The reading calls that its threads wait in, by thread. One that does not wait tells nothing.
pub fn calls(process: u32) -> Vec<(u32, Call)> {
    let entries = fs::read_dir(format!("/proc/{process}/task"))
        .into_iter()
        .flatten()
        .flatten();
    let found = entries.take(MOST_THREADS).filter_map(|entry| {
        let thread: u32 = entry.file_name().to_str()?.parse().ok()?;
        let call = text(&format!("/proc/{process}/task/{thread}/syscall"), MOST_TEXT)?;
        Some((thread, parse_call(&call)?))
    });
    found.collect()
}

/// The numbers of all processes.
pub fn processes() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// The page tables of a process.
#[derive(Debug)]
pub struct PageTables(File);

impl PageTables {
    /// Opens them.
    pub fn of(process: u32) -> Option<Self> {
        Some(Self(File::open(format!("/proc/{process}/pagemap")).ok()?))
    }

    /// Page by page, whether `count` pages from address `start` on are mapped. Shorter where the process's memory ends.
    pub fn present(&self, start: u64, count: usize) -> Vec<bool> {
        /// Bytes of an entry, and its bit that says so.
        const ENTRY: u64 = 8;
        const PRESENT: u8 = 0x80;
        let mut entries = vec![0; count * ENTRY as usize];
        let at = start / crate::sys::page_size() * ENTRY;
        let read = self.0.read_at(&mut entries, at).unwrap_or(0);
        let entries = entries[..read].chunks_exact(ENTRY as usize);
        entries
            .map(|entry| entry.last().is_some_and(|last| last & PRESENT != 0))
            .collect()
    }
}

fn text(path: &str, most: u64) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(most).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn parse_opened(text: &str) -> Option<Opened> {
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    Some(Opened {
        position: field("pos:")?.parse().ok()?,
        flags: i32::from_str_radix(field("flags:")?, 8).ok()?,
    })
}

fn parse_inode(fdinfo: &str) -> Option<u64> {
    fdinfo
        .lines()
        .find_map(|line| line.strip_prefix("ino:")?.trim().parse().ok())
}

/// A line as `7f00-7f80 r--s 00000000 fe:00 2162689   /models/m.gguf`.
fn parse_mapping(line: &str) -> Option<Mapping> {
    let mut fields = line.split_ascii_whitespace();
    let hex = |digits: &str| u64::from_str_radix(digits, 16).ok();
    let (start, end) = fields.next()?.split_once('-')?;
    let (offset, device) = (fields.nth(1)?, fields.next()?);
    let inode: u64 = fields.next()?.parse().ok()?;
    let (major, minor) = device.split_once(':')?;
    let (start, end) = (hex(start)?, hex(end)?);
    let device = kernel_device(
        u32::from_str_radix(major, 16).ok()?,
        u32::from_str_radix(minor, 16).ok()?,
    );
    (inode != 0 && end > start).then_some(Mapping {
        start,
        end,
        offset: hex(offset)?,
        file: FileId { device, inode },
    })
}

fn parse_io(text: &str) -> Option<Io> {
    let field = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    };
    Some(Io {
        read: field("rchar:")?,
        fetched: field("read_bytes:")?,
    })
}

/// `17 0x3 0x7f00 0x20000 0x400000 …`: number and arguments; `running` for a thread that does not wait.
fn parse_call(text: &str) -> Option<Call> {
    let mut words = text.split_ascii_whitespace();
    let number: i64 = words.next()?.parse().ok()?;
    let arguments: Vec<u64> = words
        .map_while(|word| u64::from_str_radix(word.strip_prefix("0x")?, 16).ok())
        .collect();
    let argument = |index: usize| arguments.get(index).copied();
    let descriptor = u32::try_from(argument(0)?).ok()?;
    let (offset, bytes) = match number {
        libc::SYS_read => (None, argument(2)?),
        libc::SYS_pread64 => (argument(3), argument(2)?),
        libc::SYS_readv => (None, 0),
        libc::SYS_preadv | libc::SYS_preadv2 => (argument(3).filter(|offset| *offset != u64::MAX), 0),
        _ => return None,
    };
    Some(Call {
        descriptor,
        offset,
        bytes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_of_a_file_is_told_from_one_of_memory() {
        let line = "7fe213600000-7fe217600000 r--s 00100000 fe:00 2162689                    /var/tmp/a (deleted)";
        let file = FileId {
            device: 0xfe << 20,
            inode: 2_162_689,
        };
        let (start, end, offset) = (0x7fe2_1360_0000, 0x7fe2_1760_0000, 1 << 20);
        let expected = Mapping {
            start,
            end,
            offset,
            file,
        };
        assert_eq!(parse_mapping(line), Some(expected));
        assert_eq!(parse_mapping("7ff0-7ff8 rw-p 00000000 00:00 0   [stack]"), None);
        assert_eq!(parse_mapping("7ff8-7ff0 r--p 00000000 fe:00 7"), None);
        assert_eq!(parse_mapping("nothing of the kind"), None);
    }

    #[test]
    fn a_call_tells_where_it_began() {
        let call = |descriptor, offset, bytes| {
            Some(Call {
                descriptor,
                offset,
                bytes,
            })
        };
        let line = |number: i64, rest: &str| parse_call(&format!("{number} {rest} 0x7ffc 0x7f01"));
        let pread = line(libc::SYS_pread64, "0x3 0x7f00 0x20000 0x400000 0x0 0x0");
        assert_eq!(pread, call(3, Some(4 << 20), 128 << 10));
        assert_eq!(line(libc::SYS_read, "0x4 0x7f00 0x1000 0x0"), call(4, None, 4096));
        let current = line(libc::SYS_preadv2, "0x5 0x7f00 0x2 0xffffffffffffffff 0x0 0x0");
        assert_eq!(current, call(5, None, 0));
        assert_eq!(line(libc::SYS_openat, "0x3 0x7f00 0x20000 0x400000"), None);
        assert_eq!(parse_call("running\n"), None);
        assert_eq!(parse_call("-1 0x7ffc 0x7f01"), None);
    }

    #[test]
    fn flags_of_a_descriptor_are_octal() {
        let opened = parse_opened("pos:\t4096\nflags:\t0140001\nmnt_id:\t31\nino:\t7\n").unwrap();
        assert_eq!(
            (opened.position, opened.writes(), opened.is_direct()),
            (4096, true, true)
        );
        assert_eq!(parse_opened("pos:\t-1\nflags:\t02\n"), None);
    }

    #[test]
    fn this_process_is_seen_as_it_is() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(1 << 20).unwrap();
        let status = file.as_file().metadata().unwrap();
        let (own, id) = (std::process::id(), FileId { device: 1, inode: 2 });
        let mut known = Files::default();
        known.insert(id, (status.dev(), status.ino()));
        let found = descriptors(own, &known);
        assert_eq!(found.iter().map(|found| found.size).collect::<Vec<_>>(), [1 << 20]);
        file.as_file().read_exact_at(&mut [0; 8], 0).unwrap();
        assert_eq!(opened(own, found[0].number).unwrap().position, 0);
        assert!(io(own).unwrap().read >= 8);
        let memory = [1u8; 1];
        let address = std::ptr::from_ref(&memory) as u64;
        assert_eq!(PageTables::of(own).unwrap().present(address, 1), [true]);
        assert!(descriptors(u32::MAX, &known).is_empty() && io(u32::MAX).is_none());
    }
}
