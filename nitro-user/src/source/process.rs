//! What /proc says about a process: its name, its command line, how it opened a file; and sysfs about a device.
//!
//! Reading /proc can wait for the process's memory lock, so that it happens on a thread of its own, asked through a bounded queue. A process
//! that has ended, or may not be looked at, yields `None`.

use std::{
    ffi::OsString,
    fs,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
    thread::JoinHandle,
};

use tokio::sync::mpsc::Sender;

use crate::{
    sys::{block, memory::MemoryState, power, proc::read_at_most},
    units::FileId,
};

/// Longest command line looked at; a longer one is cut.
const COMMAND_LINE_BYTES: usize = 64 << 10;

/// A question about a process.
#[derive(Clone, Copy, Debug)]
pub enum Question {
    /// Which program is it?
    Program(u32),
    /// Which arguments was it started with?
    Arguments(u32),
    /// Has it a descriptor of this file that is open with `O_DIRECT`?
    Direct(u32, FileId),
    /// What identifies a device beyond a restart?
    Device(u32),
    /// Does the machine run on its battery?
    Power,
    /// How much memory is there, and who waits for it?
    Memory,
}

/// An answer.
#[derive(Clone, Debug)]
pub enum Answer {
    /// Name and real user of a process.
    Program {
        /// Process id.
        process: u32,
        /// `comm`: at most 15 bytes; bytes that are not UTF-8 are replaced.
        name: String,
        /// Real user id.
        user: u32,
    },
    /// Arguments of a process.
    Arguments {
        /// Process id.
        process: u32,
        /// `comm` of the process.
        name: String,
        /// The arguments, the program's own name first.
        arguments: Vec<OsString>,
    },
    /// Whether a process reads a file with `O_DIRECT`.
    Direct {
        /// Process id.
        process: u32,
        /// The file asked about.
        file: FileId,
        /// `None` when no descriptor of the file is open.
        direct: Option<bool>,
    },
    /// What identifies a device: see [`block::identity`].
    Device {
        /// Its number.
        device: u32,
        /// `None` where nothing tells.
        identity: Option<String>,
    },
    /// Whether the machine runs on its battery.
    Power {
        /// It does.
        on_battery: bool,
    },
    /// The machine's memory.
    Memory(MemoryState),
    /// The process asked about has ended. The kernel side tells of the end of readers alone.
    Ended {
        /// Process id.
        process: u32,
    },
}

/// The thread that reads /proc.
#[derive(Debug)]
pub struct ProcessReader {
    questions: Option<std::sync::mpsc::SyncSender<Question>>,
    thread: Option<JoinHandle<()>>,
}

impl ProcessReader {
    /// Starts the thread. Answers go to `answers`, which the thread waits for when it is full; `supplies` is where the kernel lists power supplies.
    ///
    /// # Errors
    /// When no thread can be made.
    pub fn start(answers: Sender<Answer>, supplies: PathBuf) -> std::io::Result<Self> {
        let (questions, inbox) = std::sync::mpsc::sync_channel::<Question>(1024);
        let thread = std::thread::Builder::new().name("nitro-proc".into()).spawn(move || {
            while let Ok(question) = inbox.recv() {
                if let Some(answer) = answer(question, &supplies)
                    && answers.blocking_send(answer).is_err()
                {
                    break;
                }
            }
        })?;
        Ok(Self {
            questions: Some(questions),
            thread: Some(thread),
        })
    }

    /// Asks. Overflow policy: a question that finds the queue full is dropped; its answer would come too late to matter.
    pub fn ask(&self, question: Question) {
        if let Some(questions) = &self.questions
            && questions.try_send(question).is_err()
        {
            tracing::debug!(?question, "too many processes start at once: one was not looked at");
        }
    }
}

impl Drop for ProcessReader {
    fn drop(&mut self) {
        self.questions = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn answer(question: Question, supplies: &Path) -> Option<Answer> {
    match question {
        Question::Program(process) => Some(Answer::Program {
            process,
            name: name(process)?,
            user: user(process)?,
        }),
        Question::Arguments(process) => {
            let mut bytes = read_at_most(format!("/proc/{process}/cmdline"), COMMAND_LINE_BYTES)?;
            if bytes.last() == Some(&0) {
                bytes.pop();
            }
            let arguments = bytes
                .split(|byte| *byte == 0)
                .map(|argument| OsString::from_vec(argument.to_vec()))
                .collect();
            Some(Answer::Arguments {
                process,
                name: name(process)?,
                arguments,
            })
        }
        Question::Power => Some(Answer::Power {
            on_battery: power::on_battery(supplies),
        }),
        Question::Memory => Some(Answer::Memory(MemoryState::now())),
        Question::Device(device) => Some(Answer::Device {
            device,
            identity: block::identity(device),
        }),
        Question::Direct(process, _) if has_ended(process) => Some(Answer::Ended { process }),
        Question::Direct(process, file) => Some(Answer::Direct {
            process,
            file,
            direct: direct(process, file),
        }),
    }
}

fn name(process: u32) -> Option<String> {
    let bytes = read_at_most(format!("/proc/{process}/comm"), 64)?;
    Some(String::from_utf8_lossy(&bytes).trim_end().to_owned())
}

fn user(process: u32) -> Option<u32> {
    let status = read_at_most(format!("/proc/{process}/status"), 4096)?;
    let status = String::from_utf8_lossy(&status).into_owned();
    status
        .lines()
        .find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().next()?.parse().ok())
}

/// Whether there is no such process any more.
fn has_ended(process: u32) -> bool {
    let found = fs::metadata(format!("/proc/{process}/fd"));
    found.is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH))
}

/// Looks through the process's descriptors; 1024 at most, a loader opens its model early. Only /proc is asked: `stat` of a file on a server that has died would
/// not return. Before Linux 5.14 it does not tell the inode, and `stat` it is.
fn direct(process: u32, file: FileId) -> Option<bool> {
    let mut found = None;
    for entry in fs::read_dir(format!("/proc/{process}/fdinfo"))
        .ok()?
        .flatten()
        .take(1024)
    {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(info) = read_at_most(format!("/proc/{process}/fdinfo/{name}"), 4096) else {
            continue;
        };
        let info = String::from_utf8_lossy(&info).into_owned();
        let field = |name: &str| info.lines().find_map(|line| Some(line.strip_prefix(name)?.trim()));
        let inode = match field("ino:") {
            Some(inode) => inode.parse().ok(),
            None => fs::metadata(format!("/proc/{process}/fd/{name}"))
                .ok()
                .map(|status| std::os::unix::fs::MetadataExt::ino(&status)),
        };
        if inode != Some(file.inode) {
            continue;
        }
        let flags = field("flags:").and_then(|flags| i32::from_str_radix(flags, 8).ok());
        let is_direct = flags.is_some_and(|flags| flags & libc::O_DIRECT != 0);
        found = Some(found.unwrap_or(false) || is_direct);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_has_ended_is_told_instead_of_its_descriptors() {
        let file = FileId { device: 0, inode: 0 };
        let own = answer(Question::Direct(std::process::id(), file), Path::new(power::SUPPLIES));
        assert!(matches!(own, Some(Answer::Direct { direct: None, .. })), "{own:?}");
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        let gone = answer(Question::Direct(child.id(), file), Path::new(power::SUPPLIES));
        assert!(
            matches!(gone, Some(Answer::Ended { process }) if process == child.id()),
            "{gone:?}"
        );
    }
}
