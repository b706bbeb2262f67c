//! The agent on kernels that this machine does not run, in an emulated virtual machine: `cargo xtask vm-test`.
//!
//! In: Debian's packaged kernels and QEMU. Out: a table of scenarios, and an exit code. Everything lies below `target/vm`; the machine has no network, its disk is
//! a scratch file, and it ends with this task. Its first process is `nitro-bench guest`, in `tests/src/guest`, which runs the scenarios.

mod image;
mod kernel;
mod machine;

use std::{
    io::IsTerminal,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use comfy_table::{ContentArrangement, Table, presets::UTF8_FULL};

use crate::workspace::{cargo, run, target};

/// A kernel that is tried.
struct Kernel {
    /// For people.
    name: &'static str,
    /// Begins the name of its package, of which the newest in the lists is taken.
    package: &'static str,
    /// What `--events auto` is to end with.
    auto: &'static str,
}

/// The oldest kernel that is supported.
const KERNELS: &[Kernel] = &[Kernel {
    name: "6.1",
    package: "linux-image-6.1.0-",
    auto: "fentry",
}];

/// Programs, and Debian's packages of them.
const TOOLS: &[(&str, &str)] = &[
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("cpio", "cpio"),
    ("mkfs.ext4", "e2fsprogs"),
    ("dpkg-deb", "dpkg"),
    ("apt-get", "apt"),
    ("xz", "xz-utils"),
];

/// Target of the programs, which find no library in the machine.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Columns of the table where nobody says how many there are.
const WIDTH: u16 = 140;

/// Options of the task.
#[derive(clap::Args)]
pub struct Options {
    /// Seconds until a machine that does not end is ended.
    #[arg(long, default_value_t = 240)]
    timeout: u64,
    /// Also print what the machine prints.
    #[arg(long)]
    verbose: bool,
}

/// Builds, boots each kernel, and reports.
pub fn vm_test(options: &Options) -> Result<()> {
    check_tools()?;
    let programs = programs()?;
    let place = target().join("vm");
    let (mut failed, mut table) = (0, Table::new());
    if !std::io::stdout().is_terminal() {
        table.set_width(WIDTH);
    }
    table
        .load_preset(UTF8_FULL)
        .set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["kernel", "scenario", "verdict", "what was seen"]);
    for kernel in KERNELS {
        let files = kernel::fetch(kernel.package, &place)?;
        let image = image::build(&files, &programs, &place)?;
        let begun = Instant::now();
        let limit = Duration::from_secs(options.timeout);
        let results = machine::run(&image, kernel.auto, limit, options.verbose)?;
        for result in &results {
            failed += usize::from(!result.ok);
            let verdict = if result.ok { "ok" } else { "FAILED" };
            table.add_row([kernel.name, &result.scenario, verdict, &result.words]);
        }
        let seconds = begun.elapsed().as_secs();
        eprintln!("{}: {} scenarios in {seconds} s", files.release, results.len());
    }
    println!("{table}");
    if failed > 0 {
        bail!("{failed} scenarios failed");
    }
    Ok(())
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

/// The agent and the program that tests it, linked statically, without what only debuggers read.
fn programs() -> Result<Vec<PathBuf>> {
    // A target directory of their own: other flags would have everything built again.
    let place = target().join("vm/build");
    let mut build = cargo();
    build
        .args(["build", "--release", "--target", TARGET, "--target-dir"])
        .arg(&place)
        .args(["--package", "nitro-user", "--package", "nitro-tests", "--bins"])
        .env("RUSTFLAGS", "-Ctarget-feature=+crt-static -Cstrip=debuginfo")
        .env("CARGO_PROFILE_RELEASE_LTO", "off");
    run(&mut build)?;
    let built = place.join(TARGET).join("release");
    Ok(vec![built.join("nitro-agent"), built.join("nitro-bench")])
}
