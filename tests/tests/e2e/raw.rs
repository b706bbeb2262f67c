//! An agent with the very command line of a test, its two output streams apart: for how it refuses, starts and stops.

use std::{
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rig::sweep;

use super::bed::{SOON, binary};

/// `nitro-agent` with a socket and a state below `state`.
pub fn command(state: &Path) -> Command {
    let mut command = Command::new(binary());
    command.arg("--socket").arg(state.join("socket"));
    command.arg("--state").arg(state.join("state"));
    command.env_remove("RUST_LOG").env_remove("NOTIFY_SOCKET");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Runs a command that is to fail; what it said. It must fail soon.
pub fn refusal(command: &mut Command) -> (Option<i32>, String) {
    let began = Instant::now();
    let Output { status, stderr, .. } = command.output().unwrap();
    assert!(!status.success(), "it was not refused");
    assert!(began.elapsed() < SOON);
    (status.code(), String::from_utf8(stderr).unwrap())
}

/// A running agent; killed on drop.
pub struct RawAgent {
    child: Child,
    out: Option<BufReader<ChildStdout>>,
    /// What it said on standard output so far.
    pub lines: Vec<String>,
}

impl RawAgent {
    /// Starts one; it may not be ready yet.
    pub fn spawn(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap();
        sweep::adopt(child.id());
        let out = child.stdout.take().map(BufReader::new);
        Self {
            child,
            out,
            lines: Vec::new(),
        }
    }

    /// Starts one and waits until it is ready.
    pub fn start(command: &mut Command) -> Self {
        let mut agent = Self::spawn(command);
        agent.wait_until_ready();
        agent
    }

    /// Reads its lines up to the one that says ready.
    pub fn wait_until_ready(&mut self) {
        let out = self.out.as_mut().unwrap();
        loop {
            let mut line = String::new();
            assert!(
                out.read_line(&mut line).unwrap() > 0,
                "it ended before it was ready: {:#?}",
                self.lines
            );
            let ready = line.starts_with("ready") || line.contains("\"ready\"");
            self.lines.push(line);
            if ready {
                return;
            }
        }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal and waits for its end; fails when that takes longer than `most`. All its lines are in `lines` then.
    pub fn stop(&mut self, signal: Signal, most: Duration) -> ExitStatus {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
        let sent = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(sent.elapsed() < most, "still running {most:?} after {signal}");
            std::thread::sleep(Duration::from_millis(2));
        };
        let mut rest = String::new();
        self.out.take().unwrap().read_to_string(&mut rest).unwrap();
        self.lines.extend(rest.lines().map(ToOwned::to_owned));
        status
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for RawAgent {
    fn drop(&mut self) {
        if self.is_running() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        sweep::disown(self.child.id());
    }
}

/// Asks the agent of `state`; its answer, object by object.
pub fn ask(state: &Path, what: &str) -> Result<Vec<serde_json::Value>, String> {
    let mut command = Command::new(binary());
    let output = command
        .args([what, "--json", "--socket"])
        .arg(state.join("socket"))
        .output()
        .unwrap();
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}
