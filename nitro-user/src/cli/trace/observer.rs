//! An agent of our own where none runs: it watches, and warms nothing.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
};

use anyhow::{Context, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

use crate::sys::process::end_with_us;

/// An agent that ends with this.
pub struct Observer {
    child: Child,
    socket: PathBuf,
    // Removed after the child has ended.
    _place: TempDir,
}

impl Observer {
    /// Starts one that watches `directories`, and waits until it is ready.
    ///
    /// # Errors
    /// It cannot start: what it said.
    pub fn start(directories: &[PathBuf], events: &str) -> anyhow::Result<Self> {
        let place = tempfile::Builder::new()
            .prefix("nitro-trace-")
            .tempdir()
            .context("cannot make a directory for the control socket")?;
        let socket = place.path().join("socket");
        let program = fs::read_link("/proc/self/exe").context("cannot find this program")?;
        let mut command = Command::new(program);
        command
            .args(["--dry-run", "--json", "--events", events, "--socket"])
            .arg(&socket)
            .arg("--state")
            .arg(place.path())
            .args(
                directories
                    .iter()
                    .flat_map(|directory| [Path::new("--watch"), directory]),
            )
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = end_with_us(&mut command)
            .spawn()
            .context("cannot start this program again")?;
        let (said, told) = (child.stdout.take(), child.stderr.take());
        let observer = Self {
            child,
            socket,
            _place: place,
        };
        let (Some(said), Some(mut told)) = (said, told) else {
            bail!("the agent that watches has no output");
        };
        let mut said = BufReader::new(said);
        let mut line = String::new();
        // Ready, or ended.
        loop {
            line.clear();
            if said.read_line(&mut line).unwrap_or(0) == 0 {
                let mut why = String::new();
                let _ = told.by_ref().take(64 << 10).read_to_string(&mut why);
                bail!("{}", why.trim().trim_start_matches("nitro-agent: "));
            }
            if line.contains("\"event\":\"ready\"") {
                break;
            }
        }
        // It says more than anybody wants; full pipes would have it count dropped lines.
        thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
        thread::spawn(move || std::io::copy(&mut told, &mut std::io::stderr()));
        Ok(observer)
    }

    /// Where it is asked.
    pub fn socket(&self) -> &Path {
        &self.socket
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        if let Ok(process) = i32::try_from(self.child.id()) {
            let _ = kill(Pid::from_raw(process), Signal::SIGTERM);
        }
        // It stops within a second of the signal.
        let _ = self.child.wait();
    }
}
