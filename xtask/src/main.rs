//! Developer tasks: `cargo xtask build-ebpf | run | test | check | layers | bench | vm-test | dist`.

mod build_ebpf;
mod check;
mod dist;
mod layers;
mod run;
mod vm_test;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Developer tasks of nitro-agent.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Tasks {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Rebuild the eBPF object from its sources (installs the linker into target/).
    BuildEbpf(build_ebpf::Options),
    /// Build the agent and run it, through sudo when not root: `cargo xtask run -- --watch DIR`.
    Run(run::Forwarded),
    /// All tests: units, properties, and end to end on this kernel as root.
    Test(run::Forwarded),
    /// Format, clippy, documentation, imports, eBPF object.
    Check,
    /// The direction of imports between the stages.
    Layers,
    /// Benches on a disk of their own, as root: `cargo xtask bench cold --help`.
    Bench(run::Forwarded),
    /// The agent as one static binary, with unit, man pages, completions, Debian package and scripts, in target/dist.
    Dist(dist::Options),
    /// The agent on Debian's packaged kernels, in an emulated virtual machine.
    VmTest(vm_test::Options),
}

fn main() -> ExitCode {
    let done = match Tasks::parse().task {
        Task::BuildEbpf(options) => build_ebpf::run(&options),
        Task::Run(forwarded) => run::agent(&forwarded),
        Task::Test(forwarded) => run::tests(&forwarded),
        Task::Check => check::run(),
        Task::Layers => layers::run(),
        Task::Bench(forwarded) => run::bench(&forwarded),
        Task::Dist(options) => dist::run_with(options),
        Task::VmTest(options) => vm_test::vm_test(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
