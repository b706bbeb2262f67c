//! The user's own command: as whoever called `sudo`, in a group of processes of its own, so that all of it ends with us.

use std::{
    ffi::{CString, OsString},
    process::{Command, ExitStatus, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, bail};
use nix::unistd::{Gid, Uid, User, getgrouplist};

use crate::{bench::sweep, sys::measure};

/// A command that is run again and again.
#[derive(Debug)]
pub struct OwnCommand {
    words: Vec<OsString>,
    user: Option<Caller>,
    show: bool,
}

/// Who called `sudo`.
#[derive(Debug)]
struct Caller {
    user: User,
    groups: Vec<Gid>,
}

impl OwnCommand {
    /// The command with its arguments; `show` lets its output through.
    ///
    /// # Errors
    /// There is none; the user who called `sudo` is not known.
    pub fn new(words: &[OsString], show: bool) -> Result<Self> {
        if words.is_empty() {
            bail!("there is no command to run: nitro-agent prove FILE -- CMD …");
        }
        Ok(Self {
            words: words.to_vec(),
            user: caller()?,
            show,
        })
    }

    /// Whether its output is let through.
    pub fn shows(&self) -> bool {
        self.show
    }

    /// As one line, for people.
    pub fn line(&self) -> String {
        let words: Vec<_> = self.words.iter().map(|word| word.to_string_lossy()).collect();
        words.join(" ")
    }

    /// Whom it is run as, where that is not root.
    pub fn user(&self) -> Option<&str> {
        self.user.as_ref().map(|caller| caller.user.name.as_str())
    }

    /// Runs it to its end; seconds from its start to its exit.
    ///
    /// # Errors
    /// It cannot be started, or its exit code is not 0.
    pub fn run(&self) -> Result<f64> {
        let [program, arguments @ ..] = self.words.as_slice() else {
            bail!("there is no command to run");
        };
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null());
        if !self.show {
            command.stdout(Stdio::null()).stderr(Stdio::null());
        }
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        if let Some(Caller { user, groups }) = &self.user {
            command
                .env("HOME", &user.dir)
                .env("USER", &user.name)
                .env("LOGNAME", &user.name);
            measure::become_user(&mut command, user.uid, user.gid, groups.clone());
        }
        // After that, since changing the user undoes it.
        measure::end_with_parent(&mut command);
        let began = Instant::now();
        let mut child = command.spawn().with_context(|| {
            format!(
                "cannot start {}: it takes a program in PATH, or a path",
                program.to_string_lossy()
            )
        })?;
        sweep::adopt_group(child.id());
        let status = child.wait();
        let seconds = began.elapsed().as_secs_f64();
        sweep::disown_group(child.id());
        let status = status.context("cannot wait for the command")?;
        if !status.success() {
            bail!("{}", self.failed(status));
        }
        Ok(seconds)
    }

    fn failed(&self, status: ExitStatus) -> String {
        let how = if self.show {
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
        OwnCommand {
            words: words.iter().map(OsString::from).collect(),
            user: None,
            show: false,
        }
    }

    #[test]
    fn a_command_is_timed_to_its_exit() {
        let seconds = command(&["sleep", "0.2"]).run().unwrap();
        assert!((0.2..2.0).contains(&seconds), "{seconds}");
    }

    #[test]
    fn a_command_that_fails_proves_nothing() {
        let error = format!("{:#}", command(&["sh", "-c", "exit 3"]).run().unwrap_err());
        assert!(error.contains('3') && error.contains("--show-output"), "{error}");
        let error = format!("{:#}", command(&["no-such-program-here"]).run().unwrap_err());
        assert!(
            error.contains("no-such-program-here") && error.contains("PATH"),
            "{error}"
        );
        assert!(OwnCommand::new(&[], false).is_err());
    }
}
