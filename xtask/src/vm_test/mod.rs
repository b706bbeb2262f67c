//! The agent on kernels that this machine does not run, in an emulated virtual machine: `cargo xtask vm-test`.
//!
//! In: Debian's packaged kernels and QEMU. Out: a table of scenarios, and an exit code. Everything lies below `target/vm`; the machine has no network, its disk is
//! a scratch file, and it ends with this task. Its first process is `nitro-bench guest`, in `tests/src/guest`, which runs the scenarios.

mod apt;
mod image;
mod kernel;
mod machine;
mod report;

use std::{
    io::IsTerminal,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets::UTF8_FULL};
use image::Image;
use report::{Scenario, Verdict};

use crate::{dist::built_statically, workspace::target};

/// A kernel that is tried.
struct Kernel {
    /// On the command line and in the table.
    name: &'static str,
    /// Begins the name of its package, of which the newest is taken.
    package: &'static str,
    /// Suites of Debian that have it, the smallest lists first; for machines whose own lists have it not.
    suites: &'static [&'static str],
    /// The modes that it offers; `--events auto` is to end with the first.
    modes: &'static [&'static str],
}

/// The oldest kernel that is supported, and the oldest with all tracepoints.
const KERNELS: &[Kernel] = &[
    Kernel {
        name: "6.1",
        package: "linux-image-6.1.",
        suites: &["bookworm"],
        modes: &["fentry", "syscalls", "fanotify"],
    },
    Kernel {
        name: "6.12",
        package: "linux-image-6.12.",
        suites: &["bookworm-backports", "trixie"],
        modes: &["page-cache", "fentry", "syscalls", "fanotify"],
    },
];

/// Which kernels are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Which {
    /// The oldest that is supported.
    #[value(name = "6.1")]
    Oldest,
    /// The first with all tracepoints.
    #[value(name = "6.12")]
    Tracepoints,
    /// All of them.
    All,
}

impl Which {
    fn includes(self, kernel: &Kernel) -> bool {
        self == Self::All
            || self
                .to_possible_value()
                .is_some_and(|value| value.get_name() == kernel.name)
    }
}

/// Programs, and Debian's packages of them.
const TOOLS: &[(&str, &str)] = &[
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("cpio", "cpio"),
    ("mkfs.ext4", "e2fsprogs"),
    ("dpkg-deb", "dpkg"),
    ("apt-get", "apt"),
    ("xz", "xz-utils"),
    ("setpriv", "util-linux"),
];

/// Columns of the table where nobody says how many there are.
const WIDTH: u16 = 160;

/// Options of the task.
#[derive(clap::Args)]
pub struct Options {
    /// The kernel to try.
    #[arg(long, value_enum, default_value = "all")]
    kernel: Which,
    /// Seconds until a machine that does not end is ended.
    #[arg(long, default_value_t = 480)]
    timeout: u64,
    /// Also print what the machine prints.
    #[arg(long)]
    verbose: bool,
}

/// Builds, boots each kernel, and reports.
pub fn vm_test(options: &Options) -> Result<()> {
    check_tools()?;
    let begun = Instant::now();
    let programs = programs()?;
    eprintln!("built in {} s", begun.elapsed().as_secs());
    let place = target().join("vm");
    let (mut failed, mut table) = (Vec::new(), Table::new());
    if !std::io::stdout().is_terminal() {
        table.set_width(WIDTH);
    }
    table
        .load_preset(UTF8_FULL)
        .set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["kernel", "scenario", "verdict", "what was seen"]);
    let chosen = KERNELS.iter().filter(|kernel| options.kernel.includes(kernel));
    // One after the other: apt locks its lists.
    let machines: Vec<Machine> = chosen
        .map(|kernel| {
            let files = kernel::fetch(kernel.package, kernel.suites, &place);
            let image = files.and_then(|files| image::build(&files, &programs, &place.join(kernel.name)));
            Machine { kernel, image }
        })
        .collect();
    eprintln!("kernels had after {} s", begun.elapsed().as_secs());
    for (kernel, scenarios) in all_at_once(machines, options) {
        for scenario in scenarios {
            if scenario.verdict == Verdict::Failed {
                failed.push(format!("{} {}", kernel.name, scenario.name));
            }
            table.add_row([kernel.name, &scenario.name, scenario.verdict.name(), &scenario.words]);
        }
    }
    println!("{table}");
    eprintln!("{} s in all", begun.elapsed().as_secs());
    if !failed.is_empty() {
        bail!("{} scenarios failed: {}", failed.len(), failed.join(", "));
    }
    Ok(())
}

/// A kernel with its machine, or why there is none.
struct Machine {
    kernel: &'static Kernel,
    image: Result<Image>,
}

impl Machine {
    /// What it says. Without a machine, or without an answer of it, that is a scenario that failed: the others' are told all the same.
    fn scenarios(self, options: &Options) -> Vec<Scenario> {
        let begun = Instant::now();
        let kernel = self.kernel;
        let limit = Duration::from_secs(options.timeout);
        let echo = options.verbose.then_some(kernel.name);
        let ran = self.image.and_then(|image| {
            let scenarios = machine::run(&image, kernel.modes, limit, echo)?;
            Ok((image.release.clone(), scenarios))
        });
        match ran {
            Ok((release, scenarios)) => {
                let (count, seconds) = (scenarios.len(), begun.elapsed().as_secs());
                eprintln!("{release}: {count} scenarios in {seconds} s");
                scenarios
            }
            Err(error) => {
                eprintln!("{}: {error:#}", kernel.name);
                vec![Scenario::without_machine(&format!("{error:#}"))]
            }
        }
    }
}

/// What the machines say. They wait for their disks most of the time, so that two of them take little longer than one.
fn all_at_once(machines: Vec<Machine>, options: &Options) -> Vec<(&'static Kernel, Vec<Scenario>)> {
    std::thread::scope(|scope| {
        let running: Vec<_> = machines
            .into_iter()
            .map(|machine| (machine.kernel, scope.spawn(move || machine.scenarios(options))))
            .collect();
        let ended = running.into_iter().map(|(kernel, machine)| {
            let scenarios = machine.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            (kernel, scenarios)
        });
        ended.collect()
    })
}

fn check_tools() -> Result<()> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = std::env::split_paths(&paths).collect();
    places.extend(["/usr/sbin", "/sbin"].map(PathBuf::from));
    let is_missing = |tool: &str| !places.iter().any(|place| place.join(tool).exists());
    let missing: Vec<&str> = TOOLS
        .iter()
        .filter(|(tool, _)| is_missing(tool))
        .map(|(_, package)| *package)
        .collect();
    if !missing.is_empty() {
        let packages = missing.join(" ");
        bail!("vm-test needs {packages}: apt-get install --no-install-recommends {packages}");
    }
    Ok(())
}

/// The agent as it is handed out and the program that tests it: there is no library in the machine.
fn programs() -> Result<Vec<PathBuf>> {
    // Optimisation across crates would take most of the time.
    let quick = [("CARGO_PROFILE_RELEASE_LTO", "off")];
    [("nitro-user", "nitro-agent"), ("nitro-tests", "nitro-bench")]
        .into_iter()
        .map(|(package, binary)| built_statically(package, binary, &quick))
        .collect()
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    #[test]
    fn a_machine_that_cannot_be_had_takes_no_other_ones_results_along() {
        let options = Line::parse_from(["vm-test"]).options;
        let machines = KERNELS.iter().map(|kernel| Machine {
            kernel,
            image: Err(anyhow!("no package of {}", kernel.name)),
        });
        let all = all_at_once(machines.collect(), &options);
        let told: Vec<_> = all
            .iter()
            .map(|(kernel, scenarios)| (kernel.name, scenarios[0].verdict, scenarios[0].words.as_str()))
            .collect();
        assert_eq!(
            told,
            [
                ("6.1", Verdict::Failed, "no package of 6.1"),
                ("6.12", Verdict::Failed, "no package of 6.12")
            ]
        );
    }

    #[test]
    fn every_kernel_can_be_chosen() {
        let names = |which: Which| -> Vec<_> {
            let chosen = KERNELS.iter().filter(|kernel| which.includes(kernel));
            chosen.map(|kernel| kernel.name).collect()
        };
        assert_eq!(names(Which::Oldest), ["6.1"]);
        assert_eq!(names(Which::Tracepoints), ["6.12"]);
        assert_eq!(names(Which::All).len(), KERNELS.len());
    }
}
