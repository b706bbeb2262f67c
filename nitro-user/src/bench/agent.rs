//! The agent as a child process: started and waited for until it is ready, asked, stopped and timed.

use std::{
    ffi::OsString,
    fs,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{limit::IoLimit, scratch::ScratchDir, sweep};
use crate::sys::measure;

/// How long an agent may take to become ready before it is given up; targets are far below.
const READY_DEADLINE: Duration = Duration::from_secs(30);
/// How long it may take to stop.
const STOP_DEADLINE: Duration = Duration::from_secs(10);

/// Lines of an agent that are told when it fails.
const LAST_LINES: usize = 20;

/// An agent to be started.
#[derive(Debug)]
pub struct Agent {
    binary: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    user: Option<u32>,
    state: Option<PathBuf>,
}

impl Agent {
    /// The agent at `binary`, watching `dir`, with an empty state and a socket of its own.
    pub fn new(binary: &Path, dir: &Path) -> Self {
        let arguments = vec!["--watch".into(), dir.into(), "--json".into(), "-v".into()];
        Self {
            binary: binary.to_owned(),
            arguments,
            environment: Vec::new(),
            user: None,
            state: None,
        }
    }

    /// As a service of user `user` runs: with the capabilities that the agent asks for as ambient ones, and no others.
    #[must_use]
    pub fn as_service(mut self, user: u32) -> Self {
        self.user = Some(user);
        self
    }

    /// Keeps what survives a restart in `directory`.
    #[must_use]
    pub fn state(mut self, directory: &Path) -> Self {
        self.state = Some(directory.to_owned());
        self
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Adds an environment variable.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Starts it, in `group` if one is given, and waits until it says that it is ready.
    ///
    /// # Errors
    /// When it cannot be started, ends, or is not ready in time; with what it printed.
    pub fn start(&self, group: Option<&IoLimit>) -> Result<AgentProcess> {
        sweep::rest_if_interrupted();
        let state = ScratchDir::new(&std::env::temp_dir())?;
        let socket = state.path().join("sock");
        let mut command = match self.user {
            None => Command::new(&self.binary),
            Some(user) => {
                std::os::unix::fs::chown(state.path(), Some(user), Some(user)).context("give the state away")?;
                service(user, &self.binary)
            }
        };
        command
            .args(&self.arguments)
            .arg("--state")
            .arg(self.state.as_deref().unwrap_or(state.path()))
            .arg("--socket")
            .arg(&socket);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        measure::end_with_parent(&mut command);
        if let Some(group) = group {
            group.join(&mut command)?;
        }
        let started = Instant::now();
        let mut child = command
            .spawn()
            .with_context(|| format!("start the agent {}", self.binary.display()))?;
        sweep::adopt(child.id());
        let output = Arc::new(Output::default());
        let pipes: [Option<Box<dyn Read + Send>>; 2] = [
            child.stdout.take().map(|pipe| Box::new(pipe) as _),
            child.stderr.take().map(|pipe| Box::new(pipe) as _),
        ];
        let collectors = pipes.into_iter().flatten().map(|pipe| output.collect(pipe)).collect();
        let mut process = AgentProcess {
            binary: self.binary.clone(),
            child: Some(child),
            socket,
            output,
            collectors,
            time_to_ready: Duration::ZERO,
            _state: state,
        };
        process.wait_until_ready(started)?;
        Ok(process)
    }
}

/// `setpriv` that becomes `binary` as `user` with a service's capabilities: CAP_DAC_READ_SEARCH, CAP_FOWNER, CAP_SYS_PTRACE, and by number, since older tools have no
/// names for them, CAP_PERFMON and CAP_BPF.
fn service(user: u32, binary: &Path) -> Command {
    const CAPABILITIES: &str = "-all,+dac_read_search,+fowner,+sys_ptrace,+cap_38,+cap_39";
    let mut command = Command::new("setpriv");
    command
        .arg(format!("--reuid={user}"))
        .arg(format!("--regid={user}"))
        .arg("--clear-groups");
    for set in ["inh-caps", "ambient-caps", "bounding-set"] {
        command.arg(format!("--{set}={CAPABILITIES}"));
    }
    command.arg("--").arg(binary);
    command
}

/// Where `cargo build` puts the agent: beside or above this program; `NITRO_AGENT` names another.
///
/// # Errors
/// When there is none.
pub fn default_binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("NITRO_AGENT") {
        return Ok(path.into());
    }
    let this = std::env::current_exe().context("path of this program")?;
    let beside = this
        .ancestors()
        .skip(1)
        .take(2)
        .map(|dir| dir.join("nitro-agent"))
        .find(|path| path.exists());
    beside.with_context(|| {
        format!(
            "no nitro-agent near {}: build it, or name one with --agent or NITRO_AGENT",
            this.display()
        )
    })
}

/// Whether a line is the event that says so: a path or a warning may hold the word, too.
fn is_ready(line: &str) -> bool {
    serde_json::from_str::<serde_json::Value>(line).is_ok_and(|line| line["event"] == "ready")
}

/// Lines of both output streams, in the order of their arrival.
#[derive(Debug, Default)]
struct Output {
    lines: Mutex<Vec<String>>,
    arrived: Condvar,
}

impl Output {
    fn lock(&self) -> MutexGuard<'_, Vec<String>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads a stream to its end on a thread of its own, so that the agent never waits for a full pipe.
    fn collect(self: &Arc<Self>, pipe: Box<dyn Read + Send>) -> thread::JoinHandle<()> {
        let output = Arc::clone(self);
        thread::spawn(move || {
            for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                output.lock().push(String::from_utf8_lossy(&line).into_owned());
                output.arrived.notify_all();
            }
        })
    }
}

/// How an agent stopped.
#[derive(Debug)]
pub struct Stopped {
    /// From SIGTERM to its end.
    pub took: Duration,
    /// Its exit status.
    pub status: ExitStatus,
    /// It had ended before it was asked to.
    pub early: bool,
    /// All it printed.
    pub lines: Vec<String>,
}

impl Stopped {
    /// Whether it was there all the time: what was measured meanwhile was measured with an agent.
    ///
    /// # Errors
    /// It ended by itself, or failed when it was to end; with what it printed last.
    pub fn served(&self) -> Result<()> {
        let last = || self.lines[self.lines.len().saturating_sub(LAST_LINES)..].join("\n");
        ensure!(
            !self.early,
            "the agent ended during the load ({}), which was without it then:\n{}",
            self.status,
            last()
        );
        ensure!(
            self.status.success(),
            "the agent failed ({}), and what it did during the load is not known:\n{}",
            self.status,
            last()
        );
        Ok(())
    }
}

/// A running agent; stopped on drop.
#[derive(Debug)]
pub struct AgentProcess {
    binary: PathBuf,
    child: Option<Child>,
    socket: PathBuf,
    output: Arc<Output>,
    collectors: Vec<thread::JoinHandle<()>>,
    time_to_ready: Duration,
    _state: ScratchDir,
}

impl AgentProcess {
    /// From its start to the line that says ready.
    pub fn time_to_ready(&self) -> Duration {
        self.time_to_ready
    }

    /// Its control socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Its process.
    ///
    /// # Errors
    /// When it has been stopped.
    pub fn pid(&self) -> Result<u32> {
        self.child.as_ref().map(Child::id).context("the agent was stopped")
    }

    /// What it printed so far.
    pub fn lines(&self) -> Vec<String> {
        self.output.lock().clone()
    }

    /// Waits until a line satisfies `wanted`, and gives it; none at the deadline.
    pub fn wait_for_line(&self, deadline: Duration, wanted: impl Fn(&str) -> bool) -> Option<String> {
        let end = Instant::now() + deadline;
        let mut lines = self.output.lock();
        loop {
            if let Some(line) = lines.iter().find(|line| wanted(line)) {
                return Some(line.clone());
            }
            let left = end.checked_duration_since(Instant::now())?;
            lines = self
                .output
                .arrived
                .wait_timeout(lines, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Asks it: runs `nitro-agent SUBCOMMAND --json` on its socket.
    ///
    /// # Errors
    /// When the command fails or its answer is not JSON.
    pub fn ask(&self, subcommand: &str) -> Result<serde_json::Value> {
        serde_json::from_slice(&self.answer(subcommand)?).with_context(|| format!("answer of nitro-agent {subcommand}"))
    }

    /// The same of a subcommand that prints one object per line.
    ///
    /// # Errors
    /// As [`AgentProcess::ask`].
    pub fn ask_lines(&self, subcommand: &str) -> Result<Vec<serde_json::Value>> {
        serde_json::Deserializer::from_slice(&self.answer(subcommand)?)
            .into_iter()
            .collect::<Result<_, _>>()
            .with_context(|| format!("answer of nitro-agent {subcommand}"))
    }

    /// Tells it something: runs `nitro-agent` with these words on its socket, and gives what that says.
    ///
    /// # Errors
    /// When the command fails.
    pub fn tell(&self, words: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.binary);
        command.args(words).arg("--socket").arg(&self.socket);
        let words = words.join(" ");
        let output = command.output().with_context(|| format!("run nitro-agent {words}"))?;
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        ensure!(output.status.success(), "nitro-agent {words}: {}", said(&output.stderr));
        Ok(said(&output.stdout))
    }

    fn answer(&self, subcommand: &str) -> Result<Vec<u8>> {
        self.tell(&[subcommand, "--json"]).map(String::into_bytes)
    }

    /// Bytes of its memory that are resident.
    ///
    /// # Errors
    /// When it has ended.
    pub fn resident_bytes(&self) -> Result<u64> {
        Ok(status_field(&format!("/proc/{}/status", self.pid()?), "VmRSS:")? * 1024)
    }

    /// The process that holds its pins, and the bytes locked there; the one that holds most, if there are several.
    pub fn keeper(&self) -> Option<(u32, u64)> {
        let agent = self.pid().ok()?;
        let keepers = children(agent).into_iter().flat_map(children);
        let all = keepers.map(|keeper| (keeper, locked_by(keeper)));
        all.filter(|(_, locked)| *locked > 0).max_by_key(|(_, locked)| *locked)
    }

    /// How often its threads went to sleep of their own accord, summed over those alive.
    ///
    /// # Errors
    /// When it has ended.
    pub fn voluntary_switches(&self) -> Result<u64> {
        let tasks = format!("/proc/{}/task", self.pid()?);
        let mut sum = 0;
        for task in fs::read_dir(&tasks).with_context(|| format!("list {tasks}"))?.flatten() {
            // A thread may end between the listing and the reading.
            sum += status_field(
                &task.path().join("status").to_string_lossy(),
                "voluntary_ctxt_switches:",
            )
            .unwrap_or(0);
        }
        Ok(sum)
    }

    /// Stops it with SIGTERM and waits for its end.
    ///
    /// # Errors
    /// When it does not end in time; it is killed then.
    pub fn stop(mut self) -> Result<Stopped> {
        self.end()?.context("the agent was stopped before")
    }

    fn wait_until_ready(&mut self, started: Instant) -> Result<()> {
        while started.elapsed() < READY_DEADLINE {
            if self.wait_for_line(Duration::from_millis(50), is_ready).is_some() {
                self.time_to_ready = started.elapsed();
                return Ok(());
            }
            let ended = self
                .child
                .as_mut()
                .map(Child::try_wait)
                .transpose()
                .context("wait for the agent")?
                .flatten();
            if let Some(status) = ended {
                // What it printed last may still be on its way.
                self.join_collectors();
                bail!(
                    "the agent ended before it was ready ({status}):\n{}",
                    self.lines().join("\n")
                );
            }
        }
        bail!(
            "the agent was not ready within {READY_DEADLINE:?}:\n{}",
            self.lines().join("\n")
        )
    }

    fn end(&mut self) -> Result<Option<Stopped>> {
        let Some(mut child) = self.child.take() else {
            return Ok(None);
        };
        let early = child.try_wait().context("wait for the agent")?.is_some();
        let asked = Instant::now();
        if !early {
            let _ = kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM);
        }
        let status = loop {
            if let Some(status) = child.try_wait().context("wait for the agent")? {
                break Some(status);
            }
            if asked.elapsed() > STOP_DEADLINE {
                let _ = child.kill();
                let _ = child.wait();
                break None;
            }
            thread::sleep(Duration::from_millis(1));
        };
        let took = asked.elapsed();
        sweep::disown(child.id());
        self.join_collectors();
        let lines = self.lines();
        let Some(status) = status else {
            bail!(
                "the agent did not stop within {STOP_DEADLINE:?} and was killed; its last lines:\n{}",
                lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
            );
        };
        Ok(Some(Stopped {
            took,
            status,
            early,
            lines,
        }))
    }

    fn join_collectors(&mut self) {
        // A process the agent left behind may keep the pipe open: what it holds back is not worth waiting for.
        let deadline = Instant::now() + Duration::from_secs(1);
        for collector in self.collectors.drain(..) {
            while !collector.is_finished() && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

impl Drop for AgentProcess {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            sweep::complain(&format!("{error:#}"));
        }
    }
}

/// Bytes that a process has locked; none when it has ended.
pub fn locked_by(process: u32) -> u64 {
    status_field(&format!("/proc/{process}/status"), "VmLck:").unwrap_or(0) * 1024
}

/// Processes that a process has started, by any of its threads; none when it has ended.
fn children(process: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{process}/task"))
        .into_iter()
        .flatten()
        .flatten();
    let of_thread = |thread: fs::DirEntry| fs::read_to_string(thread.path().join("children")).unwrap_or_default();
    let all = threads.map(of_thread).collect::<Vec<_>>().join(" ");
    all.split_whitespace()
        .filter_map(|number| number.parse().ok())
        .collect()
}

/// The number behind a name in a `/proc/…/status` file.
fn status_field(path: &str, name: &str) -> Result<u64> {
    let text = fs::read_to_string(path).with_context(|| format!("read {path}"))?;
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
        .with_context(|| format!("{name} in {path}"))
}
