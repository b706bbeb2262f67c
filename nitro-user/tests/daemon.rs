//! The agent as a process: how it refuses, starts, says so, and stops. What loads eBPF programs takes root and says so when it is skipped.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    io::{BufRead, BufReader, Read},
    os::unix::{fs::PermissionsExt, net::UnixDatagram, process::CommandExt},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

/// A clean stop takes less.
const STOP: Duration = Duration::from_secs(1);

/// Long enough for anything that happens at all.
const SOON: Duration = Duration::from_secs(30);

fn is_root(what: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        assert!(
            std::env::var_os("CI").is_none(),
            "in CI this test must run as root: {what}"
        );
        eprintln!("skipped: takes root, {what}");
    }
    root
}

/// A directory with a model in it, and the agent's socket and state beside.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("models")).unwrap();
    std::fs::write(folder.path().join("models/a.bin"), vec![7; 4 << 20]).unwrap();
    folder
}

fn agent(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nitro-agent"));
    command.arg("--watch").arg(folder.join("models"));
    command.arg("--socket").arg(folder.join("s"));
    command.arg("--state").arg(folder.join("state"));
    command.env_remove("RUST_LOG").env_remove("NOTIFY_SOCKET");
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// One agent at a time: each sees what the readers of the others do.
static ALONE: Mutex<()> = Mutex::new(());

/// An agent that is ended with the test, whatever comes of it.
struct Running(Child, #[allow(dead_code)] MutexGuard<'static, ()>);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    /// Starts one and reads its lines until it is ready.
    fn start(command: &mut Command) -> (Self, Vec<String>, impl BufRead + use<>) {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let mut child = command.spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let running = Self(child, alone);
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            let read = out.read_line(&mut line).unwrap();
            assert!(read > 0, "it ended before it was ready: {lines:#?}");
            let ready = line.starts_with("ready") || line.contains("\"ready\"");
            lines.push(line);
            if ready {
                return (running, lines, out);
            }
        }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id() as i32), signal).unwrap();
    }

    fn end(&mut self, within: Duration) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            assert!(began.elapsed() < within, "still running after {within:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// What came on standard error, and that it failed.
fn failure(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn without_capabilities_one_line_says_what_to_do() {
    let folder = folder();
    let mut command = agent(folder.path());
    if nix::unistd::geteuid().is_root() {
        // As somebody who can reach the binary and write to the directory.
        let copy = folder.path().join("nitro-agent");
        std::fs::copy(env!("CARGO_BIN_EXE_nitro-agent"), &copy).unwrap();
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o777)).unwrap();
        let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
        let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
        command = Command::new(copy);
        command.args(arguments).env_remove("RUST_LOG");
        command
            .uid(nobody.uid.as_raw())
            .gid(nobody.gid.as_raw())
            .current_dir("/");
    }
    let error = failure(&mut command);
    assert_eq!(error.lines().count(), 1, "{error}");
    for part in ["CAP_BPF", "CAP_PERFMON", "sudo"] {
        assert!(error.contains(part), "{error}");
    }
    assert!(!folder.path().join("s").exists());
}

#[test]
fn asking_without_an_agent_fails_with_a_remedy() {
    let folder = folder();
    for subcommand in ["status", "loads"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nitro-agent"));
        command.args([subcommand, "--socket"]).arg(folder.path().join("s"));
        let error = failure(&mut command);
        assert!(error.contains("no agent answers at"), "{error}");
        assert!(error.contains("nitro-agent --watch"), "{error}");
    }
}

#[test]
fn a_command_line_that_is_none_has_its_own_exit_code() {
    for arguments in [&["--nonsense"][..], &["--memory", "8", "--watch", "/"], &["dance"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_nitro-agent")).args(arguments).output();
        assert_eq!(output.unwrap().status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn it_starts_answers_and_stops_cleanly_telling_the_service_manager() {
    if !is_root("to load eBPF programs") {
        return;
    }
    let folder = folder();
    let notify = UnixDatagram::bind(folder.path().join("notify")).unwrap();
    notify.set_read_timeout(Some(SOON)).unwrap();
    let said = || {
        let mut buffer = [0; 256];
        let length = notify.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).trim().to_owned()
    };
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut command = agent(folder.path());
        command.env("NOTIFY_SOCKET", folder.path().join("notify"));
        let (mut running, lines, mut out) = Running::start(&mut command);
        assert!(lines[0].starts_with("nitro-agent "), "{lines:#?}");
        assert_eq!(said(), "READY=1");

        let mut status = Command::new(env!("CARGO_BIN_EXE_nitro-agent"));
        status
            .args(["status", "--json", "--socket"])
            .arg(folder.path().join("s"));
        let output = status.output().unwrap();
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(status["pid"], running.0.id());
        assert_eq!(status["files"], 1);
        let counters = &status["counters"];
        assert!(counters["seen"].as_u64().unwrap() >= counters["delivered"].as_u64().unwrap());
        assert!(status["ring_received"].is_u64());
        assert!(status["programs"][0]["refused"].is_null());

        let error = failure(&mut agent(folder.path()));
        let who = format!("another agent (pid {}, watching ", running.0.id());
        assert!(error.contains(&who), "{error}");

        running.signal(signal);
        let status = running.end(STOP);
        assert!(status.success(), "{status}");
        assert_eq!(said(), "STOPPING=1");
        assert!(!folder.path().join("s").exists());
        let mut rest = String::new();
        out.read_to_string(&mut rest).unwrap();
        assert!(rest.contains(&format!("on {}", signal.as_str())), "{rest}");
    }
}

/// What an agent that is told where its service manager is says of two loads: of 1.25 GiB, and of 32 MiB.
fn of_two_loads(flags: &[&str]) -> String {
    let folder = folder();
    // A directory each, so that one is not the other's sibling. Holes are read as well, and take no room on the disk.
    let models = [("large", 1280 << 20), ("small", 32 << 20)].map(|(name, size)| {
        let below = folder.path().join("models").join(name);
        std::fs::create_dir(&below).unwrap();
        let path = below.join(format!("{name}.bin"));
        std::fs::File::create(&path).unwrap().set_len(size).unwrap();
        path
    });
    let notify = UnixDatagram::bind(folder.path().join("notify")).unwrap();
    let mut command = agent(folder.path());
    command.args(flags).env("NOTIFY_SOCKET", folder.path().join("notify"));
    let (mut running, lines, mut out) = Running::start(&mut command);
    assert!(lines.iter().any(|line| line.starts_with("events")), "{lines:#?}");
    for model in &models {
        let read = Command::new("cat").arg(model).stdout(Stdio::null()).status();
        assert!(read.unwrap().success());
    }
    // Both have ended, and their lines are on the way.
    let ended = || {
        let mut loads = Command::new(env!("CARGO_BIN_EXE_nitro-agent"));
        loads.args(["loads", "--json", "--socket"]).arg(folder.path().join("s"));
        String::from_utf8_lossy(&loads.output().unwrap().stdout).lines().count()
    };
    let began = Instant::now();
    while ended() < models.len() {
        assert!(began.elapsed() < SOON, "{} loads have ended", ended());
        std::thread::sleep(Duration::from_millis(20));
    }
    running.signal(Signal::SIGTERM);
    assert!(running.end(STOP).success());
    drop(notify);
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    rest
}

#[test]
fn a_service_tells_of_large_loads_in_one_line_each_and_of_all_with_v() {
    if !is_root("to load eBPF programs") {
        return;
    }
    let said = of_two_loads(&[]);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 2, "{said}");
    assert!(
        lines[0].contains("DONE large.bin") && lines[0].contains(" 1.25 GiB"),
        "{said}"
    );
    assert!(lines[1].starts_with("stopping"), "{said}");

    let said = of_two_loads(&["-v"]);
    for part in ["LOAD large.bin", "LOAD small.bin", "DONE small.bin", "DONE large.bin"] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn every_line_of_json_is_an_object_with_an_event() {
    if !is_root("to load eBPF programs") {
        return;
    }
    let folder = folder();
    let (mut running, mut lines, mut out) = Running::start(agent(folder.path()).arg("--json"));
    running.signal(Signal::SIGTERM);
    assert!(running.end(STOP).success());
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    lines.extend(rest.lines().map(ToOwned::to_owned));
    let events: Vec<String> = lines
        .iter()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|value| value["event"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(events.first().map(String::as_str), Some("ready"));
    assert_eq!(events.last().map(String::as_str), Some("stopping"));
}

#[test]
fn a_reader_of_its_lines_that_goes_or_hangs_does_not_hold_it() {
    if !is_root("to load eBPF programs") {
        return;
    }
    let folder = folder();
    for hangs in [false, true] {
        let (mut running, _, out) = Running::start(&mut agent(folder.path()));
        // Either the pipe is closed, or it is open and nobody reads it.
        let kept = hangs.then_some(out);
        for _ in 0..200 {
            let read = Command::new("cat").arg(folder.path().join("models/a.bin")).output();
            assert!(read.unwrap().status.success());
        }
        assert!(running.0.try_wait().unwrap().is_none());
        let mut status = Command::new(env!("CARGO_BIN_EXE_nitro-agent"));
        status.args(["status", "--socket"]).arg(folder.path().join("s"));
        assert!(status.output().unwrap().status.success());
        running.signal(Signal::SIGINT);
        assert!(running.end(STOP).success());
        drop(kept);
    }
}
