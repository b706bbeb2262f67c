//! How soon a model is there again that somebody's neighbour has driven out, or could not.

use std::{fs::File, path::Path, time::Instant};

use anyhow::{Context, Result, ensure};
use nitro_user::units::ByteCount;
use serde::Serialize;
use serde_json::json;

use super::{
    Check, Part, Progress,
    hog::Hog,
    percent, ratio, seconds,
    stage::{Stage, await_pins, await_that, bytes, in_kib, present},
    table,
};
use crate::{bench::in_turns, readers::Kind, stats, sys::drop_pages};

/// A reload of what is locked, against one of what is all cached.
const PINNED: f64 = 1.1;
/// The time that bringing it back takes, against the device's.
const RETURNED: f64 = 1.2;

/// One reload. Times in seconds.
#[derive(Clone, Copy, Debug, Serialize)]
struct Reload {
    seconds: f64,
    /// The same once more, and again, in the same run: with everything cached.
    cached: f64,
    /// Share of the model in memory before, 0–1.
    resident: f64,
}

fn of<T>(values: &[T], figure: impl Fn(&T) -> f64) -> Vec<f64> {
    values.iter().map(figure).collect()
}

/// Locked, after a neighbour has read twice the limit of other files.
pub fn pinned(stage: &Stage, readers: &[Kind], pairs: usize, progress: &Progress) -> Result<Part> {
    let mut table = table(&[
        "reload after a neighbour's stream",
        "in memory before: without, with",
        "without s",
        "with s",
        "then cached: without s",
        "with s",
        "device s",
        "with / cached",
        "without / with",
    ]);
    let (mut checks, mut figures) = (Vec::new(), serde_json::Map::new());
    let size = bytes(&stage.model)?;
    let device = stage.device_seconds(&stage.model)?;
    for &kind in readers {
        let once = |pair: usize, with: bool| -> Result<Reload> {
            progress.step(format!("reload-pinned × {}: pair {}", kind.name(), pair + 1));
            let group = stage.group(Some(stage.limit))?;
            let agent = with.then(|| {
                let agent = stage.agent(&[&stage.model]).arg("--pin").arg(in_kib(size));
                let agent = agent.arg("--memory").arg(in_kib(stage.limit / 4 * 3));
                agent.start(Some(&group.limits))
            });
            let agent = agent.transpose()?;
            group.load_fast(&stage.model)?;
            group.load_fast(&stage.model)?;
            if let Some(agent) = &agent {
                await_pins(agent, size)?;
            }
            group.load_fast(&stage.large)?;
            let resident = present(&stage.model)? as f64 / size as f64;
            if let Some(agent) = agent.as_ref().filter(|_| resident < 0.99) {
                let last = agent.lines().into_iter().rev().take(4).collect::<Vec<_>>();
                progress.say(&format!(
                    "the pins went: {} {}",
                    agent.ask("status")?["pressure"],
                    last.join("\n")
                ));
            }
            let seconds = group.load(kind, &stage.model)?.seconds;
            let cached = group.cached(kind, &stage.model)?;
            agent.map(|agent| agent.stop()?.served()).transpose()?;
            Ok(Reload {
                seconds,
                cached,
                resident,
            })
        };
        let (without, with): (Vec<_>, Vec<_>) = in_turns(pairs, once)?.into_iter().unzip();
        let [slow, fast] = [&without, &with].map(|all| of(all, |load| load.seconds));
        let [plain, cached] = [&without, &with].map(|all| of(all, |load| load.cached));
        let ((over, over_text), (_, gain)) = (ratio(&fast, &cached), ratio(&slow, &fast));
        let [before, after] = [&without, &with].map(|all| stats::median(&of(all, |load| load.resident)));
        table.add_row([
            kind.name().to_owned(),
            format!("{:.0} %, {:.0} %", 100.0 * before, 100.0 * after),
            seconds(&slow),
            seconds(&fast),
            seconds(&plain),
            seconds(&cached),
            format!("{device:.3}"),
            over_text.clone(),
            gain,
        ]);
        checks.push(Check::new(
            format!("reload-pinned × {}: with, over fully cached", kind.name()),
            over_text,
            format!("≤ {PINNED} ×"),
            over.middle <= PINNED,
        ));
        figures.insert(
            kind.name().into(),
            json!({ "without": without, "with": with, "device": device }),
        );
    }
    Ok(Part {
        checks,
        table,
        figures: figures.into(),
    })
}

/// What a model's coming back took. Times in seconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Return {
    /// From the moment at which memory was free to the first of it.
    begins: f64,
    /// From there until all was there.
    takes: f64,
    /// Bytes read from the device for it.
    read: u64,
    /// The load after that.
    reload: f64,
}

/// Not locked, after a neighbour who took the memory has ended.
pub fn returned(stage: &Stage, pairs: usize, progress: &Progress) -> Result<Part> {
    let device = stage.device_seconds(&stage.model)?;
    let size = bytes(&stage.model)?;
    let runs = in_turns(pairs, |pair, with| {
        progress.step(format!("reload-returned: pair {}", pair + 1));
        comes_back(stage, with)
    })?;
    let (without, with): (Vec<_>, Vec<_>) = runs.into_iter().unzip();
    let takes = of(&with, |one| one.takes);
    let (over, over_text) = ratio(&takes, &vec![device; takes.len()]);
    let mut table = table(&[
        "brought back, without a pin",
        "begins after s",
        "takes s",
        "device s",
        "takes / device",
        "read",
        "then a load, without s",
        "with s",
    ]);
    let read = stats::median(&of(&with, |one| one.read as f64));
    table.add_row([
        "as soon as a hog's memory is free".to_owned(),
        seconds(&of(&with, |one| one.begins)),
        seconds(&takes),
        format!("{device:.3}"),
        over_text.clone(),
        percent(read, size),
        seconds(&of(&without, |one| one.reload)),
        seconds(&of(&with, |one| one.reload)),
    ]);
    let checks = vec![Check::new(
        "reload-returned: from the first byte back to the last, over the device",
        over_text,
        format!("≤ {RETURNED} ×"),
        over.middle <= RETURNED,
    )];
    Ok(Part {
        checks,
        table,
        figures: json!({ "without": without, "with": with, "device": device }),
    })
}

/// Has a model loaded twice, driven out by a hog that then ends, and waits until it is back.
fn comes_back(stage: &Stage, with: bool) -> Result<Return> {
    let group = stage.group(Some(stage.limit))?;
    let agent = with
        .then(|| stage.agent(&[&stage.model]).start(Some(&group.limits)))
        .transpose()?;
    group.load_fast(&stage.model)?;
    group.load_fast(&stage.model)?;
    // All but a tenth, where the agent itself has room.
    let mut hog = Hog::start(stage, &group.limits, stage.limit / 10 * 9)?;
    ensure!(hog.has_all()?, "a hog of nine tenths of the limit was killed");
    // What it has left of the model is not worth a figure of its own.
    drop_pages(&File::open(&stage.model).context("open the model")?).context("drop the model")?;
    ensure!(
        present(&stage.model)? == 0,
        "the model came back while memory was short"
    );
    hog.end()?;
    let free = Instant::now();
    let mut result = Return::default();
    if with {
        let before = stage.read_from_device()?;
        await_that("the model's return", || Ok(present(&stage.model)? > 0))?;
        result.begins = free.elapsed().as_secs_f64();
        result.takes = is_whole(&stage.model)?;
        result.read = stage.read_from_device()? - before;
    }
    result.reload = group.load(Kind::Read, &stage.model)?.seconds;
    agent.map(|agent| agent.stop()?.served()).transpose()?;
    Ok(result)
}

/// Seconds until all of a file is in memory, and up to date.
fn is_whole(path: &Path) -> Result<f64> {
    let (began, all) = (Instant::now(), bytes(path)?);
    await_that("the whole model", || Ok(present(path)? >= all))?;
    // What is present may still be read.
    await_that("its last bytes", || {
        Ok(crate::tree::resident(&[path.to_owned()])? >= 1.0)
    })?;
    let took = began.elapsed().as_secs_f64();
    ensure!(took > 0.0, "{} was there at once", ByteCount(all));
    Ok(took)
}
