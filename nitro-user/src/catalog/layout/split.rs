//! Names of parts: `<prefix>-00001-of-00004.<extension>`, as llama.cpp and the Hugging Face libraries write them.

use std::path::{Path, PathBuf};

use super::MOST_PARTS;

/// The pieces of such a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Split<'a> {
    /// All before the numbers.
    pub prefix: &'a [u8],
    /// Digits of the part's number: zeros are part of the name.
    pub width: usize,
    /// Which part, from 1 (llama.cpp, transformers) or 0 (some others).
    pub number: u32,
    /// `-of-00004` and all after it.
    pub rest: &'a [u8],
    /// How many parts there are.
    pub total: u32,
}

/// Takes a name apart; `None` when it is not such a name, or claims more parts than [`MOST_PARTS`].
pub fn parse(name: &[u8]) -> Option<Split<'_>> {
    let stem = &name[..name.iter().rposition(|byte| *byte == b'.').unwrap_or(name.len())];
    let (before, total) = trailing_number(stem)?;
    let stem_without = before.strip_suffix(b"-of-")?;
    let (prefix, number) = trailing_number(stem_without)?;
    let width = stem_without.len() - prefix.len();
    let prefix = prefix.strip_suffix(b"-")?;
    let fits = number <= total && total >= 1 && total as usize <= MOST_PARTS;
    fits.then_some(Split {
        prefix,
        width,
        number,
        rest: &name[stem_without.len()..],
        total,
    })
}

/// The part of a name that all parts of its series share: the prefix, or the whole name when it is no part.
pub fn series_of(name: &[u8]) -> &[u8] {
    parse(name).map_or(name, |split| split.prefix)
}

impl Split<'_> {
    /// The paths of all parts in the directory of `path`, in order.
    pub fn all(&self, path: &Path) -> Vec<PathBuf> {
        let directory = path.parent().unwrap_or(Path::new(""));
        (0..=self.total)
            .map(|number| directory.join(self.name(number)))
            .collect()
    }

    fn name(&self, number: u32) -> std::ffi::OsString {
        let width = self.width;
        let number = format!("-{number:0width$}");
        std::os::unix::ffi::OsStringExt::from_vec([self.prefix, number.as_bytes(), self.rest].concat())
    }
}

/// The number at the end of `text`, of at most nine digits, and what is before it.
fn trailing_number(text: &[u8]) -> Option<(&[u8], u32)> {
    let start = text
        .iter()
        .rposition(|byte| !byte.is_ascii_digit())
        .map_or(0, |at| at + 1);
    let digits = &text[start..];
    if digits.is_empty() || digits.len() > 9 {
        return None;
    }
    Some((
        &text[..start],
        digits
            .iter()
            .fold(0, |number, digit| number * 10 + u32::from(digit - b'0')),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pieces_of_a_name_make_the_name_again() {
        for name in [
            "m-00002-of-00003.gguf",
            "model-00001-of-00001.safetensors",
            "a-b-1-of-9.bin",
            "x-01-of-02",
        ] {
            let split = parse(name.as_bytes()).unwrap();
            assert_eq!(split.name(split.number), *name);
            assert!(split.all(Path::new("/d/x")).contains(&Path::new("/d").join(name)));
        }
        assert_eq!(series_of(b"m-00002-of-00003.gguf"), b"m");
    }

    #[test]
    fn other_names_are_not_parts() {
        for name in [
            "",
            "-of-",
            "m.gguf",
            "m-00004-of-00003.gguf",
            "m-1-of-0.gguf",
            "m-1-of-99999.gguf",
            "1-of-2.gguf",
        ] {
            assert_eq!(parse(name.as_bytes()), None, "{name}");
        }
        assert_eq!(parse(b"m-12345678901-of-12345678901.gguf"), None);
    }
}
