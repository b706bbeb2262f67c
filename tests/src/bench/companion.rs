//! A process beside what is measured, which works, or holds something, until its standard input ends.

use std::{
    ffi::OsStr,
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
};

use anyhow::{Context, Result};

use crate::{limit::IoLimit, sweep, sys};

/// One at work; killed on drop.
pub struct Companion {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Companion {
    /// Runs `program` with these words, in `group` if one is given.
    pub fn start<'a>(
        program: &Path,
        words: impl IntoIterator<Item = &'a OsStr>,
        group: Option<&IoLimit>,
    ) -> Result<Self> {
        sweep::rest_if_interrupted();
        let mut command = Command::new(program);
        command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped());
        sys::end_with_parent(&mut command);
        if let Some(group) = group {
            group.join(&mut command)?;
        }
        let mut child = command.spawn().context("start a companion")?;
        sweep::adopt(child.id());
        let output = child.stdout.take().context("what a companion says")?;
        Ok(Self {
            child,
            output: BufReader::new(output),
        })
    }

    /// Waits for the next line that it says; `None` when it has ended.
    pub fn hear(&mut self) -> Result<Option<String>> {
        let mut line = String::new();
        let bytes = self.output.read_line(&mut line).context("what a companion says")?;
        Ok((bytes > 0).then_some(line))
    }

    /// Has it end; how it did, and what it said last.
    pub fn end(mut self) -> Result<(ExitStatus, String)> {
        drop(self.child.stdin.take());
        let mut said = String::new();
        self.output.read_to_string(&mut said).context("what a companion said")?;
        Ok((self.child.wait().context("wait for a companion")?, said))
    }
}

impl Drop for Companion {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        sweep::disown(self.child.id());
    }
}
