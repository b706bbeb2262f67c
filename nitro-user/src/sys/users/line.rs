//! Lines of `/proc/PID/maps` and `/proc/PID/fdinfo/N`.

use std::{fs::File, io, io::Read, os::fd::OwnedFd, path::Path};

use nix::{
    fcntl::{OFlag, openat},
    sys::stat::Mode,
};

use super::kernel_device;
use crate::units::ByteRange;

/// What is read at once; the kernel gives a page of a list at a time.
const AT_ONCE: usize = 16 << 10;

/// Longest line that is kept: a path is at most 4096 bytes, each told in four if it is odd. What is needed of a line is at its beginning.
const LONGEST: usize = 32 << 10;

/// A mapping of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// The file system's device as the kernel keeps it.
    pub device: u32,
    /// The file's number there.
    pub inode: u64,
    /// What of the file is mapped.
    pub range: ByteRange,
}

/// A list, line by line, without all of it in memory.
#[derive(Debug, Default)]
pub struct Lines {
    bytes: Vec<u8>,
    /// Where the next line begins.
    at: usize,
}

impl Lines {
    /// Reads some more; false at the end.
    pub fn fill(&mut self, from: &mut impl Read) -> io::Result<bool> {
        self.bytes.drain(..self.at);
        self.at = 0;
        // The rest of a line that is too long.
        self.bytes.truncate(LONGEST);
        let held = self.bytes.len();
        self.bytes.resize(held + AT_ONCE, 0);
        let read = loop {
            match from.read(&mut self.bytes[held..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => break done,
            }
        };
        let read = read.inspect_err(|_| self.bytes.truncate(held))?;
        self.bytes.truncate(held + read);
        Ok(read > 0)
    }

    /// The next whole line.
    pub fn next(&mut self) -> Option<&[u8]> {
        let length = self.bytes[self.at..].iter().position(|byte| *byte == b'\n')?;
        let line = &self.bytes[self.at..self.at + length];
        self.at += length + 1;
        Some(line)
    }
}

/// `7f0-7f8 r--s 00002000 fe:00 42   /path`; `None` for a mapping of no file. The path is of no interest: whatever is in it, a line break is told as `\012`.
pub fn mapping(line: &[u8]) -> Option<Mapping> {
    let mut fields = line.split(|byte| *byte == b' ');
    let mut next = || std::str::from_utf8(fields.next()?).ok();
    let (addresses, _, offset, device, inode) = (next()?, next()?, next()?, next()?, next()?);
    let inode: u64 = inode.parse().ok().filter(|inode| *inode != 0)?;
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    let (start, end) = addresses.split_once('-')?;
    let length = hex(end)?.checked_sub(hex(start)?)?;
    let (major, minor) = device.split_once(':')?;
    let number = |text: &str| u32::from_str_radix(text, 16).ok();
    Some(Mapping {
        device: kernel_device(number(major)?, number(minor)?),
        inode,
        range: ByteRange::new(hex(offset)?, length),
    })
}

/// The number of the mount and of the file of a descriptor, from its `fdinfo`.
pub fn descriptor(directory: &OwnedFd, path: &Path) -> Option<(u64, u64)> {
    let info = openat(directory, path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).ok()?;
    // What some kinds of descriptors tell beyond, at any length, comes after.
    let mut bytes = [0; 512];
    let read = File::from(info).read(&mut bytes).ok()?;
    let text = std::str::from_utf8(&bytes[..read]).ok()?;
    let field = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    };
    Some((field("mnt_id:")?, field("ino:")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_is_told_by_its_first_fields_whatever_the_path() {
        let plain = Mapping {
            device: kernel_device(0xfe, 1),
            inode: 42,
            range: ByteRange::new(0x2000, 0x1000),
        };
        for path in [
            "",
            "   /models/a",
            "  /a b\\012c 7f00-7f01 r--s 0 00:00 7 (deleted)",
            "  /\u{202e}x",
        ] {
            let line = format!("7f000000-7f001000 r--s 00002000 fe:01 42{path}");
            assert_eq!(mapping(line.as_bytes()), Some(plain), "{path}");
        }
        let odd = b"7f000000-7f001000 r--s 00002000 fe:01 42 /\xff\xfe";
        assert_eq!(mapping(odd), Some(plain));
    }

    #[test]
    fn what_is_no_mapping_of_a_file_is_none() {
        for line in [
            "",
            "7f000000-7f001000 rw-p 00000000 00:00 0",
            "7f000000-7f001000 rw-p 00000000 00:00 0    [heap]",
            "7f001000-7f000000 r--s 00002000 fe:01 42",
            "7f000000 r--s 00002000 fe:01 42",
            "7f000000-7f001000 r--s 00002000 fe01 42",
            "7f000000-7f001000 r--s 00002000",
            "x-y r--s z fe:01 42",
        ] {
            assert_eq!(mapping(line.as_bytes()), None, "{line}");
        }
    }

    #[test]
    fn lines_come_whole_however_they_are_read() {
        let long = format!("{}\n", "x".repeat(3 * LONGEST));
        let text = format!("one\n\ntwo\n{long}three\nrest");
        let mut bytes = text.as_bytes();
        let mut lines = Lines::default();
        let mut seen = Vec::new();
        loop {
            let more = lines.fill(&mut bytes).unwrap();
            while let Some(line) = lines.next() {
                seen.push(line.len());
            }
            assert!(lines.bytes.len() <= LONGEST + AT_ONCE, "it is bounded");
            if !more {
                break;
            }
        }
        assert_eq!((seen[0], seen[1], seen[2]), (3, 0, 3));
        assert_eq!(seen.len(), 5);
        assert_eq!(seen[4], 5);
    }
}
