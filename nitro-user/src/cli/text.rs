//! Text for terminals: how wide, how long names are shortened, how long lines are folded. Pure, but for asking how wide the terminal is.

use std::{
    io::{IsTerminal, Stdout},
    os::{fd::AsFd, unix::fs::MetadataExt},
};

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::sys::terminal;

/// What is written to, as far as it matters for how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Columns; `None` where nothing limits them: a file, a pipe.
    pub columns: Option<usize>,
    /// Whether colour is welcome: on a terminal, unless NO_COLOR is set to something or the terminal is a dumb one.
    pub color: bool,
}

impl Look {
    /// How to write to standard output now.
    pub fn of(stdout: &Stdout) -> Self {
        if !stdout.is_terminal() {
            return Self {
                columns: None,
                color: false,
            };
        }
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|terminal| terminal == "dumb");
        Self {
            columns: terminal::columns(stdout.as_fd()),
            color: !no_color && !dumb,
        }
    }

    /// `text` in `color` (the numbers of an SGR sequence), or as it is.
    pub fn paint(self, text: &str, color: &str) -> String {
        if self.color {
            format!("\u{1b}[{color}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }
}

/// Whether what is written goes to a service manager rather than to somebody who watches: into its journal, or from a service that it waits for.
///
/// `INVOCATION_ID` says nothing: a terminal that systemd has started has it as well, and hands it down to whatever is typed there.
pub fn of_a_service(stdout: &Stdout) -> bool {
    if stdout.is_terminal() {
        return false;
    }
    let journal = std::env::var("JOURNAL_STREAM").unwrap_or_default();
    let file = stdout.as_fd().try_clone_to_owned().map(std::fs::File::from);
    let names = file
        .and_then(|file| file.metadata())
        .is_ok_and(|file| journal == format!("{}:{}", file.dev(), file.ino()));
    names || std::env::var_os("NOTIFY_SOCKET").is_some()
}

/// Columns that `text` takes.
pub fn width(text: &str) -> usize {
    text.width()
}

/// `text`, and blanks up to `columns`.
pub fn pad(text: &str, columns: usize) -> String {
    let blanks = columns.saturating_sub(width(text));
    format!("{text}{:blanks$}", "")
}

/// `text`, with blanks before it, in `columns`.
pub fn pad_left(text: &str, columns: usize) -> String {
    let blanks = columns.saturating_sub(width(text));
    format!("{:blanks$}{text}", "")
}

/// A name in at most `most` columns: what is too long loses its middle, since names begin with whose they are and end with what they are.
pub fn shorten(name: &str, most: usize) -> String {
    if width(name) <= most {
        return name.to_owned();
    }
    let room = most.saturating_sub(1);
    let mut start = String::new();
    for letter in name.chars() {
        if width(&start) + letter.width().unwrap_or(0) > room.div_ceil(2) {
            break;
        }
        start.push(letter);
    }
    let mut end: Vec<char> = Vec::new();
    let mut taken = width(&start);
    for letter in name.chars().rev() {
        taken += letter.width().unwrap_or(0);
        if taken > room {
            break;
        }
        end.push(letter);
    }
    start.push('…');
    start.extend(end.iter().rev());
    start
}

/// `program[4711]` in at most `most` columns: the number stays whole.
pub fn program(name: Option<&str>, pid: u32, most: usize) -> String {
    let pid = format!("[{pid}]");
    let name = crate::units::printable(name.unwrap_or("?"));
    format!("{}{pid}", shorten(&name, most.saturating_sub(pid.len()).max(2)))
}

/// `text` after `lead`, folded between words to `columns`, the lines after the first indented by the width of `lead`.
pub fn fold(lead: &str, text: &str, columns: Option<usize>) -> String {
    let indent = width(lead);
    let Some(columns) = columns.filter(|columns| *columns > indent + 20) else {
        return format!("{lead}{text}");
    };
    let (mut out, mut at) = (lead.to_owned(), indent);
    for word in words(text) {
        let wide = width(&word);
        if at > indent && at + 1 + wide > columns {
            out.push('\n');
            out.push_str(&" ".repeat(indent));
            at = indent;
        } else if at > indent {
            out.push(' ');
            at += 1;
        }
        out.push_str(&word);
        at += wide;
    }
    out
}

/// The words of `text`; a number and its unit are one.
fn words(text: &str) -> Vec<String> {
    const UNITS: [&str; 9] = ["%", "s", "B", "KiB", "MiB", "GiB", "TiB", "KiB/s", "MiB/s"];
    let mut words: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        let unit = UNITS.contains(&word.trim_end_matches([',', '.', ':']));
        match words.last_mut() {
            Some(number) if unit && number.ends_with(|letter: char| letter.is_ascii_digit()) => {
                number.push(' ');
                number.push_str(word);
            }
            _ => words.push(word.to_owned()),
        }
    }
    words
}

/// `2 h 5 min`, `3 min 20 s`, `12 s`.
pub fn duration(seconds: f64) -> String {
    let seconds = seconds.max(0.0) as u64;
    match (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, seconds) => format!("{seconds} s"),
        (0, 0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (0, hours, minutes, _) => format!("{hours} h {minutes} min"),
        (days, hours, ..) => format!("{days} d {hours} h"),
    }
}

/// Layouts with the number of their models, most first: `9 ollama, 2 gguf`.
pub fn layouts(models: &std::collections::BTreeMap<String, u64>) -> String {
    let mut models: Vec<_> = models.iter().filter(|(_, count)| **count > 0).collect();
    models.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let models = models
        .iter()
        .map(|(layout, count)| format!("{count} {}", crate::units::printable(layout)));
    models.collect::<Vec<_>>().join(", ")
}

/// `1 file`, `96 files`.
pub fn files(files: u64) -> String {
    if files == 1 {
        "1 file".to_owned()
    } else {
        format!("{files} files")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn long_names_lose_their_middle() {
        assert_eq!(shorten("llama3:8b", 9), "llama3:8b");
        assert_eq!(shorten("org/some-very-long-name-Q4_K_M.gguf", 16), "org/some…_M.gguf");
        assert_eq!(shorten("模型模型模型", 7), "模…模型".to_owned());
    }

    #[test]
    fn a_process_id_is_never_cut() {
        assert_eq!(program(Some("llama-server"), 4711, 14), "llam…ver[4711]");
        assert_eq!(program(None, 1, 14), "?[1]");
        assert_eq!(program(Some("a\u{1b}[2Jb"), 1, 14), "a?[2Jb[1]");
    }

    #[test]
    fn long_text_is_folded_below_itself() {
        assert_eq!(fold("why   ", "one two", None), "why   one two");
        assert_eq!(
            fold("why   ", "a word more than there is room for here", Some(30)),
            "why   a word more than there\n      is room for here"
        );
    }

    #[test]
    fn a_number_stays_with_its_unit() {
        assert_eq!(
            fold("", "these are 12 % of some 31 MiB, late", Some(23)),
            "these are 12 % of some\n31 MiB, late"
        );
        assert_eq!(words("took 2.31 s, or so"), ["took", "2.31 s,", "or", "so"]);
    }

    #[test]
    fn layouts_are_listed_most_first() {
        let models = [("gguf", 2), ("ollama", 9), ("single", 0)].map(|(name, count)| (name.to_owned(), count));
        assert_eq!(layouts(&models.into()), "9 ollama, 2 gguf");
    }

    #[test]
    fn durations_have_two_units_at_most() {
        assert_eq!(duration(12.9), "12 s");
        assert_eq!(duration(200.0), "3 min 20 s");
        assert_eq!(duration(7_500.0), "2 h 5 min");
        assert_eq!(duration(200_000.0), "2 d 7 h");
    }

    proptest! {
        #[test]
        fn a_shortened_name_never_exceeds_its_columns(name in "\\PC{0,40}", most in 1usize..30) {
            prop_assert!(width(&shorten(&name, most)) <= most.max(1));
        }
    }
}
