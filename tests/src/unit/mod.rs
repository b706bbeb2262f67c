//! A service's unit, read from the file and put into effect without systemd: what the agent is allowed as a service is what the file says.
//!
//! In: a unit, and a directory that stands for `/`. Out: this process, restricted and replaced by the service's program. A directive that is not known here is an
//! error, so that a unit cannot say more than is tried. What only a service manager can do (restarting, waiting for `READY=1`) is left to whoever starts this.

mod calls;
mod mounts;
mod rights;

use std::{fs, os::unix::process::CommandExt, path::Path, process::Command};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    sched::{CloneFlags, unshare},
    sys::stat::{Mode, umask},
};

/// Directives that restrict nothing: they are the service manager's own affair.
const MANAGERS: &[&str] = &[
    "Type",
    "Restart",
    "RestartSec",
    "RestartPreventExitStatus",
    "TimeoutStopSec",
    "OOMPolicy",
    // The class that every process has.
    "IOSchedulingClass",
];

/// Directives that are put into effect.
const KNOWN: &[&str] = &[
    "EnvironmentFile",
    "ExecStart",
    "OOMScoreAdjust",
    "DynamicUser",
    "AmbientCapabilities",
    "CapabilityBoundingSet",
    "NoNewPrivileges",
    "UMask",
    "StateDirectory",
    "StateDirectoryMode",
    "RuntimeDirectory",
    "RuntimeDirectoryMode",
    "ProtectSystem",
    "ProtectHome",
    "PrivateTmp",
    "PrivateDevices",
    "PrivateNetwork",
    "RestrictAddressFamilies",
    "ProtectClock",
    "ProtectControlGroups",
    "ProtectHostname",
    "ProtectKernelLogs",
    "ProtectKernelModules",
    "ProtectKernelTunables",
    "LockPersonality",
    "MemoryDenyWriteExecute",
    "RestrictNamespaces",
    "RestrictRealtime",
    "RestrictSUIDSGID",
    "SystemCallArchitectures",
    "SystemCallFilter",
    "SystemCallErrorNumber",
];

/// The `[Service]` section of a unit.
#[derive(Debug)]
pub struct Unit(Vec<(String, String)>);

impl Unit {
    /// Reads the text of a unit.
    ///
    /// # Errors
    /// A directive that is not known here.
    pub fn parse(text: &str) -> Result<Self> {
        let mut section = "";
        let mut directives = Vec::new();
        for line in text.lines().map(str::trim) {
            if line.is_empty() || line.starts_with(['#', ';']) {
                continue;
            }
            if line.starts_with('[') {
                section = line;
                continue;
            }
            let (name, value) = line.split_once('=').with_context(|| format!("no directive: {line}"))?;
            if section != "[Service]" {
                continue;
            }
            ensure!(
                KNOWN.contains(&name) || MANAGERS.contains(&name),
                "{name}= is not known here: put it into effect in tests/src/unit before the unit says it"
            );
            directives.push((name.to_owned(), value.to_owned()));
        }
        Ok(Self(directives))
    }

    /// All values of a directive.
    fn all<'unit>(&'unit self, name: &'unit str) -> impl Iterator<Item = &'unit str> {
        let named = self.0.iter().filter(move |(directive, _)| directive == name);
        named.map(|(_, value)| value.as_str())
    }

    /// The last value of a directive.
    fn last<'unit>(&'unit self, name: &'unit str) -> Option<&'unit str> {
        self.all(name).last()
    }

    /// Whether a directive says yes; anything but yes and no is an error.
    fn yes(&self, name: &str) -> Result<bool> {
        match self.last(name) {
            None | Some("no" | "false") => Ok(false),
            Some("yes" | "true") => Ok(true),
            Some(other) => bail!("{name}={other} is not known here"),
        }
    }

    /// Permissions that a directive gives, in octal.
    fn mode(&self, name: &str, default: u32) -> Result<u32> {
        self.last(name).map_or(Ok(default), |text| {
            u32::from_str_radix(text, 8).with_context(|| format!("{name}={text}"))
        })
    }

    /// The command line, with the variables of the environment file in it. A word `$NAME` becomes as many as its value has.
    fn command(&self, root: &Path) -> Result<Vec<String>> {
        let mut variables = Vec::new();
        for file in self.all("EnvironmentFile") {
            let path = root.join(file.trim_start_matches(['-', '/']));
            let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
            let set = text.lines().filter(|line| !line.starts_with('#'));
            variables.extend(set.filter_map(|line| {
                let (name, value) = line.split_once('=')?;
                Some((name.to_owned(), value.trim_matches('"').to_owned()))
            }));
        }
        let line = self.last("ExecStart").context("the unit starts nothing")?;
        let mut words = Vec::new();
        for word in line.split_whitespace() {
            match word.strip_prefix('$') {
                None => words.push(word.to_owned()),
                Some(name) => {
                    let value = variables.iter().rfind(|(set, _)| set == name);
                    let (_, value) = value.with_context(|| format!("nothing sets ${name}"))?;
                    words.extend(value.split_whitespace().map(str::to_owned));
                }
            }
        }
        Ok(words)
    }
}

/// Becomes the service of `unit`, with `root` as `/`. `notify` is the socket of the service manager, by its path there.
///
/// # Errors
/// Whatever cannot be put into effect. On success it does not return.
pub fn become_service(unit: &Unit, root: &Path, notify: &str) -> Result<()> {
    ensure!(
        unit.yes("DynamicUser")?,
        "a service of a user that is there is not known here"
    );
    let command = unit.command(root)?;
    // The tools that say what a group of system calls holds are those of this machine.
    let filters = calls::filters(unit)?;
    let mut namespaces = CloneFlags::CLONE_NEWNS;
    if unit.yes("PrivateNetwork")? {
        namespaces |= CloneFlags::CLONE_NEWNET;
    }
    if unit.yes("ProtectHostname")? {
        namespaces |= CloneFlags::CLONE_NEWUTS;
    }
    unshare(namespaces).context("namespaces of its own")?;
    mounts::arrange(unit, root)?;
    nix::unistd::chroot(root).context("change the root")?;
    nix::unistd::chdir("/").context("go to the root")?;
    if let Some(adjust) = unit.last("OOMScoreAdjust") {
        fs::write("/proc/self/oom_score_adj", adjust).context("OOMScoreAdjust=")?;
    }
    umask(Mode::from_bits_truncate(unit.mode("UMask", 0o022)?));
    rights::reduce(unit)?;
    if unit.yes("NoNewPrivileges")? {
        nix::sys::prctl::set_no_new_privs().context("NoNewPrivileges=")?;
    }
    for (name, filter) in &filters {
        seccompiler::apply_filter(filter).with_context(|| format!("{name}="))?;
    }
    let (program, arguments) = command.split_first().context("ExecStart= is empty")?;
    let error = Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("NOTIFY_SOCKET", notify)
        .env("INVOCATION_ID", "0123456789abcdef0123456789abcdef")
        .exec();
    Err(error).with_context(|| format!("start {program}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::Unit;

    #[test]
    fn a_directive_that_is_not_tried_is_an_error() {
        assert!(Unit::parse("[Service]\nType=notify\nDynamicUser=yes\n").is_ok());
        assert!(Unit::parse("[Service]\nProtectWeather=yes\n").is_err());
        assert!(Unit::parse("[Unit]\nWhatever=yes\n[Service]\nnonsense\n").is_err());
        let unit = Unit::parse("[Service]\nPrivateTmp=sometimes\n").unwrap();
        assert!(unit.yes("PrivateTmp").is_err());
    }

    #[test]
    fn a_variable_becomes_as_many_words_as_it_has() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(
            root.path().join("flags"),
            "# a comment\nOPTIONS=\"--watch /a --wait\"\n",
        )
        .unwrap();
        let unit = Unit::parse("[Service]\nEnvironmentFile=/flags\nExecStart=/bin/a $OPTIONS -v\n").unwrap();
        assert_eq!(
            unit.command(root.path()).unwrap(),
            ["/bin/a", "--watch", "/a", "--wait", "-v"]
        );
        let unit = Unit::parse("[Service]\nExecStart=/bin/a $OPTIONS\n").unwrap();
        assert!(unit.command(root.path()).is_err());
    }
}
