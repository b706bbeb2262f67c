//! A neighbour that nearly fills the memory it may have, beside an agent that holds all that it may.

use std::{
    ffi::OsStr,
    fs::{self, File},
    os::unix::fs::FileExt,
    path::PathBuf,
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    Check, Part, Progress, percent, ratio, seconds,
    stage::{Group, Stage, await_pins, await_that, bytes, in_kib, present},
    table,
};
use crate::{
    agent::AgentProcess,
    bench::{companion::Companion, in_turns},
    limit::IoLimit,
    stats,
    sys::{PAGE, drop_pages},
};

/// A neighbour's time with the agent, against the time without.
const TIME: f64 = 1.05;
/// What it has to read again may be so much more …
const AGAIN: f64 = 1.05;
/// … and this share of what it works on, where it had nothing to read again.
const SLACK: f64 = 0.01;

/// Of the limit, in hundredths: files that the neighbour works on, and memory of its own.
const FILES: u64 = 60;
const OWN: u64 = 25;
/// So often it goes through all of it: ten seconds or so. What it loses until the agent has noticed, it loses once.
const ROUNDS: usize = 300;
/// What the agent has when the neighbour begins, of its ceiling.
const FULL: f64 = 0.9;

/// What the hidden subcommand takes.
#[derive(Clone, Debug, Args)]
pub struct WorkerArgs {
    /// The file it works on …
    pub path: PathBuf,
    /// … so many bytes from its beginning …
    pub bytes: u64,
    /// … and so many of its own.
    pub own: u64,
}

/// What a neighbour's work was.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Work {
    /// All of it.
    seconds: f64,
    /// The first time through it, which brings it in.
    first: f64,
    /// Bytes that were read from a device after that.
    again: u64,
}

/// Goes through a part of a file and through memory of its own, again and again.
///
/// # Errors
/// The file cannot be read.
pub fn work(args: &WorkerArgs) -> Result<Work> {
    let file = File::open(&args.path).with_context(|| format!("open {}", args.path.display()))?;
    let own = usize::try_from(args.own).context("bytes of its own")?;
    let mut own = memmap2::MmapMut::map_anon(own).context("memory of its own")?;
    let mut buffer = vec![0; 1 << 20];
    let mut round = |number: usize| -> Result<()> {
        for at in (0..args.bytes).step_by(buffer.len()) {
            let length = buffer.len().min((args.bytes - at) as usize);
            file.read_exact_at(&mut buffer[..length], at)
                .context("read as a neighbour")?;
        }
        own.iter_mut()
            .step_by(PAGE as usize)
            .for_each(|byte| *byte = number as u8 | 1);
        Ok(())
    };
    let began = Instant::now();
    round(0)?;
    let (first, read) = (began.elapsed(), read_by_us()?);
    (1..ROUNDS).try_for_each(round)?;
    Ok(Work {
        seconds: began.elapsed().as_secs_f64(),
        first: first.as_secs_f64(),
        again: read_by_us()?.saturating_sub(read),
    })
}

/// Bytes that this process has had read from devices.
fn read_by_us() -> Result<u64> {
    let text = fs::read_to_string("/proc/self/io").context("read /proc/self/io")?;
    let bytes = text
        .lines()
        .find_map(|line| line.strip_prefix("read_bytes:")?.trim().parse().ok());
    bytes.context("read_bytes in /proc/self/io")
}

/// Where the neighbour's limit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Limited {
    /// Around the neighbour alone.
    Alone,
    /// Around the neighbour and the agent.
    Together,
}

/// One run.
#[derive(Clone, Copy, Debug, Serialize)]
struct Run {
    work: Work,
    /// `workingset_refault_file` of the neighbour's group meanwhile, in bytes: where the agent is in it, its own, too.
    refaults: u64,
    /// Bytes that the agent held when the neighbour began, and at the end.
    held: [u64; 2],
}

/// Both arrangements.
pub fn run(stage: &Stage, pairs: usize, progress: &Progress) -> Result<Part> {
    let mut table = table(&[
        "a neighbour that fills 85 % of the limit",
        "without s",
        "with s",
        "with / without",
        "lost s",
        "read again: without, with",
        "refaults: without, with",
        "the agent holds: before, after",
    ]);
    let (mut checks, mut figures) = (Vec::new(), serde_json::Map::new());
    let files = stage.limit / 100 * FILES;
    for (limited, name) in [
        (Limited::Alone, "limit of its own"),
        (Limited::Together, "limit shared with the agent"),
    ] {
        let runs = in_turns(pairs, |pair, with| {
            progress.step(format!("neighbour, {name}: pair {}", pair + 1));
            beside(stage, limited, with)
        })?;
        let (without, with): (Vec<Run>, Vec<Run>) = runs.into_iter().unzip();
        let of = |runs: &[Run], figure: fn(&Run) -> f64| runs.iter().map(figure).collect::<Vec<_>>();
        let median = |runs: &[Run], figure: fn(&Run) -> f64| stats::median(&of(runs, figure));
        let [slow, fast] = [&without, &with].map(|runs| of(runs, |run| run.work.seconds));
        let (over, over_text) = ratio(&fast, &slow);
        let [before, after] = [&without, &with].map(|runs| median(runs, |run| run.work.again as f64));
        let [plain, helped] = [&without, &with].map(|runs| median(runs, |run| run.refaults as f64));
        table.add_row([
            name.to_owned(),
            seconds(&slow),
            seconds(&fast),
            over_text.clone(),
            seconds(
                &fast
                    .iter()
                    .zip(&slow)
                    .map(|(with, without)| with - without)
                    .collect::<Vec<_>>(),
            ),
            format!("{}, {}", percent(before, files), percent(after, files)),
            format!("{}, {}", percent(plain, files), percent(helped, files)),
            format!(
                "{}, {}",
                percent(median(&with, |run| run.held[0] as f64), stage.limit),
                percent(median(&with, |run| run.held[1] as f64), stage.limit)
            ),
        ]);
        checks.push(Check::new(
            format!("neighbour, {name}: time with, over without"),
            over_text,
            format!("≤ {TIME} ×"),
            over.middle <= TIME,
        ));
        let most = AGAIN * before + SLACK * files as f64;
        checks.push(Check::new(
            format!("neighbour, {name}: read again"),
            format!("{}, without {}", percent(after, files), percent(before, files)),
            format!("≤ {}", percent(most, files)),
            after <= most,
        ));
        figures.insert(name.into(), json!({ "without": without, "with": with }));
    }
    Ok(Part {
        checks,
        table,
        figures: figures.into(),
    })
}

fn beside(stage: &Stage, limited: Limited, with: bool) -> Result<Run> {
    let own = stage.group(Some(stage.limit))?;
    let outside = match limited {
        Limited::Alone => Some(stage.group(None)?),
        Limited::Together => None,
    };
    let agents = outside.as_ref().unwrap_or(&own);
    let agent = with.then(|| {
        let agent = stage.agent(&stage.several.iter().map(PathBuf::as_path).collect::<Vec<_>>()[..1]);
        let agent = agent.arg("--memory").arg(in_kib(stage.limit / 2));
        let agent = agent.arg("--pin").arg(in_kib(stage.limit / 4));
        agent.start(Some(&agents.limits))
    });
    let agent = agent.transpose()?;
    fill(stage, agents, agent.as_ref())?;
    let held = |agent: &Option<AgentProcess>| -> Result<u64> {
        let status = agent.as_ref().map(|agent| agent.ask("status")).transpose()?;
        Ok(status.map_or(0, |status| status["held"].as_u64().unwrap_or(0)))
    };
    let before = held(&agent)?;
    let refaults = own.limits.memory()?.refaults()?;
    let work = run_worker(stage, &own.limits)?;
    let refaults = own.limits.memory()?.refaults()?.saturating_sub(refaults);
    let after = held(&agent)?;
    agent.map(|agent| agent.stop()?.served()).transpose()?;
    Ok(Run {
        work,
        refaults,
        held: [before, after],
    })
}

/// Has all models loaded, half of them twice; the agent then locks these, and brings the others back that have gone, up to its ceiling.
fn fill(stage: &Stage, group: &Group, agent: Option<&AgentProcess>) -> Result<()> {
    let (hot, warm) = stage.several.split_at(stage.several.len() / 2);
    for model in hot.iter().chain(hot).chain(warm) {
        group.load_fast(model)?;
    }
    let locked: u64 = hot.iter().map(|model| bytes(model)).sum::<Result<_>>()?;
    if let Some(agent) = agent {
        await_pins(agent, locked.min(stage.limit / 4) - (4 << 20))?;
    }
    for model in warm {
        drop_pages(&File::open(model).context("open a model")?).context("drop a model")?;
    }
    let Some(agent) = agent else { return Ok(()) };
    await_that("the agent's ceiling", || {
        let status = agent.ask("status")?;
        let number = |name: &str| status[name].as_u64().unwrap_or(0) as f64;
        // What was brought back does not count as held.
        let back: u64 = warm.iter().map(|model| present(model)).sum::<Result<_>>()?;
        Ok(number("held") + back as f64 >= FULL * number("ceiling"))
    })?;
    let here: u64 = stage.several.iter().map(|model| present(model)).sum::<Result<_>>()?;
    ensure!(here > 0, "the agent holds nothing");
    Ok(())
}

fn run_worker(stage: &Stage, group: &IoLimit) -> Result<Work> {
    let [files, own] = [FILES, OWN].map(|share| (stage.limit / 100 * share).to_string());
    let words = [
        "worker".as_ref(),
        stage.large.as_os_str(),
        OsStr::new(&files),
        OsStr::new(&own),
    ];
    let (status, said) = Companion::start(&stage.program, words, Some(group))?.end()?;
    ensure!(status.success(), "a neighbour failed: {status}");
    serde_json::from_str(&said).context("what a neighbour's work was")
}

const _: () = assert!(FILES + OWN <= 90);
