//! Quantities and names that every stage shares: sizes, ranges, file identities and versions, rates.
//!
//! Pure values; parsing and printing of sizes and names is here so that every command reads and writes them alike.

mod ranges;

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

pub use self::ranges::Ranges;

/// Bytes of one warming step: see [`nitro_common::STEP_BYTES`].
pub const STEP: u64 = nitro_common::STEP_BYTES;

/// A number of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ByteCount(pub u64);

impl fmt::Display for ByteCount {
    /// Three significant digits and a binary unit: `1.99 GiB`, `512 MiB`, `0 B`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
        let (mut value, mut unit) = (self.0 as f64, 0);
        // 999.5 and not 1024: "1000 MiB" would be a fourth digit.
        while value >= 999.5 && unit + 1 < UNITS.len() {
            value /= 1024.0;
            unit += 1;
        }
        let digits = if unit == 0 || value >= 99.95 || value == value.trunc() {
            0
        } else if value >= 9.995 {
            1
        } else {
            2
        };
        f.pad(&format!("{value:.digits$} {}", UNITS[unit]))
    }
}

/// A size on the command line: bytes, or a share of something the caller knows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Size {
    /// So many bytes.
    Bytes(ByteCount),
    /// A share of memory, 0–100.
    Percent(f64),
}

impl Size {
    /// The size in bytes, where a percentage is one of `whole`.
    pub fn of(self, whole: ByteCount) -> ByteCount {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Percent(percent) => ByteCount((whole.0 as f64 * percent / 100.0) as u64),
        }
    }
}

/// Why a size could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// No unit: 8 could be bytes or gigabytes.
    #[error("{0:?} has no unit: write {0}GiB, {0}MiB or {0}%")]
    NoUnit(String),
    /// Not a number with a unit.
    #[error("{0:?} is not a size: write for example 8GiB, 512M or 25%")]
    Malformed(String),
    /// Negative, above 100 %, or more than 2^64 bytes.
    #[error("{0:?} is out of range")]
    OutOfRange(String),
}

impl FromStr for Size {
    type Err = SizeError;

    /// `8GiB`, `8G` (the same), `8GB` (10^9), `512M`, `1.5T`, `25%`. A bare number is an error that suggests the unit.
    fn from_str(text: &str) -> Result<Self, SizeError> {
        let trimmed = text.trim();
        let split = trimmed
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at(split);
        let number: f64 = number.parse().map_err(|_| SizeError::Malformed(text.into()))?;
        let scale = match unit.trim().to_ascii_lowercase().as_str() {
            // Nothing is nothing in any unit.
            "" if number == 0.0 => return Ok(Self::Bytes(ByteCount(0))),
            "" => return Err(SizeError::NoUnit(trimmed.into())),
            "%" if number <= 100.0 => return Ok(Self::Percent(number)),
            "%" => return Err(SizeError::OutOfRange(text.into())),
            "b" => 1.0,
            "k" | "kib" => 1024.0,
            "m" | "mib" => 1_048_576.0,
            "g" | "gib" => 1_073_741_824.0,
            "t" | "tib" => 1_099_511_627_776.0,
            "kb" => 1e3,
            "mb" => 1e6,
            "gb" => 1e9,
            "tb" => 1e12,
            _ => return Err(SizeError::Malformed(text.into())),
        };
        let bytes = number * scale;
        if bytes >= u64::MAX as f64 {
            return Err(SizeError::OutOfRange(text.into()));
        }
        Ok(Self::Bytes(ByteCount(bytes as u64)))
    }
}

/// Identity of a file as the kernel's page cache knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FileId {
    /// `super_block.s_dev`: major << 20 | minor. Not `st_dev`, which differs on btrfs and overlayfs.
    pub device: u32,
    /// Inode number.
    pub inode: u64,
}

/// What distinguishes one content of a file from the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FileVersion {
    /// Which file.
    pub file: FileId,
    /// `i_generation`, 0 where the file system has none or it was not asked for.
    pub generation: u32,
    /// Size in bytes.
    pub size: u64,
    /// Last modification, nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Last change of the inode, nanoseconds since 1970.
    pub ctime_ns: i64,
}

/// A range of bytes in a file: `start..end`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ByteRange {
    /// First byte.
    pub start: u64,
    /// Byte after the last.
    pub end: u64,
}

impl ByteRange {
    /// The range of `length` bytes from `start`, ending at the largest offset where it would pass it.
    pub const fn new(start: u64, length: u64) -> Self {
        Self {
            start,
            end: start.saturating_add(length),
        }
    }
    /// The range of step `step` in a file of `size` bytes; empty past the end.
    pub fn of_step(step: u64, size: u64) -> Self {
        let start = step.saturating_mul(STEP).min(size);
        Self {
            start,
            end: start.saturating_add(STEP).min(size),
        }
    }
    /// What it has in common with another one; empty where that is nothing.
    pub fn common(self, other: Self) -> Self {
        Self {
            start: self.start.max(other.start),
            end: self.end.min(other.end),
        }
    }
    /// Its length in bytes.
    pub const fn len(self) -> u64 {
        self.end.saturating_sub(self.start)
    }
    /// Whether it holds no byte.
    pub const fn is_empty(self) -> bool {
        self.end <= self.start
    }
    /// The steps it touches.
    pub const fn steps(self) -> std::ops::Range<u64> {
        if self.is_empty() {
            self.start / STEP..self.start / STEP
        } else {
            self.start / STEP..(self.end - 1) / STEP + 1
        }
    }
}

/// A pin: what is held in memory of one file. Whoever asks for it chooses the number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PinId(pub u64);

/// A throughput.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Rate(pub f64);

impl Rate {
    /// `bytes` in `time`; 0 for no time.
    pub fn over(bytes: u64, time: Duration) -> Self {
        if time.is_zero() {
            Self(0.0)
        } else {
            Self(bytes as f64 / time.as_secs_f64())
        }
    }
    /// What it moves in `time`.
    pub fn during(self, time: Duration) -> u64 {
        (self.0.max(0.0) * time.as_secs_f64()) as u64
    }

    /// How long it takes for `bytes`; 30 years at most, and for no rate.
    pub fn time_of(self, bytes: u64) -> Duration {
        let seconds = bytes as f64 / self.0;
        Duration::from_secs_f64(if seconds.is_finite() {
            seconds.clamp(0.0, 1e9)
        } else {
            1e9
        })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/s", ByteCount(self.0.max(0.0) as u64)))
    }
}

/// A moment of the monotonic clock, in nanoseconds: the clock of the eBPF events, so that the engine needs no other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Moment(pub u64);

impl Moment {
    /// Time from `earlier` to here; zero when `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
    /// The moment `time` later.
    pub fn after(self, time: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}

/// A name from the disk or from another process, safe for a terminal: what would move its cursor, end the line or turn the text around is
/// shown as `?`.
pub fn printable(name: &str) -> String {
    let harmful = |letter: char| {
        letter.is_control()
            || matches!(letter, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    name.chars()
        .map(|letter| if harmful(letter) { '?' } else { letter })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_their_unit() {
        assert_eq!("8GiB".parse(), Ok(Size::Bytes(ByteCount(8 << 30))));
        assert_eq!("8G".parse(), Ok(Size::Bytes(ByteCount(8 << 30))));
        assert_eq!("512M".parse(), Ok(Size::Bytes(ByteCount(512 << 20))));
        assert_eq!("1.5k".parse(), Ok(Size::Bytes(ByteCount(1536))));
        assert_eq!("2GB".parse(), Ok(Size::Bytes(ByteCount(2_000_000_000))));
        assert_eq!("25%".parse(), Ok(Size::Percent(25.0)));
    }

    #[test]
    fn a_bare_number_is_an_error_that_suggests_the_unit() {
        let error = "8".parse::<Size>().unwrap_err();
        assert!(error.to_string().contains("8GiB"), "{error}");
        for bad in ["", "G", "-1G", "8X", "101%", "1e3G", "99999999999999T", "8 G iB", "..G"] {
            assert!(bad.parse::<Size>().is_err(), "{bad:?} was read as a size");
        }
    }

    #[test]
    fn sizes_print_with_three_digits() {
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "0.98 KiB"),
            (1 << 30, "1 GiB"),
            (2_140_000_000, "1.99 GiB"),
            (1023 << 20, "1.00 GiB"),
        ] {
            assert_eq!(ByteCount(bytes).to_string(), text);
        }
    }

    #[test]
    fn nothing_in_a_name_moves_the_cursor_or_turns_the_text() {
        let name = "a\u{1b}[31mb\nc\u{9b}d\u{202e}e\u{7f}\u{2028}é模";
        assert_eq!(printable(name), "a?[31mb?c?d?e??é模");
    }

    #[test]
    fn steps_cover_a_range_and_stop_at_the_end() {
        assert_eq!(ByteRange::new(0, 1).steps(), 0..1);
        assert_eq!(ByteRange::new(STEP - 1, 2).steps(), 0..2);
        assert!(ByteRange::new(5, 0).steps().is_empty());
        assert_eq!(
            ByteRange::of_step(1, STEP + 10),
            ByteRange {
                start: STEP,
                end: STEP + 10
            }
        );
        assert!(ByteRange::of_step(9, STEP).is_empty());
    }
}
