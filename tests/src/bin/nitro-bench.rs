//! Benches of the agent on the real kernel, and the readers they time.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use rig::{
    bench::{cold, cost, day, idle, latency, neighbours, predict, sim, storm, trace, warm},
    guest,
    readers::{self, ReaderArgs},
    store::{self, StoreArgs},
    sweep,
};

#[derive(Parser)]
#[command(about, version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Cold loads with and without the agent, on every device and by every reader.
    Cold(cold::ColdArgs),
    /// What the agent costs others: system calls with it, without it, and with empty hooks.
    Cost(cost::CostArgs),
    /// Whether the agent's counts are true when much happens.
    Storm(storm::StormArgs),
    /// From evidence to the first readahead.
    Latency(latency::LatencyArgs),
    /// What others on the device notice: a bystander, two loads at once, a scanner.
    Neighbours(neighbours::NeighboursArgs),
    /// What keeping models in memory is worth, and costs others: reloads after a neighbour, models larger than the memory, a hog.
    Warm(warm::WarmArgs),
    /// What recording costs, and how long a large trace takes to be shown and drawn.
    Trace(trace::TraceArgs),
    /// What the agent costs when nothing happens.
    Idle(idle::IdleArgs),
    /// What a million learned transitions cost: start, memory, look-ups.
    Predict(predict::PredictArgs),
    /// Days of several programs, models and loads in the simulator: the agent, and what is simpler.
    Day(day::DayArgs),
    /// What the simulator predicts for the cells that `cold` measured.
    Sim(sim::SimArgs),
    /// One load, reported as JSON (the benches run it as a process of its own).
    #[command(name = readers::SUBCOMMAND, hide = true)]
    Reader(ReaderArgs),
    /// The scenarios of `cargo xtask vm-test`, as the first process of its virtual machine.
    #[command(hide = true)]
    Guest(guest::GuestArgs),
    /// Reads here and there, reported as JSON (a bench runs it as a process of its own).
    #[command(hide = true)]
    Bystander(neighbours::BystanderArgs),
    /// One load of a day on the real kernel, reported as JSON (a bench runs it as a process of its own).
    #[command(hide = true)]
    DayPlayer(day::real::PlayerArgs),
    /// A prefetcher that is told what readers do (a bench runs it as a process of its own).
    #[command(hide = true)]
    DayWarmer(day::real::WarmerArgs),
    /// Takes memory and keeps it (a bench runs it as a process of its own).
    #[command(hide = true)]
    Hog(warm::HogArgs),
    /// Works on files and memory of its own, reported as JSON (a bench runs it as a process of its own).
    #[command(hide = true)]
    Worker(warm::WorkerArgs),
    /// A file system that takes its time (the benches and tests run it as a process of its own).
    #[command(name = store::SUBCOMMAND, hide = true)]
    Store(StoreArgs),
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Cold(args) => cold::run(&args),
        Command::Cost(args) => cost::run(&args),
        Command::Storm(args) => storm::run(&args),
        Command::Latency(args) => latency::run(&args),
        Command::Idle(args) => idle::run(&args),
        Command::Trace(args) => trace::run(&args),
        Command::Predict(args) => predict::run(&args),
        Command::Sim(args) => sim::run(&args),
        Command::Day(args) => day::run(&args),
        Command::Guest(args) => guest::run(&args),
        Command::Neighbours(args) => neighbours::run(&args),
        Command::Bystander(args) => {
            println!("{}", serde_json::to_string(&neighbours::bystander(&args)?)?);
            Ok(ExitCode::SUCCESS)
        }
        Command::DayPlayer(args) => {
            println!("{}", serde_json::to_string(&day::real::play(&args)?)?);
            Ok(ExitCode::SUCCESS)
        }
        Command::DayWarmer(args) => day::real::warm(&args).map(|()| ExitCode::SUCCESS),
        Command::Warm(args) => warm::run(&args),
        Command::Hog(args) => warm::hog(&args).map(|()| ExitCode::SUCCESS),
        Command::Worker(args) => {
            println!("{}", serde_json::to_string(&warm::work(&args)?)?);
            Ok(ExitCode::SUCCESS)
        }
        Command::Store(args) => store::serve(&args).map(|()| ExitCode::SUCCESS),
        Command::Reader(args) => {
            println!("{}", serde_json::to_string(&readers::run(&args)?)?);
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn main() -> ExitCode {
    let done = run(Cli::parse());
    sweep::rest_if_interrupted();
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("nitro-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
