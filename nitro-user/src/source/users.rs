//! Who uses files, asked now and then: see [`users`].
//!
//! Looking at all processes takes some 5 ms for each hundred of them, and waits for their memory locks, one of which may be held for as long as a server is dead: so it has a thread of
//! its own, which the end of the agent must not wait for.

use std::{path::Path, sync::mpsc::SyncSender, thread::JoinHandle, time::Duration};

use tokio::sync::mpsc::Sender;

use crate::{
    sys::users::{self, Found, Question},
    units::FileId,
};

/// How long one look may take; what it does not get to is counted.
const MOST: Duration = Duration::from_secs(2);

/// What is asked.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// Files.
    pub files: Vec<FileId>,
    /// Processes that are told of in any case: who has read a model.
    pub processes: Vec<u32>,
    /// The agent's other processes.
    pub own: Vec<u32>,
}

/// The thread that looks.
#[derive(Debug)]
pub struct UserReader {
    questions: Option<SyncSender<Asked>>,
    thread: Option<JoinHandle<()>>,
}

impl UserReader {
    /// Starts the thread. Answers go to `answers`, in the order of the questions.
    ///
    /// # Errors
    /// When no thread can be made.
    pub fn start(answers: Sender<Found>) -> std::io::Result<Self> {
        let (questions, inbox) = std::sync::mpsc::sync_channel::<Asked>(1);
        let thread = std::thread::Builder::new().name("nitro-use".into()).spawn(move || {
            while let Ok(mut asked) = inbox.recv() {
                asked.own.push(std::process::id());
                let question = Question {
                    files: &asked.files,
                    processes: &asked.processes,
                    own: &asked.own,
                    descriptors: true,
                };
                let found = users::look(Path::new(users::PROC), &question, MOST).unwrap_or_else(|error| {
                    tracing::debug!(%error, "processes cannot be listed");
                    // Of nobody anything is known.
                    Found {
                        unseen: u64::MAX,
                        ..Found::default()
                    }
                });
                if answers.blocking_send(found).is_err() {
                    break;
                }
            }
        })?;
        Ok(Self {
            questions: Some(questions),
            thread: Some(thread),
        })
    }

    /// Asks. Overflow policy: false when a question waits already, and there is no answer to this one; it would be the same.
    pub fn ask(&self, asked: Asked) -> bool {
        let questions = self.questions.as_ref();
        questions.is_some_and(|questions| questions.try_send(asked).is_ok())
    }
}

impl Drop for UserReader {
    fn drop(&mut self) {
        self.questions = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_was_asked_about_is_told_of_and_our_own_are_not() {
        let (tell, mut answers) = tokio::sync::mpsc::channel(1);
        let reader = UserReader::start(tell).unwrap();
        let mut other = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let asked = Asked {
            processes: vec![other.id(), std::process::id()],
            ..Asked::default()
        };
        assert!(reader.ask(asked));
        let found = answers.blocking_recv().unwrap();
        assert_eq!(found.processes.keys().collect::<Vec<_>>(), [&other.id()]);
        other.kill().unwrap();
        other.wait().unwrap();
    }
}
