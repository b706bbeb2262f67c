//! One line of what the doctor says: what was looked at, how it is, what is lost by that and what can be done.
//!
//! Pure values. Whatever text comes in here may have been written by anybody: it is made safe for a terminal, and cut.

use std::fmt;

use serde::Serialize;

use crate::units::printable;

/// Longest text of one kind in a finding: the longest refusals of the kernel take half of it.
const MOST_LETTERS: usize = 600;

/// What a finding is about, in the order in which subjects are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Subject {
    /// The agent that runs here.
    Agent,
    /// The kernel and what it was built with.
    Kernel,
    /// What this user may do.
    Rights,
    /// The event modes.
    Events,
    /// Memory, and who takes pages away.
    Memory,
    /// Swap areas, zram, zswap.
    Swap,
    /// Control groups and their limits.
    Cgroups,
    /// The file systems of the watched directories.
    FileSystems,
    /// The devices of the watched directories.
    Devices,
    /// FUSE and its passthrough.
    Fuse,
    /// Kernel settings.
    Settings,
    /// Windows' virtual machine.
    Wsl,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Agent => "agent",
            Self::Kernel => "kernel",
            Self::Rights => "rights",
            Self::Events => "events",
            Self::Memory => "memory",
            Self::Swap => "swap",
            Self::Cgroups => "cgroups",
            Self::FileSystems => "file systems",
            Self::Devices => "devices",
            Self::Fuse => "fuse",
            Self::Settings => "settings",
            Self::Wsl => "WSL",
        })
    }
}

/// How it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// As it should be.
    Ok,
    /// There, with less than there could be.
    Degraded,
    /// Not there.
    Missing,
    /// Neither good nor bad; with a remedy, a setting that is worth changing.
    Info,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Missing => "missing",
            Self::Info => "info",
        })
    }
}

/// What it has to say in the verdict when it is degraded or missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Weight {
    /// Without it nothing works.
    Essential,
    /// Without it the agent does less than it could.
    Useful,
    /// The agent does without it, or needs it for one flag alone, which is named.
    Aside,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is about.
    pub subject: Subject,
    /// What was looked at; of several of a kind, which: `vda scheduler`.
    pub name: String,
    /// How it is.
    pub state: State,
    /// How much that matters.
    pub weight: Weight,
    /// What was found.
    pub value: String,
    /// What is lost by it, in one sentence: always there when it is degraded or missing.
    pub lost: Option<String>,
    /// What to do about it, in one sentence: always there when it is degraded or missing.
    pub remedy: Option<String>,
}

impl Subject {
    /// As it should be.
    pub fn ok(self, name: &str, value: impl AsRef<str>) -> Finding {
        self.finding(State::Ok, name, value.as_ref())
    }

    /// Good to know.
    pub fn info(self, name: &str, value: impl AsRef<str>) -> Finding {
        self.finding(State::Info, name, value.as_ref())
    }

    /// Less than there could be.
    pub fn degraded(self, name: &str, value: impl AsRef<str>, lost: &str, remedy: &str) -> Finding {
        let finding = self.finding(State::Degraded, name, value.as_ref());
        finding.losing(lost).remedied(remedy)
    }

    /// Not there.
    pub fn missing(self, name: &str, value: impl AsRef<str>, lost: &str, remedy: &str) -> Finding {
        let finding = self.finding(State::Missing, name, value.as_ref());
        finding.losing(lost).remedied(remedy)
    }

    fn finding(self, state: State, name: &str, value: &str) -> Finding {
        Finding {
            subject: self,
            name: clean(name),
            state,
            weight: Weight::Useful,
            value: clean(value),
            lost: None,
            remedy: None,
        }
    }
}

impl Finding {
    /// Without it nothing works.
    #[must_use]
    pub fn essential(mut self) -> Self {
        self.weight = Weight::Essential;
        self
    }

    /// The verdict does not count it.
    #[must_use]
    pub fn aside(mut self) -> Self {
        self.weight = Weight::Aside;
        self
    }

    /// What is lost.
    #[must_use]
    pub fn losing(mut self, lost: &str) -> Self {
        self.lost = Some(clean(lost));
        self
    }

    /// What to do.
    #[must_use]
    pub fn remedied(mut self, remedy: &str) -> Self {
        self.remedy = Some(clean(remedy));
        self
    }

    /// Whether it is not as it should be.
    pub fn is_bad(&self) -> bool {
        matches!(self.state, State::Degraded | State::Missing)
    }
}

fn clean(text: &str) -> String {
    let mut letters = text.chars();
    let mut cut: String = letters.by_ref().take(MOST_LETTERS).collect();
    if letters.next().is_some() {
        cut.push('…');
    }
    printable(&cut)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_controls_no_terminal_and_ends_somewhere() {
        let long = "a\u{1b}[2J\n".repeat(10_000);
        let finding = Subject::Devices.degraded(&long, &long, &long, &long);
        for text in [
            &finding.name,
            &finding.value,
            finding.lost.as_ref().unwrap(),
            finding.remedy.as_ref().unwrap(),
        ] {
            assert!(text.chars().count() <= MOST_LETTERS + 1);
            assert!(!text.chars().any(char::is_control), "{text:?}");
        }
    }

    #[test]
    fn names_in_json_are_the_words_that_are_printed() {
        for state in [State::Ok, State::Degraded, State::Missing, State::Info] {
            assert_eq!(serde_json::to_value(state).unwrap(), state.to_string());
        }
    }
}
