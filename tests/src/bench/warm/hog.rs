//! Somebody who takes all the memory there is, beside an agent that has locked some of it.

use std::{
    ffi::OsStr,
    io::{Read, Write},
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use nitro_user::{sys::memory, units::ByteCount};
use serde::Serialize;
use serde_json::json;

use super::{
    Check, Part, Progress,
    stage::{Stage, await_pins, await_that, bytes, in_kib, present},
    table,
};
use crate::{
    agent::locked_by,
    bench::{companion::Companion, in_turns},
    limit::{IoLimit, Limit},
    stats,
    sys::PAGE,
};

/// What hogs leave of the limit, in MiB.
const LEFT: [u64; 8] = [256, 128, 64, 48, 32, 24, 16, 8];
/// How long one is watched once it has all.
const HELD: Duration = Duration::from_secs(1);

/// From its first stall until nothing is read any more that nobody waits for …
const QUIET: f64 = 1.0;
/// … and until its memory is free.
const RELEASED: f64 = 2.0;
/// What a hog takes there, in hundredths of the limit: more than there is beside the pins, and so much that nothing is left to be warmed with as long as it is there.
const TAKES: u64 = 92;
/// A stall is such a share of the last [`WINDOW`] that somebody has waited for memory: what the kernel takes back from files in passing is none.
const STALLED: f64 = 0.1;
const WINDOW: Duration = Duration::from_millis(100);
/// How fast one that takes its time grows.
const SLOW: u64 = 256 << 20;
/// The device meanwhile, so that there is something to be read all the time.
const BUSY: Limit = Limit {
    bytes_per_second: 100_000_000,
    operations_per_second: 1000,
};
/// A change of what was read that is no file system's own.
const READ: u64 = 128 << 10;
/// How often is looked.
const LOOK: Duration = Duration::from_millis(2);
/// How long after the hog has all.
const AFTER: Duration = Duration::from_secs(4);

/// What the hidden subcommand takes.
#[derive(Clone, Debug, Args)]
pub struct HogArgs {
    /// Bytes that it takes.
    pub bytes: u64,
    /// Bytes a second; as fast as it can without.
    #[arg(long)]
    pub rate: Option<u64>,
}

/// Takes memory and keeps it until standard input ends; says so when it has all.
///
/// # Errors
/// There is no such mapping to be had.
pub fn hog(args: &HogArgs) -> Result<()> {
    let length = usize::try_from(args.bytes).context("bytes of a hog")?;
    let mut memory = memmap2::MmapMut::map_anon(length).context("a hog's memory")?;
    let began = Instant::now();
    for (number, chunk) in memory.chunks_mut(1 << 20).enumerate() {
        chunk.iter_mut().step_by(PAGE as usize).for_each(|byte| *byte = 1);
        if let Some(rate) = args.rate {
            let due = Duration::from_secs_f64(((number + 1) << 20) as f64 / rate.max(1) as f64);
            thread::sleep(due.saturating_sub(began.elapsed()));
        }
    }
    println!("all");
    std::io::stdout().flush().context("say so")?;
    let _ = std::io::stdin().read(&mut [0]);
    Ok(())
}

/// A hog at work.
pub struct Hog(Companion);

impl Hog {
    /// Starts one in `group`, as fast as it can.
    pub fn start(stage: &Stage, group: &IoLimit, bytes: u64) -> Result<Self> {
        Self::at(stage, group, bytes, None)
    }

    fn at(stage: &Stage, group: &IoLimit, bytes: u64, rate: Option<u64>) -> Result<Self> {
        let (bytes, rate) = (bytes.to_string(), rate.map(|rate| rate.to_string()));
        let rate = rate.iter().flat_map(|rate| ["--rate", rate]).map(OsStr::new);
        let words = ["hog".as_ref(), OsStr::new(&bytes)].into_iter().chain(rate);
        Ok(Self(Companion::start(&stage.program, words, Some(group))?))
    }

    /// Waits until it has all; not if it was killed.
    pub fn has_all(&mut self) -> Result<bool> {
        Ok(self.0.hear()?.is_some())
    }

    /// Its memory is free; whether it came to its end by itself.
    pub fn end(self) -> Result<bool> {
        Ok(self.0.end()?.0.success())
    }
}

/// One hog of one size.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Trial {
    survived: bool,
    /// Processes killed for want of memory, whoever they were.
    kills: u64,
    /// The agent among them.
    agent_killed: bool,
    /// What the agent and its helpers take themselves.
    agent: u64,
}

/// Sizes near the limit, and how soon the agent gives way.
pub fn run(stage: &Stage, pairs: usize, progress: &Progress) -> Result<Part> {
    let mut table = table(&[
        "a hog, 40 % of the limit locked",
        "survives without",
        "survives with",
        "killed in all: without, with",
        "the agent killed",
        "first stall to last read s",
        "first stall to release s",
    ]);
    let (mut checks, mut figures) = (Vec::new(), serde_json::Map::new());
    let (mut lost, mut agents, mut least) = (Vec::new(), Vec::new(), u64::MAX);
    for left in LEFT.map(|left| left << 20) {
        let size = stage.limit - left;
        let runs = in_turns(pairs, |pair, with| {
            progress.step(format!("hog of {}: pair {}", ByteCount(size), pair + 1));
            one(stage, size, with)
        })?;
        let (without, with): (Vec<Trial>, Vec<Trial>) = runs.into_iter().unzip();
        let survived = |trials: &[Trial]| trials.iter().filter(|trial| trial.survived).count();
        let kills = |trials: &[Trial]| trials.iter().map(|trial| trial.kills).sum::<u64>();
        table.add_row([
            format!("all but {}", ByteCount(left)),
            format!("{} of {pairs}", survived(&without)),
            format!("{} of {pairs}", survived(&with)),
            format!("{}, {}", kills(&without), kills(&with)),
            format!("{} of {pairs}", with.iter().filter(|trial| trial.agent_killed).count()),
            "–".into(),
            "–".into(),
        ]);
        // A hog takes a little beside what it is for.
        if survived(&without) == pairs {
            least = least.min(left);
        }
        if survived(&without) > survived(&with) {
            lost.push(left);
        }
        agents.extend(with.iter().map(|trial| trial.agent as f64));
        figures.insert(format!("all but {left}"), json!({ "without": without, "with": with }));
    }
    let agent = stats::median(&agents) as u64;
    checks.push(Check::new(
        "hog: survives wherever it does without the agent",
        lost.iter().max().map_or_else(
            || "everywhere".to_owned(),
            |left| format!("not where it leaves {} or less", ByteCount(*left)),
        ),
        format!(
            "but where it leaves less than the agent's own {} and the {} that it is known to live with alone",
            ByteCount(agent),
            ByteCount(least)
        ),
        lost.iter().all(|left| *left < agent.saturating_add(least)),
    ));
    for (rate, name) in [(None, "as fast as it can"), (Some(SLOW), "at 256 MiB/s")] {
        let ways = (0..pairs)
            .map(|pair| {
                progress.step(format!("hog {name}: {} of {pairs}", pair + 1));
                gives_way(stage, rate)
            })
            .collect::<Result<Vec<_>>>()?;
        let [reads, releases] = [|way: &Way| way.last_read, |way: &Way| way.released]
            .map(|figure| ways.iter().map(figure).collect::<Vec<f64>>());
        let survived = ways.iter().filter(|way| way.survived).count();
        let kills: u64 = ways.iter().map(|way| way.kills).sum();
        table.add_row([
            format!("{TAKES} % of the limit, {name}, while a model is warmed"),
            "–".to_owned(),
            format!("{survived} of {pairs}"),
            format!("–, {kills}"),
            "–".into(),
            format!("{:.3}, worst {:.3}", stats::median(&reads), stats::worst(&reads)),
            format!("{:.3}, worst {:.3}", stats::median(&releases), stats::worst(&releases)),
        ]);
        for (what, all, most) in [
            ("last read that nobody waits for", &reads, QUIET),
            ("release of the pins", &releases, RELEASED),
        ] {
            let worst = stats::worst(all);
            checks.push(Check::new(
                format!("hog {name}: first stall to the {what}, the worst"),
                format!("{worst:.3} s"),
                format!("≤ {most} s"),
                worst <= most,
            ));
        }
        figures.insert(name.into(), json!(ways));
    }
    Ok(Part {
        checks,
        table,
        figures: figures.into(),
    })
}

fn one(stage: &Stage, size: u64, with: bool) -> Result<Trial> {
    let group = stage.group(Some(stage.limit))?;
    let model = bytes(&stage.model)?;
    let agent = with.then(|| {
        let agent = stage.agent(&[&stage.model]).arg("--pin").arg(in_kib(model));
        agent.start(Some(&group.limits))
    });
    let agent = agent.transpose()?;
    let mut trial = Trial::default();
    group.load_fast(&stage.model)?;
    if let Some(agent) = &agent {
        await_pins(agent, model)?;
        trial.agent = group.limits.memory()?.own()?;
    }
    let mut hog = Hog::start(stage, &group.limits, size)?;
    let has_all = hog.has_all()?;
    if has_all {
        thread::sleep(HELD);
    }
    trial.survived = hog.end()? && has_all;
    trial.kills = group.limits.memory()?.kills()?;
    if let Some(agent) = agent {
        trial.agent_killed = agent.stop()?.early;
    }
    Ok(trial)
}

/// How the agent gave way. Times in seconds after the hog's first stall.
#[derive(Clone, Copy, Debug, Serialize)]
struct Way {
    last_read: f64,
    released: f64,
    survived: bool,
    kills: u64,
}

/// What is seen at a moment.
#[derive(Clone, Copy, Debug)]
struct Look {
    at: Instant,
    stalled: Duration,
    read: u64,
    locked: u64,
}

/// A hog that needs the pins' memory, while a model is being warmed that nobody reads.
fn gives_way(stage: &Stage, rate: Option<u64>) -> Result<Way> {
    let group = stage.group(Some(stage.limit))?;
    let model = bytes(&stage.model)?;
    let agent = stage
        .agent(&[&stage.model, &stage.large])
        .arg("--pin")
        .arg(in_kib(model));
    let agent = agent.arg("--memory").arg(in_kib(stage.limit / 10 * 9));
    let agent = agent.start(Some(&group.limits))?;
    group.load_fast(&stage.model)?;
    await_pins(&agent, model)?;
    let (keeper, _) = agent.keeper().context("nothing is locked")?;
    group.set_device(BUSY)?;
    let mut warm = Command::new(stage.agent_program())
        .arg("warm")
        .arg(&stage.large)
        .arg("--socket")
        .arg(agent.socket())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("order a model to be warmed")?;
    let looks = await_that("the ordered model", || Ok(present(&stage.large)? >= 32 << 20)).and_then(|_| {
        thread::scope(|scope| {
            let over = Arc::new(AtomicBool::new(false));
            let until = over.clone();
            let watch = scope.spawn(move || watch(stage, keeper, &until));
            let hog = Hog::at(stage, &group.limits, stage.limit / 100 * TAKES, rate);
            let survived = hog.and_then(|mut hog| {
                let is_there = hog.has_all()?;
                let has_all = Instant::now();
                thread::sleep(AFTER);
                // When its memory is free again what was put off goes on.
                over.store(true, Ordering::Relaxed);
                Ok((hog.end()? && is_there, has_all))
            });
            over.store(true, Ordering::Relaxed);
            let looks = watch.join().map_err(|_| anyhow::anyhow!("the watch has failed"))?;
            Ok((looks?, survived?))
        })
    });
    let _ = warm.kill();
    warm.wait().context("wait for the order")?;
    let (looks, (survived, has_all)) = looks?;
    let kills = group.limits.memory()?.kills()?;
    agent.stop()?.served()?;
    let first = looks.first().context("nothing was seen")?;
    // Who never waits so long has all sooner or later, and then memory is short.
    let stall = first_stall(&looks).map_or(has_all, |stall| stall.min(has_all));
    let after = |look: Option<&Look>| look.map(|look| look.at.saturating_duration_since(stall).as_secs_f64());
    let reads = looks.windows(2).rev().find(|pair| pair[1].read - pair[0].read >= READ);
    ensure!(first.locked >= model, "the pins went before the hog came");
    Ok(Way {
        last_read: after(reads.map(|pair| &pair[1])).unwrap_or(0.0),
        released: after(looks.iter().find(|look| look.locked == 0)).unwrap_or(f64::INFINITY),
        survived,
        kills,
    })
}

/// When somebody had first waited for a good part of a window.
fn first_stall(looks: &[Look]) -> Option<Instant> {
    let mut from = 0;
    looks.iter().enumerate().find_map(|(index, look)| {
        while looks[from].at + WINDOW < look.at && from < index {
            from += 1;
        }
        let waited = look.stalled.saturating_sub(looks[from].stalled);
        (waited.as_secs_f64() >= STALLED * WINDOW.as_secs_f64()).then_some(look.at)
    })
}

fn watch(stage: &Stage, keeper: u32, until: &AtomicBool) -> Result<Vec<Look>> {
    let mut looks = Vec::new();
    while !until.load(Ordering::Relaxed) {
        looks.push(Look {
            at: Instant::now(),
            stalled: memory::stalled(Path::new(memory::PRESSURE)),
            read: stage.read_from_device()?,
            locked: locked_by(keeper),
        });
        thread::sleep(LOOK);
    }
    Ok(looks)
}
