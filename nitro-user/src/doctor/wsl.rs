//! Windows' virtual machine for Linux: how much memory it is given, and which drives of Windows are mounted.
//!
//! In: a machine's files. Out: facts and findings; none on any other machine.

use std::path::{Path, PathBuf};

use super::{
    file_systems::is_drive,
    finding::{Finding, Subject},
    machine::Machine,
};
use crate::{
    sys::mounts::{Mount, Mounts},
    units::ByteCount,
};

/// Homes of Windows users, and drives, that are looked at.
const MOST: usize = 32;

/// What a file sets.
type Settings = (PathBuf, Vec<(String, String)>);

/// What was found in such a machine.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The first version, which has no Linux kernel.
    pub first: bool,
    /// Settings of `.wslconfig` by section and name (`wsl2.memory`), in small letters, with the file; `None` where Windows did not answer.
    pub settings: Option<Vec<Settings>>,
    /// Where drives of Windows are mounted.
    pub drives: Vec<PathBuf>,
}

/// Looks at a machine; `None` where it is another one.
pub fn gather(machine: &Machine) -> Option<Facts> {
    let version = machine.text("/proc/version").unwrap_or_default().to_ascii_lowercase();
    // A kernel of the user's own making need not say whose machine it is.
    let is_one = version.contains("microsoft") || machine.has("/proc/sys/fs/binfmt_misc/WSLInterop");
    if !is_one {
        return None;
    }
    let mounts = machine.mounts();
    let drives: Vec<PathBuf> = drives(&mounts).map(|mount| mount.point.clone()).take(MOST).collect();
    // Windows is asked, which may take its time.
    let settings = machine.ask(&[()], |()| settings(machine, &drives)).pop().flatten();
    Some(Facts {
        first: version.starts_with("linux version 4.4.0-") && version.contains("microsoft"),
        settings,
        drives,
    })
}

fn drives(mounts: &Mounts) -> impl Iterator<Item = &Mount> {
    let all = mounts.below(Path::new("/"));
    all.filter(|mount| {
        matches!(mount.kind.as_str(), "9p" | "virtiofs" | "drvfs" | "wslfs")
            && is_drive(&mount.source, &String::from_utf8_lossy(&mount.options))
    })
}

/// The `.wslconfig` of every user of Windows who has one.
fn settings(machine: &Machine, drives: &[PathBuf]) -> Vec<Settings> {
    let mut found = Vec::new();
    for drive in drives {
        let users = drive.join("Users");
        for user in machine.names(&users, |_| true).into_iter().take(MOST) {
            let place = users.join(user).join(".wslconfig");
            if let Some(text) = machine.text(&place) {
                found.push((place, parse(&text)));
            }
        }
    }
    found
}

/// `section.name` and value, of the sections that matter.
fn parse(text: &str) -> Vec<(String, String)> {
    let mut section = String::new();
    let mut all = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = name.trim().to_ascii_lowercase();
        } else if matches!(section.as_str(), "wsl2" | "experimental")
            && let Some((name, value)) = line.split_once('=')
            && !line.starts_with('#')
        {
            let name = name.trim().to_ascii_lowercase();
            all.push((format!("{section}.{name}"), value.trim().to_owned()));
        }
    }
    all.truncate(MOST);
    all
}

/// What is to be said of it; `total` is the memory of the virtual machine in bytes.
pub fn findings(facts: Option<&Facts>, total: u64) -> Vec<Finding> {
    const WSL: Subject = Subject::Wsl;
    let Some(facts) = facts else {
        return Vec::new();
    };
    if facts.first {
        return vec![
            WSL.missing(
                "version",
                "WSL 1, which has no Linux kernel",
                "everything: there are neither eBPF programs nor fanotify",
                "wsl --set-version DISTRIBUTION 2, in Windows",
            )
            .essential(),
        ];
    }
    let mut all = vec![WSL.ok("version", "WSL 2")];
    let total = ByteCount(total);
    let setting = |wanted: &str| {
        let files = facts.settings.iter().flatten();
        let all = files.flat_map(|(place, settings)| settings.iter().map(move |(name, value)| (place, name, value)));
        let chosen = all.filter(|(_, name, _)| *name == wanted);
        chosen.map(|(place, _, value)| (place, value)).collect::<Vec<_>>()
    };
    let memory: Vec<String> = setting("wsl2.memory")
        .into_iter()
        .map(|(place, value)| format!("memory={value} in {}", place.display()))
        .collect();
    let remedy = "set memory= below [wsl2] in .wslconfig in your Windows home, then wsl --shutdown";
    all.push(if facts.settings.is_none() {
        WSL.info(
            "memory",
            format!("{total}; .wslconfig could not be read: Windows did not answer"),
        )
    } else if memory.is_empty() {
        WSL.info(
            "memory",
            format!("{total}: without memory= in a .wslconfig, half of what Windows has"),
        )
        .losing("models larger than that do not stay cached")
        .remedied(remedy)
    } else {
        WSL.info("memory", format!("{total}: {}", memory.join(", ")))
    });
    all.extend(reclaim(
        &setting("experimental.automemoryreclaim"),
        facts.settings.is_some(),
    ));
    if !facts.drives.is_empty() {
        let drives: Vec<_> = facts.drives.iter().map(|drive| drive.to_string_lossy()).collect();
        all.push(
            WSL.info("drives of Windows", drives.join(", "))
                .losing("most of the speed of a model that is kept there")
                .remedied("keep models in the Linux file system of WSL, below your home"),
        );
    }
    all
}

/// Whether Windows takes cached memory back. It reads this setting below `[experimental]` alone, and without it does so at once, in all versions of the last years.
fn reclaim(set: &[(&PathBuf, &String)], is_read: bool) -> Vec<Finding> {
    const NAME: &str = "autoMemoryReclaim";
    const LOST: &str = "cached models go when the machine has been idle for a while";
    const REMEDY: &str =
        "set autoMemoryReclaim=disabled below [experimental] in .wslconfig in your Windows home, then wsl --shutdown";
    if set.is_empty() {
        let value = if is_read {
            "in no .wslconfig below [experimental]: current versions of WSL take dropCache"
        } else {
            "could not be read: Windows did not answer; current versions of WSL take dropCache unless it is set"
        };
        return vec![Subject::Wsl.info(NAME, value).losing(LOST).remedied(REMEDY)];
    }
    let each = set.iter().map(|(place, value)| {
        let words = format!("{value} in {}", place.display());
        if value.eq_ignore_ascii_case("disabled") {
            Subject::Wsl.ok(NAME, words)
        } else {
            Subject::Wsl.info(NAME, words).losing(LOST).remedied(REMEDY)
        }
    });
    each.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::State;

    #[test]
    fn settings_are_read_as_windows_writes_them() {
        let text = "[wsl2]\r\n# memory=1GB\r\nMemory = 8GB\r\n[boot]\r\nmemory=3GB\r\n[experimental]\r\nautoMemoryReclaim=gradual\r\n";
        let expected = [("wsl2.memory", "8GB"), ("experimental.automemoryreclaim", "gradual")];
        assert_eq!(parse(text), expected.map(|(name, value)| (name.into(), value.into())));
        assert!(parse("memory=8GB").is_empty());
        assert_eq!(parse(&"[wsl2]\na=b\n".repeat(10_000)).len(), MOST);
    }

    #[test]
    fn what_windows_reads_in_another_section_is_not_set() {
        let of = |text: Option<&str>| {
            let facts = Facts {
                settings: text.map(|text| vec![(PathBuf::from("/mnt/c/Users/x/.wslconfig"), parse(text))]),
                ..Facts::default()
            };
            let all = findings(Some(&facts), 1 << 30);
            let found = all.into_iter().find(|finding| finding.name == "autoMemoryReclaim");
            let found = found.unwrap();
            (found.state, found.value, found.remedy.unwrap_or_default())
        };
        let (state, value, remedy) = of(Some(""));
        assert_eq!(state, State::Info);
        assert!(
            value.contains("take dropCache") && remedy.contains("[experimental]"),
            "{value}: {remedy}"
        );
        assert_eq!(
            of(Some("[wsl2]\nautoMemoryReclaim=disabled\n")).0,
            State::Info,
            "another section"
        );
        assert_eq!(of(Some("[experimental]\nautoMemoryReclaim=Disabled\n")).0, State::Ok);
        let (state, value, _) = of(Some("[experimental]\nautoMemoryReclaim=gradual\n"));
        assert_eq!(state, State::Info);
        assert!(value.starts_with("gradual in"), "{value}");
        assert!(of(None).1.contains("could not be read"));
    }
}
