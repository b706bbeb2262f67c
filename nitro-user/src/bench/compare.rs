//! One loader on one device: with each help in turn, round by round, and what that says.
//!
//! In every round each help has one load, in an order that moves on from round to round, so that what changes over time does not fall on one of them. The agent is
//! ready before the file is made cold, and shares the readers' allowance, as does what is run before a load.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use super::{
    agent::Agent,
    plan::{Device, Help, Loader, Plan, REFERENCES, SHARDS},
    progress::Progress,
    readers::{Kind, Reader, Report},
    room,
    site::Site,
    stats::{self, Interval, Summary},
    sweep, tree,
    verdict::{self, Times, Verdict, Words},
};
use crate::sys::measure;

/// Order of the tensors for the loader that has one of its own.
const ORDER_SEED: u64 = 42;
/// After so long it is stopped, and its time extrapolated.
const CAP: Duration = Duration::from_secs(20);
/// Work of a loader where the device's own time is not known.
const SOME_WORK: f64 = 0.1;
/// With less of a model in memory a load is not one from there.
pub const CACHED: f64 = 0.9;
/// More of a model in memory than this, and it is not cold.
const COLD: f64 = 0.01;

/// What was measured with one help.
#[derive(Clone, Debug, Serialize)]
pub struct Helped {
    /// Which.
    pub help: Help,
    /// Seconds of each load, with what was run before it.
    pub seconds: Vec<f64>,
    /// Their middle and spread.
    pub summary: Summary,
    /// Seconds of the loads alone, where something was run before.
    pub load_alone: Option<Summary>,
    /// Some loads were stopped early and their time extrapolated.
    pub extrapolated: bool,
    /// Where the middle of `seconds` lies.
    pub interval: Interval,
    /// Times as fast as without help, by pairs; `None` of the one without.
    pub faster: Option<Interval>,
}

/// What was measured of one loader on one device. Times in seconds.
#[derive(Clone, Debug, Serialize)]
pub struct Cell {
    /// The device.
    pub device: Device,
    /// The loader.
    pub loader: Loader,
    /// Bytes of what it loads.
    pub bytes: u64,
    /// What the device needs for them by `O_DIRECT` with several requests at once; `None` where that cannot be measured.
    pub limit: Option<f64>,
    /// What the loader needs with everything in memory.
    pub cached: f64,
    /// The share of its files that was there for that, 0–1.
    pub cached_share: f64,
    /// Processor time of that which is the loader's own work.
    pub work: f64,
    /// With each help.
    pub helped: Vec<Helped>,
    /// What is said of the agent.
    pub verdict: Verdict,
}

impl Cell {
    /// Whether what was to be from memory was.
    pub fn is_cached(&self) -> bool {
        self.cached_share >= CACHED
    }
}

/// One load.
#[derive(Clone, Copy, Debug)]
struct Sample {
    /// Seconds, with what was run before.
    seconds: f64,
    /// Seconds of the load.
    alone: f64,
    complete: bool,
    checksum: u64,
}

/// Measures one loader at a site; the agent is the program at `agent`.
///
/// # Errors
/// A reader, the agent or another program fails; two loads read different bytes; a file stays in memory.
pub fn measure(site: &Site, loader: Loader, plan: &Plan, agent: &Path, progress: &Progress) -> Result<Cell> {
    let label = format!("{} × {}", site.device().name(), loader.name());
    progress.step(&format!("{label}: the device's own limit"));
    let limit = device_limit(site, loader)?;
    let work = if loader == Loader::Safetensors {
        limit.unwrap_or(SOME_WORK)
    } else {
        0.0
    };
    let reader = reader(site, loader, work);
    progress.step(&format!("{label}: from memory"));
    let (cached, share) = cached(site, loader, &reader)?;
    let mut samples: Vec<Vec<Sample>> = vec![Vec::new(); plan.helps.len()];
    for run in 0..plan.runs {
        for turn in 0..plan.helps.len() {
            let index = (run + turn) % plan.helps.len();
            let help = plan.helps[index];
            progress.step(&format!("{label}: run {} of {}, {}", run + 1, plan.runs, spoken(help)));
            samples[index].push(load(site, loader, &reader, help, agent)?);
        }
    }
    let all = samples.iter().flatten().filter(|sample| sample.complete);
    let first = cached.iter().map(|report| report.checksum);
    let mut sums = first.chain(all.map(|sample| sample.checksum));
    let sum = sums.next();
    ensure!(
        sums.all(|other| Some(other) == sum),
        "two loads of the same files read different bytes"
    );
    let bytes = cached.first().map_or(0, |report| report.bytes);
    let cached = stats::median(&cached.iter().map(|report| report.seconds).collect::<Vec<_>>());
    Ok(evaluate(
        site.device(),
        loader,
        bytes,
        (limit, (cached, share), work),
        &plan.helps,
        &samples,
    ))
}

const fn spoken(help: Help) -> &'static str {
    match help {
        Help::None => "without help",
        Help::Agent => "with the agent",
        Help::Vmtouch => "after vmtouch",
        Help::Cat => "after cat",
    }
}

fn reader(site: &Site, loader: Loader, work: f64) -> Reader {
    let reader = site.reader(loader.kind(), loader.model());
    match loader {
        Loader::Random => reader.order_seed(ORDER_SEED).cap(CAP),
        Loader::Safetensors => reader.cpu(Duration::from_secs_f64(work / SHARDS as f64)),
        Loader::Mmap | Loader::LlamaCpp | Loader::Ollama => reader,
    }
}

/// Seconds in which the device itself delivers the loader's files.
fn device_limit(site: &Site, loader: Loader) -> Result<Option<f64>> {
    let model = loader.model();
    if !site.reads_directly(model) {
        return Ok(None);
    }
    let direct = site.reader(Kind::Direct, model);
    let seconds = (0..REFERENCES).map(|_| {
        site.cool(model)?;
        Ok(direct
            .run(site.group())
            .context("measure the device's own limit")?
            .seconds)
    });
    Ok(Some(stats::median(&seconds.collect::<Result<Vec<_>>>()?)))
}

/// Loads with everything in memory, as the kernel caches it best: in large folios. And how much of it was there, at the worst.
fn cached(site: &Site, loader: Loader, reader: &Reader) -> Result<(Vec<Report>, f64)> {
    site.unlimited(|| {
        site.cool(loader.model())?;
        site.reader(Kind::Read, loader.model()).run(site.group())?;
        let mut least: f64 = 1.0;
        let load = |_| {
            least = least.min(tree::resident(site.files(loader.model()))?);
            reader.run(site.group())
        };
        let reports = (0..REFERENCES).map(load).collect::<Result<_>>()?;
        Ok((reports, least))
    })
}

fn load(site: &Site, loader: Loader, reader: &Reader, help: Help, agent: &Path) -> Result<Sample> {
    // Ready before the file is made cold: it knows the files, and nothing of them is in memory.
    let running = match help {
        Help::Agent => Some(Agent::new(agent, site.watched()).start(site.group())?),
        Help::None | Help::Vmtouch | Help::Cat => None,
    };
    let files = site.files(loader.model());
    site.cool(loader.model())?;
    let here = tree::resident(files)?;
    ensure!(
        here <= COLD,
        "{:.0} % of the model was in memory before a cold load: something else on this machine reads it",
        here * 100.0
    );
    let began = Instant::now();
    if let Some((program, options)) = help.before() {
        before(program, options, site, loader)?;
    }
    let prepared = began.elapsed().as_secs_f64();
    let report = reader.run(site.group())?;
    if let Some(running) = running {
        running.stop()?.served()?;
    }
    let alone = report.whole_seconds();
    Ok(Sample {
        seconds: alone + if help.before().is_some() { prepared } else { 0.0 },
        alone,
        complete: report.complete >= 1.0,
        checksum: report.checksum,
    })
}

/// Runs a program that brings the files in.
fn before(program: &str, options: &[&str], site: &Site, loader: Loader) -> Result<()> {
    sweep::rest_if_interrupted();
    let mut command = room::command(program);
    command.args(options).args(site.files(loader.model()));
    measure::end_with_parent(&mut command);
    if let Some(group) = site.group() {
        group.join(&mut command)?;
    }
    let child = command.spawn().with_context(|| format!("start {program}"))?;
    let pid = child.id();
    sweep::adopt(pid);
    let output = child.wait_with_output();
    sweep::disown(pid);
    let output = output.with_context(|| format!("wait for {program}"))?;
    ensure!(
        output.status.success(),
        "{program} failed: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

/// Figures from loads; of each help as many as of the others, and of one round those with the same index.
fn evaluate(
    device: Device,
    loader: Loader,
    bytes: u64,
    (limit, (cached, cached_share), work): (Option<f64>, (f64, f64), f64),
    helps: &[Help],
    samples: &[Vec<Sample>],
) -> Cell {
    let seconds = |samples: &[Sample]| samples.iter().map(|sample| sample.seconds).collect::<Vec<_>>();
    let of = |help: Help| {
        let found = helps.iter().zip(samples).find(|(other, _)| **other == help);
        found.map(|(_, samples)| seconds(samples)).unwrap_or_default()
    };
    let without = of(Help::None);
    let helped = helps.iter().zip(samples).map(|(&help, samples)| {
        let seconds = seconds(samples);
        let alone: Vec<f64> = samples.iter().map(|sample| sample.alone).collect();
        Helped {
            help,
            summary: stats::summary(&seconds),
            load_alone: help.before().map(|_| stats::summary(&alone)),
            extrapolated: samples.iter().any(|sample| !sample.complete),
            interval: stats::median_interval(&seconds),
            faster: (help != Help::None).then(|| stats::median_interval(&stats::paired_ratios(&without, &seconds))),
            seconds,
        }
    });
    let times = Times {
        without: stats::median(&without),
        cached: (cached_share >= CACHED).then_some(cached),
        limit,
    };
    let words = Words {
        done: "to load",
        device: "the device",
    };
    Cell {
        device,
        loader,
        bytes,
        limit,
        cached,
        cached_share,
        work,
        helped: helped.collect(),
        verdict: verdict::judge(&stats::paired_ratios(&without, &of(Help::Agent)), times, words),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn sample(seconds: f64, alone: f64) -> Sample {
        Sample {
            seconds,
            alone,
            complete: true,
            checksum: 0,
        }
    }

    /// A cell as it may come out.
    pub fn cell() -> Cell {
        let samples = [
            [8.1, 8.2, 8.0, 8.1, 8.2, 8.0]
                .map(|seconds| sample(seconds, seconds))
                .to_vec(),
            [2.1, 2.2, 2.1, 2.1, 2.2, 2.1]
                .map(|seconds| sample(seconds, seconds))
                .to_vec(),
            [4.1, 4.2, 4.1, 4.1, 4.2, 4.1]
                .map(|seconds| sample(seconds, 0.1))
                .to_vec(),
        ];
        let helps = [Help::None, Help::Agent, Help::Vmtouch];
        evaluate(
            Device::Gp3,
            Loader::LlamaCpp,
            1 << 30,
            (Some(2.0), (0.1, 1.0), 0.0),
            &helps,
            &samples,
        )
    }

    #[test]
    fn ratios_are_those_of_loads_of_one_round() {
        let cell = cell();
        let [none, agent, vmtouch] = cell.helped.as_slice() else {
            panic!("{cell:?}")
        };
        assert_eq!(none.faster, None);
        let faster = agent.faster.unwrap();
        assert!(
            (faster.middle - 8.0 / 2.1).abs() < 0.05 && faster.low > 3.6 && faster.high < 3.9,
            "{faster:?}"
        );
        assert_eq!(vmtouch.summary.median, 4.1);
        assert_eq!(vmtouch.load_alone.unwrap().median, 0.1);
        assert_eq!(
            cell.verdict.sentence,
            "3.8 times faster to load; the device is bound by requests"
        );
    }
}
