//! What survives a restart, in the state directory: `state.db`, an SQLite database.
//!
//! In: changes of what the engine wants kept. Out: when the agent starts, all that was kept. Everything on disk is read with a bound and taken for what it is: somebody
//! else may have written it, and what is none of ours is put aside under another name, never written to. Writing is done on a thread of its own, and a disk that is
//! full or gone costs the agent nothing but a bounded piece of its memory. What the rows mean, and which are worth keeping, is the engine's affair.

mod bounds;
mod database;
mod old;
mod pending;
mod place;
mod plausible;
pub mod store;
mod tables;
#[cfg(test)]
mod tests;
mod writer;

use std::{io, path::PathBuf};

pub use self::writer::Teller;

/// What goes wrong with the state, what is lost by it, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// It cannot be read.
    #[error(
        "cannot read {path:?}: {reason}; what is learned is not kept until that is mended and the agent is started again"
    )]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// The system's reason.
        reason: String,
    },
    /// It is not what was written.
    #[error(
        "{path:?} is not what this version writes ({reason}): it is kept as {kept:?}, and what was learned before is learned anew"
    )]
    Unknown {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
        /// Where it is now.
        kept: PathBuf,
    },
    /// Nor can it be put aside.
    #[error(
        "{path:?} is not what this version writes ({reason}), and cannot be put aside ({source}): what is learned is not kept until it is moved away and the agent is started again"
    )]
    Stuck {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
        /// Why it stays.
        source: io::Error,
    },
    /// Two agents would give the same numbers to other models.
    #[error(
        "another agent keeps what it learns in {directory:?}: what this one learns is not kept; give it a directory of its own with --state"
    )]
    InUse {
        /// Where.
        directory: PathBuf,
    },
    /// Somebody has put something in the place of ours.
    #[error("{path:?} was put there while the agent ran: what is learned is not kept until the agent is started again")]
    Replaced {
        /// Which.
        path: PathBuf,
    },
    /// It cannot be written for now.
    #[error("cannot write {path:?}: {reason}; what is learned is lost with the agent's end unless that is mended")]
    Unwritable {
        /// Which.
        path: PathBuf,
        /// The system's reason.
        reason: String,
    },
    /// Something cannot be written at all.
    #[error("{path:?} does not take what was learned in the last seconds: {reason}; it is lost with the agent's end")]
    Refused {
        /// Which.
        path: PathBuf,
        /// SQLite's reason.
        reason: String,
    },
}

/// What happens to the state while the agent runs.
#[derive(Debug)]
pub enum Notice {
    /// Something is lost.
    Trouble(StateError),
    /// What could not be written is.
    Again {
        /// Which.
        path: PathBuf,
        /// Changes that found no room meanwhile.
        lost: u64,
    },
    /// Somebody removed it.
    BroughtBack {
        /// Which.
        path: PathBuf,
    },
}

impl From<StateError> for Notice {
    fn from(error: StateError) -> Self {
        Self::Trouble(error)
    }
}

impl std::fmt::Display for Notice {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Trouble(error) => error.fmt(formatter),
            Self::Again { path, lost: 0 } => write!(formatter, "{path:?} is written again, and nothing is lost"),
            Self::Again { path, lost } => {
                write!(
                    formatter,
                    "{path:?} is written again; {lost} changes found no room meanwhile and are lost"
                )
            }
            Self::BroughtBack { path } => {
                write!(
                    formatter,
                    "{path:?} was removed while the agent ran: it was written again with all that was in it"
                )
            }
        }
    }
}
