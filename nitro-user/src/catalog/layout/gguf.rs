//! GGUF files, alone or split: `<prefix>-00001-of-00004.gguf`.
//!
//! In: names, and the header of a file: magic, counts, key-value pairs, tensor descriptions. Out: the parts in order, and
//! where the tensors begin. The header is walked without keeping it: memory is one buffer, whatever it claims.
//!
//! It understands versions 2 and 3, little-endian; of others the header's size stays unknown.

use std::{
    io::{BufRead, BufReader, Read},
    path::Path,
};

use super::{Group, Layout, Seen, View, group, printable, split};
use crate::catalog::model::LayoutKind;

/// Most bytes read of a header. A vocabulary of 256 000 words with its merges takes 12 MiB.
pub const MOST_HEADER: u64 = 64 << 20;
/// Most key-value pairs; real files have dozens.
const MOST_PAIRS: u64 = 1 << 16;
/// Most tensors; the largest mixtures of experts have thousands.
const MOST_TENSORS: u64 = 1 << 20;
/// Most dimensions of a tensor; ggml has four.
const MOST_DIMENSIONS: u32 = 8;
/// Arrays in arrays in arrays.
const MOST_NESTING: u32 = 4;
/// Alignment of the tensors where the header names none.
const ALIGNMENT: u64 = 32;

/// The layout.
#[derive(Debug)]
pub struct Gguf;

impl Layout for Gguf {
    fn kind(&self) -> LayoutKind {
        LayoutKind::Gguf
    }

    fn group_of(&self, view: &dyn View, named: &Path) -> Option<Group> {
        let name = named.file_name()?;
        let bytes = name.as_encoded_bytes();
        if !bytes.ends_with(b".gguf") {
            return None;
        }
        let header = |seen: &Seen| header_of(view, seen);
        match split::parse(bytes) {
            Some(split) => {
                let name = String::from_utf8_lossy(split.prefix).into_owned();
                group(view, named, name, split.all(named), &header)
            }
            None => group(view, named, printable(named), [named.to_owned()], &header),
        }
    }
}

/// Bytes before the first tensor of the file; 0 when it is not GGUF, or not one that can be believed.
pub fn header_of(view: &dyn View, seen: &Seen) -> u64 {
    let Some(head) = view.head(&seen.path, MOST_HEADER) else {
        return 0;
    };
    match header_bytes(head, seen.size) {
        Ok(header) => header,
        Err(Unreadable::NotGguf) => 0,
        Err(Unreadable::Refused(reason)) => {
            view.refuse(&seen.path, reason);
            0
        }
    }
}

/// Why a header's end was not found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Another format, another version.
    #[error("not a GGUF file of version 2 or 3")]
    NotGguf,
    /// It starts as one and goes on as nonsense.
    #[error("GGUF header refused: {0}")]
    Refused(&'static str),
}

/// Where the tensors begin in a GGUF file of `size` bytes that starts with `head`.
///
/// # Errors
///
/// It is not GGUF, its counts are absurd, it ends early, or it is longer than [`MOST_HEADER`] or the file.
pub fn header_bytes(head: impl Read, size: u64) -> Result<u64, Unreadable> {
    let mut walk = Walk {
        head: BufReader::with_capacity(1 << 16, head.take(MOST_HEADER)),
        at: 0,
        limit: size.min(MOST_HEADER),
    };
    let magic: [u8; 4] = walk.bytes().map_err(|_| Unreadable::NotGguf)?;
    let version = walk.u32().map_err(|_| Unreadable::NotGguf)?;
    if &magic != b"GGUF" || !(2..=3).contains(&version) {
        return Err(Unreadable::NotGguf);
    }
    let (tensors, pairs) = (walk.u64()?, walk.u64()?);
    if tensors > MOST_TENSORS || pairs > MOST_PAIRS {
        return Err(Unreadable::Refused("it claims an absurd number of tensors or values"));
    }
    let mut alignment = ALIGNMENT;
    for _ in 0..pairs {
        let is_alignment = walk.string_is(b"general.alignment")?;
        let kind = walk.u32()?;
        if is_alignment && kind == 4 {
            alignment = u64::from(walk.u32()?);
        } else {
            walk.value(kind, 0)?;
        }
    }
    if !alignment.is_power_of_two() || alignment > 1 << 20 {
        return Err(Unreadable::Refused("its alignment is absurd"));
    }
    for _ in 0..tensors {
        walk.string()?;
        let dimensions = walk.u32()?;
        if dimensions > MOST_DIMENSIONS {
            return Err(Unreadable::Refused("a tensor has too many dimensions"));
        }
        // The dimensions, the type, the offset.
        walk.skip(u64::from(dimensions) * 8 + 4 + 8)?;
    }
    let header = walk.at.next_multiple_of(alignment);
    // A file without tensors may end where padding would begin.
    Ok(header.min(size))
}

/// A position in a header.
struct Walk<R> {
    head: R,
    at: u64,
    limit: u64,
}

impl<R: BufRead> Walk<R> {
    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], Unreadable> {
        let mut bytes = [0; N];
        self.advance(N as u64)?;
        self.head
            .read_exact(&mut bytes)
            .map_err(|_| Unreadable::Refused("it ends early"))?;
        Ok(bytes)
    }
    fn u32(&mut self) -> Result<u32, Unreadable> {
        self.bytes().map(u32::from_le_bytes)
    }
    fn u64(&mut self) -> Result<u64, Unreadable> {
        self.bytes().map(u64::from_le_bytes)
    }
    fn advance(&mut self, count: u64) -> Result<(), Unreadable> {
        self.at = self
            .at
            .checked_add(count)
            .filter(|at| *at <= self.limit)
            .ok_or(Unreadable::Refused("it is too long"))?;
        Ok(())
    }
    fn skip(&mut self, count: u64) -> Result<(), Unreadable> {
        self.advance(count)?;
        let mut left = count;
        while left > 0 {
            let there = self.head.fill_buf().map_or(0, <[u8]>::len) as u64;
            if there == 0 {
                return Err(Unreadable::Refused("it ends early"));
            }
            let skipped = there.min(left);
            self.head.consume(skipped as usize);
            left -= skipped;
        }
        Ok(())
    }
    fn string(&mut self) -> Result<(), Unreadable> {
        let length = self.u64()?;
        self.skip(length)
    }
    fn string_is(&mut self, wanted: &[u8; 17]) -> Result<bool, Unreadable> {
        let length = self.u64()?;
        if length != wanted.len() as u64 {
            self.skip(length)?;
            return Ok(false);
        }
        Ok(self.bytes::<17>()? == *wanted)
    }
    /// Skips a value of type `kind`.
    fn value(&mut self, kind: u32, nesting: u32) -> Result<(), Unreadable> {
        match kind {
            8 => self.string(),
            9 => self.array(nesting),
            kind => self.skip(fixed_size(kind)?),
        }
    }
    fn array(&mut self, nesting: u32) -> Result<(), Unreadable> {
        if nesting >= MOST_NESTING {
            return Err(Unreadable::Refused("its arrays are nested too deeply"));
        }
        let (kind, count) = (self.u32()?, self.u64()?);
        if !matches!(kind, 8 | 9) {
            let bytes = count
                .checked_mul(fixed_size(kind)?)
                .ok_or(Unreadable::Refused("it is too long"))?;
            return self.skip(bytes);
        }
        // Each takes eight bytes at least, so the limit on bytes is one on the count.
        for _ in 0..count {
            self.value(kind, nesting + 1)?;
        }
        Ok(())
    }
}

/// Bytes of a number of type `kind`.
fn fixed_size(kind: u32) -> Result<u64, Unreadable> {
    match kind {
        0 | 1 | 7 => Ok(1),
        2 | 3 => Ok(2),
        4..=6 => Ok(4),
        10..=12 => Ok(8),
        _ => Err(Unreadable::Refused("it has a value of an unknown type")),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::catalog::layout::{MemoryView, trial::valid_gguf};

    #[test]
    fn the_tensors_begin_after_the_header_at_the_next_multiple_of_the_alignment() {
        let bytes = valid_gguf();
        assert_eq!(
            header_bytes(bytes.as_slice(), 1 << 30),
            Ok((bytes.len() as u64).next_multiple_of(64))
        );
        // A vocabulary file has no tensors, and no padding.
        assert_eq!(
            header_bytes(bytes.as_slice(), bytes.len() as u64),
            Ok(bytes.len() as u64)
        );
    }

    #[test]
    fn other_formats_and_versions_are_not_gguf() {
        for bytes in [
            b"".as_slice(),
            b"GGU",
            b"GGML\x03\0\0\0",
            b"GGUF\x01\0\0\0",
            b"GGUF\0\0\0\x03",
            &[0; 100],
        ] {
            assert_eq!(header_bytes(bytes, 1 << 30), Err(Unreadable::NotGguf), "{bytes:?}");
        }
    }

    #[test]
    fn absurd_claims_are_refused_at_once() {
        let start = |tensors: u64, pairs: u64| {
            [
                b"GGUF".as_slice(),
                &3u32.to_le_bytes(),
                &tensors.to_le_bytes(),
                &pairs.to_le_bytes(),
            ]
            .concat()
        };
        let refused = |bytes: &[u8]| {
            // Zeros for ever: whatever is claimed would be there.
            matches!(
                header_bytes(bytes.chain(io::repeat(0)), u64::MAX),
                Err(Unreadable::Refused(_))
            )
        };
        assert!(refused(&start(u64::MAX, 1)));
        assert!(refused(&start(1, u64::MAX)));
        // A key of 10 GB.
        assert!(refused(&[start(1, 1), (10u64 << 30).to_le_bytes().to_vec()].concat()));
        let array = |kind: u32, count: u64| {
            let value = [9u32.to_le_bytes(), kind.to_le_bytes()].concat();
            [start(1, 1), vec![0; 8], value, count.to_le_bytes().to_vec()].concat()
        };
        // 2^61 numbers of eight bytes; and 2^60 empty strings, which end at the bound on bytes.
        assert!(refused(&array(10, 1 << 61)));
        assert!(refused(&array(8, 1 << 60)));
        // Arrays in arrays.
        let nest = [9u32.to_le_bytes().as_slice(), &1u64.to_le_bytes()]
            .concat()
            .repeat(100_000);
        assert!(refused(
            &[
                start(1, 1),
                0u64.to_le_bytes().to_vec(),
                9u32.to_le_bytes().to_vec(),
                nest
            ]
            .concat()
        ));
    }

    #[test]
    fn splits_are_in_order_and_missing_ones_left_out() {
        let mut view = MemoryView::default();
        for part in [3, 1, 4] {
            view.add_file(format!("/m/big-0000{part}-of-00004.gguf"), 1 << 30, valid_gguf());
        }
        view.add_file("/m/big-00001-of-00005.gguf", 1 << 30, []);
        let group = Gguf.group_of(&view, Path::new("/m/big-00003-of-00004.gguf")).unwrap();
        let names: Vec<_> = group
            .members
            .iter()
            .map(|member| printable(&member.seen.path))
            .collect();
        assert_eq!(
            names,
            [
                "big-00001-of-00004.gguf",
                "big-00003-of-00004.gguf",
                "big-00004-of-00004.gguf"
            ]
        );
        assert_eq!(group.name, "big");
        // Headers from the file that was asked about onwards.
        assert_eq!(
            group.members.iter().map(|member| member.header > 0).collect::<Vec<_>>(),
            [false, true, true]
        );
    }
}
