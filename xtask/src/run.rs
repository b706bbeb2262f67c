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
        bail!(
            "which bench? `cargo xtask bench cold`, `cost`, `storm`, `latency`, `idle`, `neighbours`, `warm`, `trace`, `predict` or `sim`; each has --help"
        );
    };
    run(elevated(bench).arg(which).arg("--agent").arg(agent).args(rest))
}

/// Tests of nitro-user that need root: without it they would be skipped.
const ROOTS_OWN: [&str; 4] = ["page_cache_mode", "fentry_mode", "syscalls_mode", "daemon"];

/// `cargo xtask test …`: units, properties and the fuzz targets' bounded trials as the user; what needs the kernel as root.
pub fn tests(forwarded: &Forwarded) -> Result<()> {
    built("nitro-user", "nitro-agent")?;
    built("nitro-dist", "nitro-dist")?;
    built("nitro-tests", "nitro-unit")?;
    run(cargo()
        .args(["test", "--workspace", "--exclude", "nitro-tests", "--release"])
        .args(&forwarded.arguments))?;
    if !is_root() {
        let mut kernel = test_as_root("nitro-user");
        kernel.args(ROOTS_OWN.iter().flat_map(|test| ["--test", test]));
        run(kernel.args(&forwarded.arguments))?;
    }
    // One at a time: they measure, and they count what is on the machine.
    run(test_as_root("nitro-tests")
        .arg("--tests")
        .args(&forwarded.arguments)
        .env("RUST_TEST_THREADS", "1"))
}

/// `cargo test` of a package; the builds stay the user's, and cargo runs each test binary through sudo.
fn test_as_root(package: &str) -> Command {
    let mut command = cargo();
    command.args(["test", "--package", package, "--release"]);
    if !is_root() {
        command.env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER", "sudo -E");
        command.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER", "sudo -E");
    }
    command
}

/// Builds a binary of a package for release.
pub fn built(package: &str, binary: &str) -> Result<PathBuf> {
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
