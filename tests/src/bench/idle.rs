//! What the agent costs when nothing happens: time to ready, memory, wake-ups.

use std::{
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use clap::Args;
use nitro_user::units::ByteCount;
use serde_json::json;

use super::{Check, Common, Outcome};
use crate::{agent::Agent, disk::TestDisk, tree::series};

/// Bytes of each file: what matters is their number.
const EACH: u64 = 8 << 10;
const READY: Duration = Duration::from_secs(1);
const RESIDENT: u64 = 40 << 20;
const WAKE_UPS: f64 = 1.0;

/// Options of `nitro-bench idle`.
#[derive(Clone, Debug, Args)]
pub struct IdleArgs {
    #[command(flatten)]
    common: Common,
    /// Files under the watch root.
    #[arg(long, default_value_t = 10_000)]
    files: usize,
    /// Seconds before anything is measured.
    #[arg(long, default_value_t = 10)]
    settle: u64,
    /// Seconds over which wake-ups are counted.
    #[arg(long, default_value_t = 20)]
    watch: u64,
}

/// Starts the agent on many files and leaves it alone.
///
/// # Errors
/// When the rig or the agent fails.
pub fn run(args: &IdleArgs) -> Result<ExitCode> {
    let agent = args.common.prepare()?;
    let disk = TestDisk::new(&args.common.dir, args.files as u64 * 2 * EACH + (512 << 20))?;
    eprintln!("writing {} files", args.files);
    series::unrelated(disk.path(), 1, args.files, EACH)?;
    // Written back now: otherwise the kernel's write-back is what the agent sees while it should see nothing.
    disk.drop_caches()?;
    let agent = Agent::new(&agent, disk.path()).start(None)?;
    let ready = agent.time_to_ready();
    eprintln!("ready after {ready:?}; {} s of rest", args.settle + args.watch);
    thread::sleep(Duration::from_secs(args.settle));
    let resident = agent.resident_bytes()?;
    let (before, start) = (agent.voluntary_switches()?, Instant::now());
    thread::sleep(Duration::from_secs(args.watch));
    let wake_ups = agent.voluntary_switches()?.saturating_sub(before) as f64 / start.elapsed().as_secs_f64();
    let stopped = agent.stop()?;

    let checks = [
        Check::new(
            "start to ready, cold",
            format!("{:.3} s", ready.as_secs_f64()),
            format!("≤ {} s", READY.as_secs()),
            ready <= READY,
        ),
        Check::new(
            "resident memory",
            ByteCount(resident).to_string(),
            format!("≤ {}", ByteCount(RESIDENT)),
            resident <= RESIDENT,
        ),
        Check::new(
            "wake-ups",
            format!("{wake_ups:.2}/s"),
            format!("≤ {WAKE_UPS}/s"),
            wake_ups <= WAKE_UPS,
        ),
        Check::new(
            "SIGTERM to end",
            format!("{:.3} s", stopped.took.as_secs_f64()),
            "exit code 0",
            stopped.status.success(),
        ),
    ];
    let notes = vec![format!(
        "{} files of {}, {} s of rest before the memory, {} s of wake-ups",
        args.files,
        ByteCount(EACH),
        args.settle,
        args.watch
    )];
    let figures =
        json!({ "ready_seconds": ready.as_secs_f64(), "resident_bytes": resident, "wake_ups_per_second": wake_ups });
    Outcome::of_checks("idle", notes, &checks, figures).publish(&args.common)
}
