//! How sure we are that a load is coming.

use serde::{Deserialize, Serialize};

use super::input::{Access, AccessKind};
use crate::units::STEP;

/// Why we believe in a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Evidence {
    /// Its header was read, as listing models does: weak, warms nothing.
    Header,
    /// A command line names it: opens an unconfirmed window.
    CommandLine,
    /// It was read beyond the header: strong.
    Progress,
}

/// Tools read a header in buffers: the last one reaches beyond it, by as much as the largest of them.
const BUFFER: u64 = 1 << 20;

/// What an access beyond doubt tells of a file whose first `header` bytes are read by mere listing (0: unknown).
///
/// Beyond a known header a single access is progress: nobody lists models that way. Where the header is not known, the reader must come
/// in order as far as the second step, or walk somewhere: a format's probe reads the first bytes and perhaps the last.
pub fn of_access(access: &Access, header: u64) -> Evidence {
    if matches!(access.kind, AccessKind::Open | AccessKind::Map | AccessKind::Brought) {
        return Evidence::Header;
    }
    let beyond = if header > 0 {
        access.range.start >= header || (access.in_order && access.range.end > header + BUFFER)
    } else {
        access.range.start >= STEP && !access.jump || access.in_order && access.range.end > 64 << 10
    };
    if beyond { Evidence::Progress } else { Evidence::Header }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::{ByteRange, FileId, Moment};

    fn read(start: u64, length: u64, jump: bool, in_order: bool) -> Access {
        let file = FileId { device: 1, inode: 1 };
        let range = ByteRange::new(start, length);
        Access {
            at: Moment(0),
            process: 1,
            thread: 1,
            file,
            generation: 0,
            range,
            kind: AccessKind::Read,
            jump,
            in_order,
            written: false,
        }
    }

    #[test]
    fn a_header_read_is_weak() {
        assert_eq!(of_access(&read(0, 4096, false, false), 7 << 20), Evidence::Header);
        assert_eq!(of_access(&read(6 << 20, 4096, false, true), 7 << 20), Evidence::Header);
        // The last page of the header, and the last buffer: both hold the first bytes of the data.
        assert_eq!(of_access(&read(28 << 10, 4096, false, true), 30_000), Evidence::Header);
        assert_eq!(
            of_access(&read(6 << 20, 1 << 20, false, true), (7 << 20) - 100),
            Evidence::Header
        );
    }

    #[test]
    fn an_access_beyond_a_known_header_is_strong() {
        assert_eq!(
            of_access(&read(90 << 20, 4096, true, false), 7 << 20),
            Evidence::Progress
        );
    }

    #[test]
    fn without_a_known_header_the_reader_must_walk() {
        assert_eq!(of_access(&read(90 << 20, 4096, true, false), 0), Evidence::Header);
        assert_eq!(of_access(&read(STEP, 4096, false, false), 0), Evidence::Progress);
        assert_eq!(
            of_access(&read(90 << 20, 128 << 10, false, true), 0),
            Evidence::Progress
        );
    }
}
