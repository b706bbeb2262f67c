//! Benches of the agent on the real kernel, and the readers they time.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use rig::readers::{self, ReaderArgs};

#[derive(Parser)]
#[command(about, version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// One load, reported as JSON (the benches run it as a process of its own).
    #[command(hide = true)]
    Reader(ReaderArgs),
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Reader(args) => {
            println!("{}", serde_json::to_string(&readers::run(&args)?)?);
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("nitro-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
