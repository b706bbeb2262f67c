//! Models of twice the limit of memory: once from end to end, and once more.

use anyhow::Result;
use serde::Serialize;
use serde_json::json;

use super::{
    Check, Part, Progress, percent, ratio, seconds,
    stage::{Group, Stage, await_pins, bytes, in_kib},
    table,
};
use crate::{bench::in_turns, readers::Kind, stats};

/// Bytes read from the device for one pass, against the model.
const READ_ONCE: f64 = 1.05;
/// Time of one pass, against the device's.
const TIME: f64 = 1.1;
/// What is kept between two passes, against what may be locked.
const KEPT: f64 = 0.9;

/// One pass.
#[derive(Clone, Copy, Debug, Serialize)]
struct Pass {
    seconds: f64,
    /// From the device.
    bytes: u64,
}

fn pass(stage: &Stage, group: &Group, kind: Kind) -> Result<Pass> {
    let before = stage.read_from_device()?;
    let seconds = group.load(kind, &stage.large)?.seconds;
    Ok(Pass {
        seconds,
        bytes: stage.read_from_device()? - before,
    })
}

/// Figures of the passes without the agent and with it.
struct Passes {
    seconds: [Vec<f64>; 2],
    bytes: [Vec<f64>; 2],
}

impl Passes {
    fn of(pairs: &[(Pass, Pass)]) -> Self {
        let sides = |figure: fn(&Pass) -> f64| {
            [
                pairs.iter().map(|(without, _)| figure(without)).collect(),
                pairs.iter().map(|(_, with)| figure(with)).collect(),
            ]
        };
        Self {
            seconds: sides(|pass| pass.seconds),
            bytes: sides(|pass| pass.bytes as f64),
        }
    }
}

/// One pass.
pub fn once(stage: &Stage, readers: &[Kind], pairs: usize, progress: &Progress) -> Result<Part> {
    let mut table = table(&[
        "one pass over twice the limit",
        "without s",
        "with s",
        "device s",
        "with / device",
        "without / with",
        "read without",
        "read with",
    ]);
    let (mut checks, mut figures) = (Vec::new(), serde_json::Map::new());
    let (size, device) = (bytes(&stage.large)?, stage.device_seconds(&stage.large)?);
    for &kind in readers {
        let runs = in_turns(pairs, |pair, with| {
            progress.step(format!("twice-the-limit × {}: pair {}", kind.name(), pair + 1));
            let group = stage.group(Some(stage.limit))?;
            let agent = with.then(|| stage.agent(&[&stage.large]).start(Some(&group.limits)));
            let agent = agent.transpose()?;
            let pass = pass(stage, &group, kind)?;
            agent.map(|agent| agent.stop()?.served()).transpose()?;
            Ok(pass)
        })?;
        let Passes {
            seconds: [slow, fast],
            bytes: [plain, helped],
        } = Passes::of(&runs);
        let (over, over_text) = ratio(&fast, &vec![device; fast.len()]);
        let read = stats::median(&helped) / size as f64;
        table.add_row([
            kind.name().to_owned(),
            seconds(&slow),
            seconds(&fast),
            format!("{device:.3}"),
            over_text.clone(),
            ratio(&slow, &fast).1,
            percent(stats::median(&plain), size),
            percent(stats::median(&helped), size),
        ]);
        checks.push(Check::new(
            format!("twice-the-limit × {}: with, over the device", kind.name()),
            over_text,
            format!("≤ {TIME} ×"),
            over.middle <= TIME,
        ));
        checks.push(Check::new(
            format!("twice-the-limit × {}: read from the device", kind.name()),
            format!("{read:.3} × the model"),
            format!("≤ {READ_ONCE} ×"),
            read <= READ_ONCE,
        ));
        figures.insert(kind.name().into(), json!({ "pairs": runs, "device": device }));
    }
    Ok(Part {
        checks,
        table,
        figures: figures.into(),
    })
}

/// The second of two passes, each by a process of its own, two fifths of the limit locked.
pub fn twice(stage: &Stage, readers: &[Kind], pairs: usize, progress: &Progress) -> Result<Part> {
    let mut table = table(&[
        "second pass over twice the limit, 40 % of it locked",
        "without s",
        "with s",
        "device s",
        "without / with",
        "read without",
        "read with",
        "pins after s",
    ]);
    let (mut checks, mut figures) = (Vec::new(), serde_json::Map::new());
    let (size, device) = (bytes(&stage.large)?, stage.device_seconds(&stage.large)?);
    let pin = stage.limit / 5 * 2;
    for &kind in readers {
        let mut waits = Vec::new();
        let runs = in_turns(pairs, |pair, with| {
            progress.step(format!("two-passes × {}: pair {}", kind.name(), pair + 1));
            let group = stage.group(Some(stage.limit))?;
            let agent = with.then(|| {
                let agent = stage.agent(&[&stage.large]).arg("--pin").arg(in_kib(pin));
                agent.start(Some(&group.limits))
            });
            let agent = agent.transpose()?;
            group.load_fast(&stage.large)?;
            if let Some(agent) = &agent {
                // The last step of a share may not fit.
                waits.push(await_pins(agent, pin - (4 << 20))?.as_secs_f64());
            }
            let pass = pass(stage, &group, kind)?;
            agent.map(|agent| agent.stop()?.served()).transpose()?;
            Ok(pass)
        })?;
        let Passes {
            seconds: [slow, fast],
            bytes: [plain, helped],
        } = Passes::of(&runs);
        let (_, gain) = ratio(&slow, &fast);
        let (over, over_text) = ratio(&fast, &slow);
        let [before, after] = [&plain, &helped].map(|bytes| stats::median(bytes));
        table.add_row([
            kind.name().to_owned(),
            seconds(&slow),
            seconds(&fast),
            format!("{device:.3}"),
            gain,
            percent(before, size),
            percent(after, size),
            seconds(&waits),
        ]);
        checks.push(Check::new(
            format!("two-passes × {}: time of the second, with over without", kind.name()),
            over_text,
            "< 1 ×, the whole interval",
            over.high < 1.0,
        ));
        let most = before - KEPT * pin as f64;
        checks.push(Check::new(
            format!("two-passes × {}: read for the second", kind.name()),
            format!("{}, without {}", percent(after, size), percent(before, size)),
            format!("≤ {}: less by {:.0} % of the pins", percent(most, size), 100.0 * KEPT),
            after <= most,
        ));
        figures.insert(
            kind.name().into(),
            json!({ "pairs": runs, "device": device, "pins_after": waits }),
        );
    }
    Ok(Part {
        checks,
        table,
        figures: figures.into(),
    })
}
