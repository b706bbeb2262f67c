//! `nitro-agent bench` from its plan to its results: checks, then one device after the other.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use super::{
    compare,
    plan::{Device, Plan},
    progress::Progress,
    report::{self, Results},
    room::{self, Place},
    site::{Order, Site},
    sweep, verdict,
};
use crate::units::ByteCount;

/// Smallest model: below it nothing is measured but the start of processes.
const SMALLEST: u64 = 16 << 20;

/// Largest one: nobody loads more at once, and a size that was mistyped is told as such.
const LARGEST: u64 = 1 << 40;

/// Seconds that making a device takes, beside those that writing the models takes; for the progress alone.
const SETUP: f64 = 3.0;
/// Bytes of a model written in a second, roughly.
const WRITTEN: f64 = 5e8;

/// What is to be measured, and where.
#[derive(Clone, Debug)]
pub struct Bench {
    /// What.
    pub plan: Plan,
    /// Where what is made goes.
    pub dir: PathBuf,
    /// The user named that directory.
    pub given: bool,
    /// Models of holes, which take no room.
    pub hollow: bool,
}

/// Looks whether it can be measured; says what is left out. Nothing was made yet when it refuses.
///
/// # Errors
/// What is missing, and what to do.
pub fn prepare(bench: &mut Bench) -> Result<(Vec<String>, sweep::Prepared)> {
    room::needs_root("bench")?;
    let plan = &mut bench.plan;
    ensure!(
        plan.runs > 0,
        "--runs must be 1 at least, and {} for a verdict",
        verdict::FEWEST
    );
    ensure!(
        plan.size.is_none_or(|size| size >= SMALLEST),
        "--size must be {} at least: loads of less are over before anything can be said of them",
        ByteCount(SMALLEST)
    );
    ensure!(
        plan.size.is_none_or(|size| size <= LARGEST),
        "--size must be {} at most",
        ByteCount(LARGEST)
    );
    ensure!(
        !(bench.hollow && bench.given && plan.devices.contains(&Device::AsIs)),
        "--fill sparse cannot be measured on a directory as it is: holes are not read from the disk"
    );
    report::in_order(&mut plan.helps);
    let missing = room::available(&mut plan.helps);
    // Mounts and loop devices are told by canonical paths.
    bench.dir = bench
        .dir
        .canonicalize()
        .with_context(|| format!("cannot look at {}", bench.dir.display()))?;
    // What a killed run left may be what there is no room for.
    let prepared = sweep::prepare(&bench.dir)?;
    room::check(&bench.plan, &bench.dir, bench.given, bench.hollow)?;
    Ok((missing, prepared))
}

/// Measures.
///
/// # Errors
/// A disk, a store, a reader or the agent fails.
pub fn run(bench: &Bench) -> Result<Results> {
    let plan = &bench.plan;
    let program = room::this_program()?;
    let setup = |device: Device| SETUP + plan.models().len() as f64 * plan.bytes(device) as f64 / WRITTEN;
    let cells = |device: Device| plan.loaders.iter().map(move |&loader| plan.estimate(device, loader));
    let whole: f64 = plan
        .devices
        .iter()
        .map(|&device| setup(device) + cells(device).sum::<f64>())
        .sum();
    let progress = Progress::new(whole);
    let mut behind = 0.0;
    let (mut notes, mut results) = (Vec::from_iter(report::busy()), Vec::new());
    for &device in &plan.devices {
        progress.step(&format!(
            "{}: writing models of {}",
            device.name(),
            ByteCount(plan.bytes(device))
        ));
        let order = Order {
            base: &bench.dir,
            program: &program,
            device,
            place: Place::of(device, bench.given),
            bytes: plan.bytes(device),
            hollow: bench.hollow,
        };
        let site = Site::new(order, &plan.models()).with_context(|| format!("cannot make {}", device.name()))?;
        notes.push(site.note());
        behind += setup(device);
        progress.behind(behind);
        for &loader in &plan.loaders {
            let cell = compare::measure(&site, loader, plan, &program, &progress)
                .with_context(|| format!("{} × {}", device.name(), loader.name()))?;
            behind += plan.estimate(device, loader);
            progress.behind(behind);
            results.push(cell);
        }
    }
    progress.finish();
    notes.extend(report::notes(plan));
    notes.extend(report::short(&results));
    notes.extend(report::uncached(&results));
    Ok(Results {
        version: env!("CARGO_PKG_VERSION"),
        machine: report::machine(),
        notes,
        plan: plan.clone(),
        cells: results,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::plan::Loader;

    #[test]
    fn what_makes_no_sense_is_refused_before_anything_is_made() {
        let bench = Bench {
            plan: Plan {
                devices: vec![Device::AsIs],
                loaders: vec![Loader::Mmap],
                helps: Vec::new(),
                size: Some(32 << 20),
                runs: 3,
            },
            dir: std::env::temp_dir(),
            given: true,
            hollow: false,
        };
        let refused = |change: fn(&mut Bench)| {
            let mut bench = bench.clone();
            change(&mut bench);
            prepare(&mut bench).unwrap_err().to_string()
        };
        if !nix::unistd::geteuid().is_root() {
            assert!(refused(|_| {}).contains("sudo"));
            return;
        }
        assert!(refused(|bench| bench.plan.runs = 0).contains("--runs"));
        assert!(refused(|bench| bench.plan.size = Some(1 << 20)).contains("--size"));
        assert!(refused(|bench| bench.plan.size = Some(u64::MAX)).contains("at most"));
        assert!(refused(|bench| bench.hollow = true).contains("holes"));
        assert!(refused(|bench| bench.dir = "/nonexistent".into()).contains("/nonexistent"));
    }
}
