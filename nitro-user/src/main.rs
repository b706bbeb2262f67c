//! The `nitro-agent` command.

use std::{io::Write, process::ExitCode};

use clap::Parser;
use nitro_user::cli::{self, Cli};

fn main() -> ExitCode {
    match cli::run(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            // Nobody may read it: the exit code says it too.
            let _ = writeln!(std::io::stderr(), "nitro-agent: {}", cli::explain(&error));
            cli::exit_code(&error)
        }
    }
}
