//! Finding the directories that hold models: `--watch auto`.
//!
//! In: the environment, command lines and homes of those who load models. Out: directories with the reason why each is one, and those that were
//! found and are better not watched unasked. `places` knows where programs keep models and is pure, as is `judge`, which says what is never
//! watched unasked; `facts` reads /proc and the list of users; `walk` goes to a path without touching what could hang or mislead; `finder` puts
//! them together, and `service` does so again when programs start, and once a minute.
//!
//! Whatever a process says of itself is a suggestion of a stranger's: it counts as far as that process's user could read the directory, and
//! nothing is read here but directories' attributes and links.

pub mod facts;
pub mod finder;
pub mod judge;
pub mod places;
pub mod service;
pub mod walk;

use std::path::PathBuf;

use crate::sys::top::Top;

/// A directory that holds models.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suggestion {
    /// Where it is.
    pub top: Top,
    /// `st_dev` and inode.
    pub identity: (u32, u64),
    /// Why it is one, for people.
    pub why: String,
}

/// A directory that was found and is not watched unasked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NotWatched {
    /// Its path, canonical where that could be found out.
    pub path: PathBuf,
    /// Why it was found, for people.
    pub why: String,
    /// Why it is not watched, and what to do about it, for people.
    pub reason: String,
}

/// What a look found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// To be watched.
    pub watch: Vec<Suggestion>,
    /// Found, and not to be watched unasked.
    pub not_watched: Vec<NotWatched>,
    /// Processes whose environment was looked at.
    pub processes: usize,
    /// Homes that were looked at.
    pub homes: usize,
}
