//! Frames: records in pieces of which each stands for itself, so that a file that ends in the middle of one can be read up to it.
//!
//! A frame is: its length as it lies there (u32), its length unpacked (u32), the XXH3 of the packed bytes (u64), all little-endian, and the packed bytes: one LZ4 block. Whatever
//! is read here comes from a file that anybody may have written.

use std::io::{self, Read};

use xxhash_rust::xxh3::xxh3_64;

/// Bytes before the packed ones.
pub const HEAD: usize = 16;

/// Longest frame, unpacked: a model of tens of thousands of files is one record.
const MOST: usize = 64 << 20;

/// A frame as it lies in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame(Vec<u8>);

/// Why a frame cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The file ends in the middle of it.
    #[error("the file ends in the middle of a frame")]
    Cut,
    /// Its bytes are not those that were written.
    #[error("a frame is damaged: {0}")]
    Damaged(&'static str),
    /// It cannot be read at all.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Frame {
    /// Packs bytes; `None` for more than a frame may hold.
    pub fn pack(bytes: &[u8]) -> Option<Self> {
        let unpacked = u32::try_from(bytes.len()).ok().filter(|_| bytes.len() <= MOST)?;
        let packed = lz4_flex::block::compress(bytes);
        let length = u32::try_from(packed.len()).ok()?;
        let mut frame = Vec::with_capacity(HEAD + packed.len());
        frame.extend(length.to_le_bytes());
        frame.extend(unpacked.to_le_bytes());
        frame.extend(xxh3_64(&packed).to_le_bytes());
        frame.extend(packed);
        Some(Self(frame))
    }

    /// How many bytes follow those that a frame begins with.
    ///
    /// # Errors
    /// [`FrameError::Damaged`]: no frame begins so.
    pub fn rest_of(head: &[u8; HEAD]) -> Result<usize, FrameError> {
        Ok(Head::parse(head)?.packed)
    }

    /// A frame of all its bytes; what they are worth, [`Self::unpack`] says.
    pub const fn of(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// As it lies in a file.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// What was packed.
    ///
    /// # Errors
    /// [`FrameError::Damaged`].
    pub fn unpack(&self) -> Result<Vec<u8>, FrameError> {
        let (head, packed) = self.0.split_at_checked(HEAD).ok_or(FrameError::Cut)?;
        let head = Head::parse(head)?;
        if xxh3_64(packed) != head.hash {
            return Err(FrameError::Damaged("its checksum is another"));
        }
        let unpacked = lz4_flex::block::decompress(packed, head.unpacked);
        let unpacked = unpacked.map_err(|_| FrameError::Damaged("it cannot be unpacked"))?;
        if unpacked.len() != head.unpacked {
            return Err(FrameError::Damaged("it has another length than it says"));
        }
        Ok(unpacked)
    }
}

struct Head {
    packed: usize,
    unpacked: usize,
    hash: u64,
}

impl Head {
    fn parse(bytes: &[u8]) -> Result<Self, FrameError> {
        let (Some((packed, rest)), Some(hash)) = (bytes.split_first_chunk::<4>(), bytes.last_chunk::<8>()) else {
            return Err(FrameError::Cut);
        };
        let Some(unpacked) = rest.first_chunk::<4>() else {
            return Err(FrameError::Cut);
        };
        let length = |bytes: &[u8; 4]| usize::try_from(u32::from_le_bytes(*bytes)).unwrap_or(usize::MAX);
        let (packed, unpacked) = (length(packed), length(unpacked));
        // LZ4 packs to 1/255 at best, and expands by 1/255 and a few bytes at worst.
        if unpacked > MOST || packed > MOST + MOST / 255 + 64 || unpacked / 256 > packed {
            return Err(FrameError::Damaged("no frame has such a length"));
        }
        let hash = u64::from_le_bytes(*hash);
        Ok(Self { packed, unpacked, hash })
    }
}

/// Reads frames one after the other.
#[derive(Debug)]
pub struct FrameReader<R> {
    input: R,
    /// Bytes up to the end of the last whole frame.
    read: u64,
}

impl<R: Read> FrameReader<R> {
    /// Nothing read yet.
    pub const fn new(input: R) -> Self {
        Self { input, read: 0 }
    }

    /// Bytes of whole frames so far.
    pub const fn position(&self) -> u64 {
        self.read
    }

    /// The next frame; `None` at the end.
    ///
    /// # Errors
    /// [`FrameError`]; after one of them nothing more is to be had.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let mut bytes = Vec::with_capacity(HEAD);
        match self.take(HEAD, &mut bytes)? {
            0 => return Ok(None),
            HEAD => {}
            _ => return Err(FrameError::Cut),
        }
        let head = Head::parse(&bytes)?;
        // As much memory as there is to read, whatever the frame says of itself.
        if self.take(head.packed, &mut bytes)? < head.packed {
            return Err(FrameError::Cut);
        }
        self.read += bytes.len() as u64;
        Ok(Some(Frame(bytes)))
    }

    fn take(&mut self, most: usize, bytes: &mut Vec<u8>) -> io::Result<usize> {
        self.input.by_ref().take(most as u64).read_to_end(bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(bytes: &[u8]) -> (Vec<Vec<u8>>, Option<FrameError>) {
        let mut reader = FrameReader::new(bytes);
        let mut frames = Vec::new();
        loop {
            match reader
                .next_frame()
                .and_then(|frame| frame.map(|frame| frame.unpack()).transpose())
            {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => return (frames, None),
                Err(error) => return (frames, Some(error)),
            }
        }
    }

    proptest! {
        #[test]
        fn frames_come_back_and_a_cut_leaves_those_before_it(
            frames in proptest::collection::vec(proptest::collection::vec(0u8..4, 0..2000), 1..6),
            cut in any::<proptest::sample::Index>(),
        ) {
            let packed: Vec<Frame> = frames.iter().map(|frame| Frame::pack(frame).unwrap()).collect();
            let bytes: Vec<u8> = packed.iter().flat_map(|frame| frame.bytes().to_vec()).collect();
            let (read, error) = all(&bytes);
            prop_assert_eq!(&read, &frames);
            prop_assert!(error.is_none());
            let cut = cut.index(bytes.len());
            let (read, error) = all(&bytes[..cut]);
            let mut ends = packed.iter().scan(0, |end, frame| { *end += frame.bytes().len(); Some(*end) });
            let whole = ends.clone().filter(|end| *end <= cut).count();
            prop_assert_eq!(&read[..], &frames[..whole]);
            prop_assert_eq!(error.is_none(), cut == 0 || ends.any(|end| end == cut));
        }

        #[test]
        fn a_byte_that_changed_is_noticed(bytes in proptest::collection::vec(any::<u8>(), 1..300), at in any::<proptest::sample::Index>(), with in 1u8..) {
            let mut frame = Frame::pack(&bytes).unwrap().bytes().to_vec();
            let at = at.index(frame.len());
            frame[at] ^= with;
            let (read, error) = all(&frame);
            prop_assert!(read.is_empty() && error.is_some());
        }

        #[test]
        fn no_bytes_make_the_reader_panic_or_take_more_memory_than_there_is(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = all(&bytes);
        }
    }
}
