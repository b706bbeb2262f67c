//! Warnings about what the catalog found, rate-limited: the files are other people's, and so is their number.
//!
//! In: occurrences. Out: lines for the log, each kind or file once, and never more than a few at a time.

use std::collections::HashSet;

/// Lines kept between two collections; more are counted only.
const MOST_LINES: usize = 32;
/// Kinds and files remembered as said; beyond it nothing new is said.
const MOST_REMEMBERED: usize = 4096;

/// What is to be said, and what was.
#[derive(Debug, Default)]
pub(super) struct Warnings {
    lines: Vec<String>,
    suppressed: usize,
    said: HashSet<String>,
}

impl Warnings {
    /// Says `text` the first time that `key` occurs.
    pub fn once(&mut self, key: &str, text: impl FnOnce() -> String) {
        if self.said.contains(key) {
            return;
        }
        if self.said.len() < MOST_REMEMBERED {
            self.said.insert(key.to_owned());
            self.say(text);
        }
    }

    /// Says `text`, unless too much is said already.
    pub fn say(&mut self, text: impl FnOnce() -> String) {
        if self.lines.len() < MOST_LINES {
            self.lines.push(text())
        } else {
            self.suppressed += 1
        }
    }

    /// The lines since the last call.
    pub fn take(&mut self) -> Vec<String> {
        let mut lines = std::mem::take(&mut self.lines);
        if self.suppressed > 0 {
            lines.push(format!(
                "and {} more warnings about the watched files",
                std::mem::take(&mut self.suppressed)
            ));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_refusals_is_a_few_lines() {
        let mut warnings = Warnings::default();
        for number in 0..10_000 {
            warnings.once(&format!("file {number}"), || format!("refused {number}"));
            warnings.once("file 0", || "again".into());
        }
        let lines = warnings.take();
        assert_eq!(lines.len(), MOST_LINES + 1);
        assert!(
            lines.last().is_some_and(|line| line.contains("more warnings")),
            "{lines:?}"
        );
        assert!(warnings.take().is_empty());
    }
}
