//! The telling side: a reader that does one step and waits for the next.

use std::{
    ffi::OsStr,
    io::{BufRead, BufReader, Write},
    os::unix::{ffi::OsStrExt, process::CommandExt},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use rig::{limit::IoLimit, sweep};

use super::steps::{ANSWER, Done, FAILED, TOLD};

/// A reader at rest between two steps; ended on drop.
pub struct StepReader {
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl StepReader {
    /// Starts one, in `group` if one is given. Nothing is open yet.
    pub fn start(group: Option<&IoLimit>) -> Self {
        Self::with_arguments(&[], group)
    }

    /// Starts one whose command line names `path`, as a runner's does. Nothing is open yet.
    pub fn announced(path: &Path, group: Option<&IoLimit>) -> Self {
        // The harness takes it for the name of one more test.
        Self::with_arguments(&[path.as_os_str()], group)
    }

    /// Starts one of user `user`, who may reach the program at `program`: a copy of this one. Nothing is open yet.
    pub fn of_user(user: u32, program: &Path) -> Self {
        let mut command = Command::new(program);
        command.uid(user).gid(user);
        Self::run(command, &[], None)
    }

    fn with_arguments(arguments: &[&OsStr], group: Option<&IoLimit>) -> Self {
        Self::run(Command::new(std::env::current_exe().unwrap()), arguments, group)
    }

    fn run(mut command: Command, arguments: &[&OsStr], group: Option<&IoLimit>) -> Self {
        command
            .args(["reader_process", "--exact", "--nocapture", "--test-threads=1"])
            .args(arguments)
            .env(TOLD, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        if let Some(group) = group {
            group.join(&mut command).unwrap();
        }
        let mut child = command.spawn().unwrap();
        sweep::adopt(child.id());
        Self {
            orders: child.stdin.take(),
            answers: BufReader::new(child.stdout.take().unwrap()),
            child,
        }
    }

    /// Starts one that has `path` open.
    pub fn of(path: &Path, group: Option<&IoLimit>) -> Self {
        let mut reader = Self::start(group);
        reader.open(path);
        reader
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Opens a file.
    pub fn open(&mut self, path: &Path) {
        self.step(&format!("open {}", hex(path)));
    }

    /// Opens a file with `O_DIRECT`.
    pub fn open_direct(&mut self, path: &Path) {
        self.step(&format!("direct {}", hex(path)));
    }

    /// Reads a part, `block` bytes at a time, and does a millisecond of work with each MiB: a limited disk gives the first 100 ms' worth at once, and who got
    /// his data at memory's speed is left alone until he comes back for more.
    pub fn read(&mut self, bytes: u64, block: u64) -> Done {
        self.step(&format!("digest {bytes} {block}"))
    }

    /// Reads all that is left, as fast as it comes.
    pub fn read_to_end(&mut self, block: u64) -> Done {
        self.step(&format!("read {} {block}", 1u64 << 50))
    }

    /// Does one step and waits for it.
    pub fn step(&mut self, step: &str) -> Done {
        self.begin(step);
        self.finish()
            .unwrap_or_else(|error| panic!("the reader failed: {error}"))
    }

    /// Begins a step.
    pub fn begin(&mut self, step: &str) {
        let orders = self.orders.as_mut().unwrap();
        writeln!(orders, "{step}").and_then(|()| orders.flush()).unwrap();
    }

    /// Waits for the step that was begun.
    pub fn finish(&mut self) -> Result<Done, String> {
        loop {
            let mut line = String::new();
            if self.answers.read_line(&mut line).unwrap() == 0 {
                return Err("the reader has ended".into());
            }
            // The harness may have left the beginning of a line of its own.
            if let Some(at) = line.find(FAILED) {
                return Err(line[at..].trim().to_owned());
            }
            if let Some(at) = line.find(ANSWER) {
                let mut numbers = line[at + ANSWER.len()..]
                    .split_whitespace()
                    .map(|word| word.parse().unwrap());
                let (bytes, checksum) = (numbers.next().unwrap(), numbers.next().unwrap());
                return Ok(Done { bytes, checksum });
            }
        }
    }

    /// Ends it; gives its process id.
    pub fn end(mut self) -> u32 {
        self.orders = None;
        let status = self.child.wait().unwrap();
        assert!(status.success(), "the reader ended with {status}");
        self.child.id()
    }
}

impl Drop for StepReader {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        sweep::disown(self.child.id());
    }
}

fn hex(path: &Path) -> String {
    path.as_os_str()
        .as_bytes()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
