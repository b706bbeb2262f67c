//! `cargo xtask dist`: the agent as one static binary, and with it what is handed out, below `target/dist`.

use std::{ffi::OsString, path::PathBuf, process::Command};

use anyhow::{Context, Result, bail};

use crate::{
    run::built,
    workspace::{cargo, run, target},
};

/// Flags of `dist`.
#[derive(clap::Args)]
pub struct Options {
    /// Package this binary instead of building a static one.
    #[arg(long, value_name = "FILE")]
    agent: Option<PathBuf>,
    /// Where it goes; what was there goes away. target/dist unless it is said.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Builds and packages.
pub fn run_with(options: Options) -> Result<()> {
    let agent = options
        .agent
        .map_or_else(|| built_statically("nitro-user", "nitro-agent", &[]), Ok)?;
    let out = options.out.unwrap_or_else(|| target().join("dist"));
    let packager = built("nitro-dist", "nitro-dist")?;
    run(Command::new(packager).arg("--agent").arg(agent).arg("--out").arg(out))
}

/// Builds a binary of a package for release, linked with musl: it runs on every distribution, whatever its C library, and where there is none. `settings` are cargo's, by
/// their environment variables.
pub fn built_statically(package: &str, binary: &str, settings: &[(&str, &str)]) -> Result<PathBuf> {
    let triple = match std::env::consts::ARCH {
        "x86_64" => "x86_64-unknown-linux-musl",
        other => bail!("a static binary is built on x86-64, not on {other}"),
    };
    add(triple)?;
    let (variable, compiler) = c_compiler(triple)?;
    run(cargo()
        .args(["build", "--release", "--quiet", "--locked", "--target", triple])
        .args(["--package", package, "--bin", binary])
        // Nothing in it that debuggers alone read: a third of the size.
        .env("CARGO_PROFILE_RELEASE_STRIP", "symbols")
        .env("CARGO_PROFILE_RELEASE_DEBUG", "0")
        .env(variable, compiler)
        .envs(settings.iter().copied()))?;
    Ok(target().join(triple).join("release").join(binary))
}

/// The C compiler for `triple`, which SQLite is compiled with, and the variable that names it to the `cc` crate: what the user has set it to, else musl's own.
fn c_compiler(triple: &str) -> Result<(String, OsString)> {
    let variable = format!("CC_{}", triple.replace('-', "_"));
    let compiler = std::env::var_os(&variable).unwrap_or_else(|| "musl-gcc".into());
    let works = Command::new(&compiler).arg("--version").output();
    if !works.is_ok_and(|answer| answer.status.success()) {
        bail!(
            "a C compiler for {triple} is needed, and {compiler:?} does not run: install musl-tools (Debian, Ubuntu), musl-gcc (Fedora) or musl (Arch), or set {variable}"
        );
    }
    Ok((variable, compiler))
}

/// Has the standard library for `triple`, by rustup if it is not there.
fn add(triple: &str) -> Result<()> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let found = Command::new(rustc)
        .args(["--print", "target-libdir", "--target", triple])
        .output()
        .context("cannot run rustc")?;
    let folder = String::from_utf8(found.stdout)?;
    if !std::path::Path::new(folder.trim()).is_dir() {
        run(Command::new("rustup").args(["target", "add", triple]))
            .with_context(|| format!("Rust's library for {triple} is needed: `rustup target add {triple}`"))?;
    }
    Ok(())
}
