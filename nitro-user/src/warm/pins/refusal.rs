//! Why something in memory is not held, in words.

use std::fmt;

use crate::{
    sys::cgroup::LimitAt,
    units::{ByteCount, printable},
};

/// What was not held, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Bytes that were in memory.
    pub bytes: ByteCount,
    /// The first reason.
    pub why: Refusal,
}

/// Why it is not held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is charged to a memory cgroup with a limit that does not bind the agent: its members would be killed for it. Once it has gone from memory and was warmed again it is on the
    /// agent's account.
    Foreign {
        /// The cgroup, as in /proc/PID/cgroup.
        group: String,
        /// The limit that is theirs.
        limit: LimitAt,
    },
    /// Nobody can tell whose account it is on, and somebody has a limit, or may have.
    Unknown {
        /// Why it cannot be told.
        why: String,
    },
    /// More would be held than was allowed in all.
    Full {
        /// What was allowed.
        most: ByteCount,
    },
    /// The system allows no more to be locked.
    Allowance {
        /// `RLIMIT_MEMLOCK`, where that is the reason.
        most: Option<ByteCount>,
    },
    /// It went while it was being locked.
    Gone,
    /// The file cannot be opened, mapped or asked about, or there is no process to be had.
    System {
        /// What the system says.
        error: String,
    },
}

impl Refusal {
    /// Whether it would be held if it were dropped and warmed again.
    pub const fn is_mended_by_warming(&self) -> bool {
        matches!(self, Self::Foreign { .. } | Self::Unknown { .. } | Self::Gone)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign { group, limit } => write!(
                f,
                "it is on the account of {}, whose limit of {}{} is not ours",
                printable(group),
                limit.bytes,
                if limit.name == *group {
                    String::new()
                } else {
                    format!(" at {}", printable(&limit.name))
                }
            ),
            Self::Unknown { why } => write!(f, "nobody can tell whose account it is on: {why}"),
            Self::Full { most } => write!(f, "no more than {most} is to be pinned"),
            Self::Allowance { most: Some(most) } => write!(
                f,
                "the agent may lock no more than {most} (RLIMIT_MEMLOCK): give it CAP_IPC_LOCK or LimitMEMLOCK=infinity"
            ),
            Self::Allowance { most: None } => {
                f.write_str("the agent may lock no more: give it CAP_IPC_LOCK or LimitMEMLOCK=infinity")
            }
            Self::Gone => f.write_str("it was taken from memory while it was being pinned"),
            Self::System { error } => write!(f, "the system refused it: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_names_the_group_and_the_limit() {
        let foreign = |at: &str| Refusal::Foreign {
            group: "/a\u{1b}/b".into(),
            limit: LimitAt {
                name: at.into(),
                bytes: ByteCount(1 << 30),
            },
        };
        assert_eq!(
            foreign("/a").to_string(),
            "it is on the account of /a?/b, whose limit of 1 GiB at /a is not ours"
        );
        assert!(!foreign("/a\u{1b}/b").to_string().contains(" at "));
        assert!(foreign("/a").is_mended_by_warming());
        assert!(!Refusal::Full { most: ByteCount(0) }.is_mended_by_warming());
    }
}
