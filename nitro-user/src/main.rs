//! The `nitro-agent` command.

use std::process::ExitCode;

use clap::Parser;
use nitro_user::cli::{self, Cli};

fn main() -> ExitCode {
    match cli::run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("nitro-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}
