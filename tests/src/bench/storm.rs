//! Whether the agent's counts are true when much happens: a storm of a known number of accesses, and one as fast as it goes.
//!
//! Every access of the storm lies in another 2 MiB step than the one before it, so that none coalesces and each one is an event.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::Path,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};

use super::{Check, Common, Outcome, objects_with};
use crate::{
    agent::{Agent, AgentProcess},
    disk::TestDisk,
    tree::series,
};

const STEP: u64 = nitro_user::units::STEP;
const FILE: u64 = 256 << 20;
/// Between two looks at the clock: as short as keeps the rate even.
const TICK: Duration = Duration::from_millis(1);
/// How long the counters may take to come to rest.
const REST: Duration = Duration::from_secs(10);

/// Options of `nitro-bench storm`.
#[derive(Clone, Debug, Args)]
pub struct StormArgs {
    #[command(flatten)]
    common: Common,
    /// Accesses per second.
    #[arg(long, default_value_t = 200_000)]
    rate: u64,
    /// Seconds of the storm with that rate.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Seconds of the saturation.
    #[arg(long, default_value_t = 5)]
    saturate: u64,
    /// Threads of the saturation; by default two for each processor.
    #[arg(long)]
    threads: Option<usize>,
}

/// The agent's accounting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
struct Counts {
    seen: u64,
    filtered: u64,
    coalesced: u64,
    delivered: u64,
    dropped: u64,
    cursors_full: u64,
    received: u64,
}

impl Counts {
    fn read(agent: &AgentProcess) -> Result<Self> {
        let status = agent.ask("status")?;
        let counters = objects_with(&status, "coalesced")
            .into_iter()
            .next()
            .context("no counters in the agent's status")?;
        let received = objects_with(&status, "ring_received")
            .into_iter()
            .next()
            .context("no ring_received in the agent's status")?;
        let field = |object: &Value, name: &str| {
            object[name]
                .as_u64()
                .with_context(|| format!("counter {name} in the agent's status"))
        };
        Ok(Self {
            seen: field(counters, "seen")?,
            filtered: field(counters, "filtered")?,
            coalesced: field(counters, "coalesced")?,
            delivered: field(counters, "delivered")?,
            dropped: field(counters, "dropped")?,
            cursors_full: field(counters, "cursors_full")?,
            received: field(received, "ring_received")?,
        })
    }

    /// Reads until the sums hold: processors are read one after the other, and others on the machine never rest entirely.
    fn at_rest(agent: &AgentProcess) -> Result<Self> {
        let deadline = Instant::now() + REST;
        loop {
            let counts = Self::read(agent)?;
            if counts.adds_up() && counts.arrived() || Instant::now() > deadline {
                return Ok(counts);
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn adds_up(self) -> bool {
        self.seen == self.filtered + self.coalesced + self.delivered + self.dropped
    }

    fn arrived(self) -> bool {
        self.delivered == self.received
    }
}

/// Runs both storms.
///
/// # Errors
/// When the rig or the agent fails, or the agent's status lacks the counters.
pub fn run(args: &StormArgs) -> Result<ExitCode> {
    let agent = args.common.prepare()?;
    let disk = TestDisk::new(&args.common.dir, FILE + (128 << 20))?;
    let tree = series::numbered(disk.path(), "storm", 1, 1, FILE)?;
    let path = &tree.files[0];
    disk.drop_caches()?;
    std::io::copy(
        &mut File::open(path).context("open the storm's file")?,
        &mut std::io::sink(),
    )
    .context("cache the storm's file")?;
    let agent = Agent::new(&agent, disk.path()).start(None)?;

    let before = Counts::at_rest(&agent)?;
    eprintln!("storm: {} accesses a second for {} s", args.rate, args.seconds);
    let start = Instant::now();
    let made = at_rate(path, args.rate, args.seconds)?;
    let took = start.elapsed();
    let storm = Counts::at_rest(&agent)?;

    let threads = args
        .threads
        .unwrap_or_else(|| 2 * thread::available_parallelism().map_or(1, std::num::NonZero::get));
    eprintln!("saturation: {threads} threads for {} s", args.saturate);
    let fast = saturate(path, threads, Duration::from_secs(args.saturate))?;
    let rest = Counts::at_rest(&agent)?;
    agent.stop()?;

    let events = storm.delivered - before.delivered + storm.dropped - before.dropped;
    let sum = rest.filtered + rest.coalesced + rest.delivered + rest.dropped;
    let checks = [
        Check::new(
            "storm: rate",
            format!("{:.0}/s", made as f64 / took.as_secs_f64()),
            format!("{}/s", args.rate),
            took.as_secs_f64() < args.seconds as f64 * 1.02,
        ),
        Check::new(
            "storm: delivered + dropped",
            events.to_string(),
            format!("≥ {made} accesses"),
            events >= made,
        ),
        Check::new(
            "storm: dropped",
            (storm.dropped - before.dropped).to_string(),
            "0",
            storm.dropped == before.dropped,
        ),
        Check::new(
            "storm: cursors full",
            (storm.cursors_full - before.cursors_full).to_string(),
            "0",
            storm.cursors_full == before.cursors_full,
        ),
        Check::new(
            "rest: filtered + coalesced + delivered + dropped",
            sum.to_string(),
            format!("= seen {}", rest.seen),
            rest.adds_up(),
        ),
        Check::new(
            "rest: received",
            rest.received.to_string(),
            format!("= delivered {}", rest.delivered),
            rest.arrived(),
        ),
    ];
    let notes = vec![
        format!(
            "storm: {made} accesses in {:.2} s by one thread, no two in a row in the same 2 MiB",
            took.as_secs_f64()
        ),
        format!(
            "saturation: {fast} accesses by {threads} threads; {} events of it dropped and counted",
            rest.dropped - storm.dropped
        ),
    ];
    let figures = json!({ "made": made, "saturated": fast, "before": before, "storm": storm, "rest": rest });
    Outcome::of_checks("storm", notes, &checks, figures).publish(&args.common)
}

/// Offset of the `index`th access: neighbours in time are far apart in the file.
fn offset(index: u64) -> u64 {
    let steps = FILE / STEP;
    // Odd and near the golden section of the steps: visits each of a power of two before any again.
    (index.wrapping_mul((steps * 618 / 1000) | 1) % steps) * STEP
}

fn read_byte(file: &File, index: u64) -> Result<()> {
    file.read_exact_at(&mut [0], offset(index))
        .context("access of the storm")
}

/// Exactly `rate × seconds` accesses, evenly.
fn at_rate(path: &Path, rate: u64, seconds: u64) -> Result<u64> {
    let file = File::open(path).context("open the storm's file")?;
    let total = rate * seconds;
    let (start, mut made) = (Instant::now(), 0);
    while made < total {
        // Behind after a pause, it catches up: the number is exact and the rate is right on average.
        let due = ((start.elapsed() + TICK).as_secs_f64() * rate as f64) as u64;
        while made < due.min(total) {
            read_byte(&file, made)?;
            made += 1;
        }
        thread::sleep(TICK.saturating_sub(Duration::from_micros(
            start.elapsed().as_micros() as u64 % TICK.as_micros() as u64,
        )));
    }
    Ok(made)
}

/// As many accesses as the threads can make in `time`, each through a descriptor of its own.
fn saturate(path: &Path, threads: usize, time: Duration) -> Result<u64> {
    let end = Instant::now() + time;
    let one = |number: usize| -> Result<u64> {
        let file = File::open(path).context("open the storm's file")?;
        let mut made = 0;
        while Instant::now() < end {
            for _ in 0..256 {
                read_byte(&file, made + number as u64)?;
                made += 1;
            }
        }
        Ok(made)
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|number| scope.spawn(move || one(number))).collect();
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .sum()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_accesses_in_a_row_are_in_the_same_or_the_next_step() {
        for index in 0..1000 {
            let (here, next) = (offset(index) / STEP, offset(index + 1) / STEP);
            assert!(here.abs_diff(next) > 1, "{here} then {next}");
        }
    }
}
