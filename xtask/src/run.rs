//! Building and running the agent, its tests and its benches, as root where they must be.

use std::{ffi::OsString, path::PathBuf, process::Command};

use anyhow::{Result, bail};

use crate::workspace::{cargo, is_root, run, target};

/// Everything after `--`, handed on.
#[derive(clap::Args)]
pub struct Forwarded {
    /// Arguments for the program.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// `cargo xtask run -- …`: builds the agent as the user and runs it as root.
pub fn agent(forwarded: &Forwarded) -> Result<()> {
    let agent = built("nitro-user", "nitro-agent")?;
    run(elevated(agent).args(&forwarded.arguments))
}

/// `cargo xtask bench …`.
pub fn bench(forwarded: &Forwarded) -> Result<()> {
    let agent = built("nitro-user", "nitro-agent")?;
    let bench = built("nitro-tests", "nitro-bench")?;
    let Some((which, rest)) = forwarded.arguments.split_first() else {
        bail!("which bench? `cargo xtask bench cold`, `cost`, `storm`, `latency` or `idle`; each has --help");
    };
    run(elevated(bench).arg(which).arg("--agent").arg(agent).args(rest))
}

/// `cargo xtask test …`: units and properties as the user, end-to-end tests as root.
pub fn tests(forwarded: &Forwarded) -> Result<()> {
    built("nitro-user", "nitro-agent")?;
    run(cargo()
        .args(["test", "--workspace", "--exclude", "nitro-tests", "--release"])
        .args(&forwarded.arguments))?;
    let mut end_to_end = cargo();
    end_to_end
        .args(["test", "--package", "nitro-tests", "--release"])
        .args(&forwarded.arguments);
    if !is_root() {
        // Cargo runs each test binary through sudo; the builds stay the user's.
        end_to_end.env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER", "sudo -E");
        end_to_end.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER", "sudo -E");
    }
    run(&mut end_to_end)
}

fn built(package: &str, binary: &str) -> Result<PathBuf> {
    run(cargo().args(["build", "--release", "--quiet", "--package", package, "--bin", binary]))?;
    Ok(target().join("release").join(binary))
}

fn elevated(program: PathBuf) -> Command {
    if is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.arg("--").arg(program);
    command
}
