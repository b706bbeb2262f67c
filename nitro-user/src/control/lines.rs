//! Reading lines whose length is bounded: a line without an end must not take memory without one.

use std::io;

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt};

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    /// A line, with its newline unless the other side ended without one.
    Whole(Vec<u8>),
    /// More than the bound without a newline; the rest was not read.
    TooLong,
    /// The other side ended.
    End,
}

/// Reads one line of at most `most` bytes.
///
/// # Errors
/// The connection failed.
pub async fn read(from: &mut (impl AsyncBufRead + Unpin), most: usize) -> io::Result<Line> {
    let mut line = Vec::new();
    let read = from.take(most as u64).read_until(b'\n', &mut line).await?;
    Ok(if read == 0 {
        Line::End
    } else if line.ends_with(b"\n") || read < most {
        Line::Whole(line)
    } else {
        Line::TooLong
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_end_at_the_newline_at_the_end_or_at_the_bound() {
        let mut from = &b"one\ntwo"[..];
        assert_eq!(read(&mut from, 10).await.unwrap(), Line::Whole(b"one\n".to_vec()));
        assert_eq!(read(&mut from, 10).await.unwrap(), Line::Whole(b"two".to_vec()));
        assert_eq!(read(&mut from, 10).await.unwrap(), Line::End);
        let mut long = &b"123456"[..];
        assert_eq!(read(&mut long, 4).await.unwrap(), Line::TooLong);
        let mut fits = &b"123\n"[..];
        assert_eq!(read(&mut fits, 4).await.unwrap(), Line::Whole(b"123\n".to_vec()));
    }
}
