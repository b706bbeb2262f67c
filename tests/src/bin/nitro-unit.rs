//! Runs the service of a unit under what the unit says, with a directory as `/`: `nitro-unit ROOT UNIT NOTIFY`, where UNIT and NOTIFY are paths in ROOT.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};
use rig::unit::{Unit, become_service};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("nitro-unit: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let mut next = || arguments.next().context("usage: nitro-unit ROOT UNIT NOTIFY");
    let (root, unit, notify) = (PathBuf::from(next()?), PathBuf::from(next()?), next()?);
    let path = root.join(unit.strip_prefix("/").unwrap_or(&unit));
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    become_service(&Unit::parse(&text)?, &root, &notify.to_string_lossy())
}
