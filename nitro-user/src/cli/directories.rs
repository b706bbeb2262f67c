//! The watched directories as lines: at the start, in `status`, and when one is found.
//!
//! In: what is known of them. Out: lines with their labels, aligned.

use super::text;
use crate::{
    observe::status::{AutoStatus, DirectoryStatus},
    units::printable,
};

/// What is watched, one line for each directory; with `--watch auto` also what is in it, why it is watched, and what was left out.
pub fn lines(
    roots: &[String],
    directories: &[DirectoryStatus],
    auto: Option<&AutoStatus>,
) -> Vec<(&'static str, String)> {
    let mut lines = Vec::new();
    let mut say = |label, of: Vec<String>| {
        let labels = std::iter::once(label).chain(std::iter::repeat(""));
        lines.extend(labels.zip(of));
    };
    match auto {
        Some(auto) => {
            say("watching", rows(directories));
            if directories.is_empty() {
                let text =
                    "nothing yet: what comes to the usual places, or is named by a program that starts, is picked up";
                say("watching", vec![text.to_owned()]);
            }
            say("looked at", vec![looked_at(auto)]);
            let left_out = auto.not_watched.iter();
            let left_out = left_out.map(|not| format!("{} ({}) {}", not.path, not.why, not.reason));
            say("left out", left_out.collect());
        }
        None => {
            let missing = |root: &String| directories.iter().find(|other| other.path == *root && !other.present);
            let name = |root: &String| match missing(root) {
                Some(directory) => format!("{root} ({})", absence(directory)),
                None => root.clone(),
            };
            say("watching", roots.iter().map(name).collect());
            if roots.is_empty() {
                say("watching", vec!["nothing".to_owned()]);
            }
        }
    }
    lines
}

/// Why nothing of a directory is known.
const fn absence(directory: &DirectoryStatus) -> &'static str {
    if directory.refused {
        "root is refused there"
    } else {
        "not there"
    }
}

/// A line for each directory: where, what is in it, why it is watched.
pub fn rows(directories: &[DirectoryStatus]) -> Vec<String> {
    let rows: Vec<[String; 4]> = directories
        .iter()
        .map(|directory| {
            let count = |number: Option<u64>, one: &str, many: &str| match number {
                Some(1) => format!("1 {one}"),
                Some(number) => format!("{number} {many}"),
                None => String::new(),
            };
            let bytes = match (directory.present, directory.bytes) {
                (false, _) => absence(directory).to_owned(),
                (true, Some(bytes)) => bytes.to_string(),
                (true, None) => "in another".to_owned(),
            };
            [
                printable(&directory.path),
                count(directory.models, "model", "models"),
                bytes,
                printable(directory.why.as_deref().unwrap_or("--watch")),
            ]
        })
        .collect();
    let width = |column: usize| rows.iter().map(|row| text::width(&row[column])).max().unwrap_or(0);
    let widths = [width(0), width(1), width(2)];
    let line = |row: &[String; 4]| {
        let [path, models, bytes, why] = row;
        let (models, bytes) = (text::pad_left(models, widths[1]), text::pad_left(bytes, widths[2]));
        format!("{}  {models}  {bytes}  {why}", text::pad(path, widths[0]))
    };
    rows.iter().map(line).collect()
}

/// `the environment of 212 processes and 3 homes`.
fn looked_at(auto: &AutoStatus) -> String {
    let count = |number: u64, one: &str, many: &str| format!("{number} {}", if number == 1 { one } else { many });
    let (processes, homes) = (
        count(auto.processes, "process", "processes"),
        count(auto.homes, "home", "homes"),
    );
    format!("what {processes} say, {homes}, the places of system services")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{observe::status::NotWatchedStatus, units::ByteCount};

    fn directory(path: &str, models: u64, bytes: u64, why: Option<&str>) -> DirectoryStatus {
        DirectoryStatus {
            path: path.into(),
            present: true,
            refused: false,
            why: why.map(str::to_owned),
            models: Some(models),
            files: Some(1),
            bytes: Some(ByteCount(bytes)),
        }
    }

    #[test]
    fn columns_are_aligned_and_control_no_terminal() {
        let gone = DirectoryStatus {
            present: false,
            ..directory("/data", 0, 0, None)
        };
        let rows = rows(&[
            directory(
                "/usr/share/ollama/.ollama/models",
                12,
                80 << 30,
                Some("Ollama of user ollama"),
            ),
            directory("/m\u{1b}", 1, 4096, Some("OLLAMA_MODELS of x\n (pid 8)")),
            gone,
        ]);
        assert_eq!(
            rows,
            [
                "/usr/share/ollama/.ollama/models  12 models     80 GiB  Ollama of user ollama",
                "/m?                                 1 model      4 KiB  OLLAMA_MODELS of x? (pid 8)",
                "/data                              0 models  not there  --watch",
            ]
        );
    }

    #[test]
    fn nothing_found_says_where_was_looked() {
        let auto = AutoStatus {
            processes: 1,
            homes: 2,
            not_watched: vec![NotWatchedStatus {
                path: "/".into(),
                why: "HF_HOME of x (pid 1)".into(),
                reason: "holds much else".into(),
            }],
        };
        let lines = lines(&[], &[], Some(&auto));
        assert!(lines[0].0 == "watching" && lines[0].1.starts_with("nothing yet"));
        assert!(lines[1].0 == "looked at" && lines[1].1.contains("1 process ") && lines[1].1.contains("2 homes"));
        assert_eq!(
            lines[2],
            ("left out", "/ (HF_HOME of x (pid 1)) holds much else".to_owned())
        );
    }

    #[test]
    fn without_auto_it_is_a_line_for_each_root() {
        let gone = DirectoryStatus {
            present: false,
            ..directory("/b", 0, 0, None)
        };
        let refused = DirectoryStatus {
            refused: true,
            path: "/c".into(),
            ..gone.clone()
        };
        let directories = [directory("/a", 1, 1, None), gone, refused];
        let lines = lines(&["/a".into(), "/b".into(), "/c".into()], &directories, None);
        let lines: Vec<&str> = lines.iter().map(|(_, line)| line.as_str()).collect();
        assert_eq!(lines, ["/a", "/b (not there)", "/c (root is refused there)"]);
    }
}
