//! The user's own command: as whoever called `sudo`, in a session of its own, so that all of it ends with us, and what it leaves behind with it.

use std::{
    ffi::{CString, OsStr, OsString},
    io,
    os::{fd::AsFd, unix::process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, bail};
use nix::unistd::{Gid, Uid, User, getgrouplist};

use crate::{
    bench::{session, sweep, tools},
    sys::measure,
    units::printable,
};

/// Where what the command says goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Nowhere.
    Hidden,
    /// Where ours goes.
    Shown,
    /// To standard error: standard output is for figures.
    Aside,
}

/// A command that is run again and again.
#[derive(Debug)]
pub struct OwnCommand {
    program: PathBuf,
    words: Vec<OsString>,
    user: Option<Caller>,
    output: Output,
}

/// What one run of it came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Ran {
    /// From its start to its exit.
    pub seconds: f64,
    /// Bytes that it had read from disks, as far as the kernel counts them.
    pub read: u64,
    /// Processes that it left behind, which were ended.
    pub left: Vec<String>,
}

/// Who called `sudo`.
#[derive(Debug)]
struct Caller {
    user: User,
    groups: Vec<Gid>,
}

impl OwnCommand {
    /// The command with its arguments.
    ///
    /// # Errors
    /// There is none; its program is not there; the user who called `sudo` is not known.
    pub fn new(words: &[OsString], output: Output) -> Result<Self> {
        let Some(name) = words.first() else {
            bail!("there is no command to run: nitro-agent prove FILE -- CMD …");
        };
        Ok(Self {
            program: program(name)?,
            words: words.to_vec(),
            user: caller()?,
            output,
        })
    }

    /// Whether its output is let through.
    pub fn shows(&self) -> bool {
        self.output != Output::Hidden
    }

    /// As one line, for people.
    pub fn line(&self) -> String {
        let words: Vec<_> = self.words.iter().map(|word| word.to_string_lossy()).collect();
        words.join(" ")
    }

    /// The program that is run.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Whom it is run as, where that is not root.
    pub fn user(&self) -> Option<&str> {
        self.user.as_ref().map(|caller| caller.user.name.as_str())
    }

    /// Runs it to its end, and ends what it leaves behind: the next run is to find the machine as this one did.
    ///
    /// # Errors
    /// It cannot be started, or its exit code is not 0.
    pub fn run(&self) -> Result<Ran> {
        sweep::rest_if_interrupted();
        let mut command = self.command()?;
        let began = Instant::now();
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {}", told(self.program.as_os_str())))?;
        let leader = child.id();
        sweep::adopt_session(leader);
        let ended = measure::await_end(leader);
        let seconds = began.elapsed().as_secs_f64();
        // Before it is waited for: as long as it was not, its number is nobody else's.
        let left = session::left(leader);
        if !left.is_empty() {
            session::end(leader);
        }
        let ended = ended.and_then(|()| measure::wait_for(leader));
        sweep::disown_session(leader);
        let ended = ended.context("cannot wait for the command")?;
        if !ended.status.success() {
            bail!("{}", self.failed(ended.status));
        }
        Ok(Ran {
            seconds,
            read: ended.read,
            left: left.into_iter().map(|member| member.told).collect(),
        })
    }

    fn command(&self) -> Result<Command> {
        let mut command = Command::new(&self.program);
        if let [name, arguments @ ..] = self.words.as_slice() {
            // As a shell has it: programs of several names look at the one they were called by.
            command.arg0(name).args(arguments);
        }
        command.stdin(Stdio::null());
        match self.output {
            Output::Hidden => {
                command.stdout(Stdio::null()).stderr(Stdio::null());
            }
            Output::Shown => {}
            Output::Aside => {
                let error = io::stderr().as_fd().try_clone_to_owned();
                command.stdout(error.context("cannot hand standard error on")?);
            }
        }
        measure::own_session(&mut command);
        if let Some(Caller { user, groups }) = &self.user {
            command
                .env("HOME", &user.dir)
                .env("USER", &user.name)
                .env("LOGNAME", &user.name);
            measure::become_user(&mut command, user.uid, user.gid, groups.clone());
        }
        // After that, since changing the user undoes it.
        measure::end_with_parent(&mut command);
        Ok(command)
    }

    fn failed(&self, status: ExitStatus) -> String {
        let how = if self.shows() {
            ""
        } else {
            ", or add --show-output to see what it says"
        };
        format!(
            "the command failed ({status}), and a load that fails proves nothing: run it by hand{how}: {}",
            self.line()
        )
    }
}

/// Where the program of that name is: a path as it is, a name as a shell looks for it.
fn program(name: &OsStr) -> Result<PathBuf> {
    let path = Path::new(name);
    if path.components().count() > 1 || path.is_absolute() {
        return Ok(path.to_owned());
    }
    let places = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&places).map(|dir| dir.join(name));
    found.into_iter().find(|path| tools::is_program(path)).with_context(|| {
        format!(
            "{} is not in PATH, and sudo has a PATH of its own: give its whole path, or run sudo env PATH=\"$PATH\" nitro-agent prove …",
            told(name)
        )
    })
}

fn told(text: &OsStr) -> String {
    printable(&text.to_string_lossy())
}

/// Whoever called `sudo`; `None` for root.
fn caller() -> Result<Option<Caller>> {
    let id = std::env::var("SUDO_UID").ok().and_then(|id| id.parse().ok());
    let Some(id) = id.filter(|&id: &u32| id != 0 && nix::unistd::geteuid().is_root()) else {
        return Ok(None);
    };
    let user = User::from_uid(Uid::from_raw(id))
        .context("cannot look up who called sudo")?
        .with_context(|| format!("user {id}, who called sudo, is not known here"))?;
    let name = CString::new(user.name.as_str()).context("the name of who called sudo")?;
    let groups = getgrouplist(&name, user.gid).context("the groups of who called sudo")?;
    Ok(Some(Caller { user, groups }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(words: &[&str]) -> OwnCommand {
        let words: Vec<_> = words.iter().map(OsString::from).collect();
        OwnCommand {
            program: program(&words[0]).unwrap(),
            words,
            user: None,
            output: Output::Hidden,
        }
    }

    #[test]
    fn a_command_is_timed_to_its_exit() {
        let ran = command(&["sleep", "0.2"]).run().unwrap();
        assert!((0.2..2.0).contains(&ran.seconds), "{ran:?}");
        assert_eq!(ran.left, Vec::<String>::new());
    }

    #[test]
    fn what_it_leaves_behind_is_told_and_ended() {
        // Its argument tells it from those of others.
        let ran = command(&["sh", "-c", "sleep 271828 & exit 0"]).run().unwrap();
        assert_eq!(ran.left.len(), 1, "{ran:?}");
        let (_, pid) = ran.left[0].trim_end_matches(']').split_once('[').unwrap();
        let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        assert!(!words.starts_with(b"sleep"), "{ran:?} is still there");
    }

    #[test]
    fn it_has_no_terminal_to_wait_for() {
        // Fields: the fifth is its group, the sixth its session, the seventh its terminal.
        let script = r#"set -- $(cat /proc/$$/stat); [ "$7" = 0 ] && [ "$5" = "$$" ] && [ "$6" = "$$" ]"#;
        command(&["sh", "-c", script]).run().unwrap();
    }

    #[test]
    fn a_command_that_fails_proves_nothing() {
        let error = format!("{:#}", command(&["sh", "-c", "exit 3"]).run().unwrap_err());
        assert!(error.contains('3') && error.contains("--show-output"), "{error}");
        let missing = OwnCommand::new(&["no-such-program-here".into()], Output::Hidden);
        let error = missing.unwrap_err().to_string();
        assert!(
            error.contains("no-such-program-here") && error.contains("sudo env PATH"),
            "{error}"
        );
        assert!(OwnCommand::new(&[], Output::Hidden).is_err());
        assert!(program(OsStr::new("sh")).unwrap().is_absolute());
        assert_eq!(program(OsStr::new("./sh")).unwrap(), Path::new("./sh"));
    }
}
