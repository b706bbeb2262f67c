//! Plain reads, for file systems on which readahead brings nothing in.

use std::{fs::File, io, os::unix::fs::FileExt};

use super::Warmer;
use crate::units::ByteRange;

/// Bytes per read.
const BUFFER: usize = 1 << 20;

/// Reads into a buffer of its own.
#[derive(Default)]
pub struct Read {
    buffer: Vec<u8>,
}

impl Warmer for Read {
    fn submit(&mut self, file: &File, range: ByteRange) -> io::Result<()> {
        self.buffer.resize(BUFFER, 0);
        let mut at = range.start;
        while at < range.end {
            let most = usize::try_from(range.end - at).unwrap_or(BUFFER).min(BUFFER);
            match file.read_at(&mut self.buffer[..most], at) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => at += count as u64,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn wait(&mut self, _file: &File, _range: ByteRange) -> io::Result<()> {
        Ok(())
    }
}
