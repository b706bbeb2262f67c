//! A short day on the real kernel: `tests/data/day/short.json`, on a disk of its own with a limit, with real readers.
//!
//! Every contender plays the same day from empty caches, in turn, several times. The programs run beside each other; each load is a process of its own, in the group that is limited.
//! The agent finds out by itself who loads what. What is simpler is told: a reader tells it which file it opens and which step it comes to, and it reads what it wants with `read`, as
//! `cat` and `vmtouch` do, in a process of the same group.

mod player;
mod stage;
mod warmer;

use std::{collections::BTreeMap, process::ExitCode, thread};

use anyhow::{Context, Result};
use comfy_table::Table;
use nitro_user::units::ByteCount;
use serde::Serialize;
use serde_json::json;

use self::{
    player::{Played, Player},
    stage::Stage,
};
pub use self::{
    player::{PlayerArgs, play},
    warmer::{WarmerArgs, warm},
};
use super::{
    super::{Check, Outcome, verdict},
    DayArgs, SPARED, definition, generate,
    record::{Cold, Day},
    tables::{WASTE, percent},
    world::Contender,
};
use crate::{agent::Agent, readers, stats, sweep};

/// The day.
const SHORT: &str = include_str!("../../../../data/day/short.json");

const MIB: f64 = (1 << 20) as f64;

/// Who plays.
const CONTENDERS: [Contender; 5] = [
    Contender::None,
    Contender::Agent,
    Contender::Siblings,
    Contender::Sequence,
    Contender::WholeFile,
];

/// A second load is there so far when its reader comes.
const THERE: f64 = 0.95;

/// A day that was played.
#[derive(Clone, Copy, Debug, Serialize)]
struct Figure {
    /// Seconds that readers took.
    seconds: f64,
    /// Bytes that the device gave.
    read: u64,
    /// Of these, bytes that no reader asked for itself.
    brought: u64,
    /// Bytes that second loads read …
    second: u64,
    /// … and of these, bytes that were there when they came to their step.
    second_there: u64,
}

/// Plays the short day.
///
/// # Errors
/// When the rig, a reader or the agent fails.
pub fn run(args: &DayArgs) -> Result<ExitCode> {
    let scenarios = definition::parse(SHORT)?;
    let scenario = scenarios.first().context("no scenario in tests/data/day/short.json")?;
    let day = generate::day(scenario, args.first);
    eprintln!(
        "{}: {} loads, {} times with each of {} contenders",
        day.name(),
        day.loads.len(),
        args.rounds,
        CONTENDERS.len()
    );
    if args.dry_run {
        return Ok(ExitCode::SUCCESS);
    }
    let agent = args.common.prepare()?;
    let stage = Stage::new(&args.common.dir, &day, agent, readers::program()?)?;
    let mut figures: BTreeMap<Contender, Vec<Figure>> = BTreeMap::new();
    for round in 0..args.rounds {
        // Each of them is first, and last, in turn.
        for place in 0..CONTENDERS.len() {
            let contender = CONTENDERS[(place + round) % CONTENDERS.len()];
            let figure = stage.play(&day, contender).with_context(|| contender.name())?;
            eprintln!(
                "round {}: {}: {:.2} s, {} read",
                round + 1,
                contender.name(),
                figure.seconds,
                ByteCount(figure.read)
            );
            figures.entry(contender).or_default().push(figure);
        }
    }
    publish(args, &day, &figures)
}

impl Stage {
    /// The day from empty caches.
    fn play(&self, day: &Day, contender: Contender) -> Result<Figure> {
        sweep::rest_if_interrupted();
        let agent = match contender {
            Contender::Agent => Some(Agent::new(&self.agent, self.disk.path()).start(Some(&self.group))?),
            _ => None,
        };
        let warmer = match contender.simple() {
            Some(kind) => Some(self.warmer(kind)?),
            None => None,
        };
        self.disk.drop_caches()?;
        let before = self.disk.device_bytes_read()?;
        let played = self.loads(day, warmer.as_ref().map(warmer::Warmer::socket))?;
        let read = self.disk.device_bytes_read()? - before;
        drop(warmer);
        if let Some(agent) = agent {
            agent.stop()?.served()?;
        }
        let seconds = || day.loads.iter().zip(&played).filter(|(load, _)| load.cold.is_some());
        Ok(Figure {
            seconds: played.iter().map(|played| played.seconds).sum(),
            read,
            brought: read.saturating_sub(played.iter().map(|played| played.itself).sum()),
            second: seconds().map(|(_, played)| played.bytes).sum(),
            second_there: seconds().map(|(_, played)| played.there).sum(),
        })
    }

    /// All loads: the chains of the programs beside each other.
    fn loads(&self, day: &Day, tell: Option<&std::path::Path>) -> Result<Vec<Played>> {
        let chains = chains(day);
        let mut played = thread::scope(|scope| -> Result<Vec<(usize, Played)>> {
            let threads: Vec<_> = chains
                .iter()
                .map(|chain| {
                    scope.spawn(move || {
                        chain
                            .iter()
                            .map(|load| self.load(day, *load, tell))
                            .collect::<Result<Vec<_>>>()
                    })
                })
                .collect();
            let mut all = Vec::new();
            for thread in threads {
                all.extend(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
            }
            Ok(all)
        })?;
        played.sort_by_key(|(load, _)| *load);
        Ok(played.into_iter().map(|(_, played)| played).collect())
    }

    fn load(&self, day: &Day, index: usize, tell: Option<&std::path::Path>) -> Result<(usize, Played)> {
        let load = &day.loads[index];
        let gap = std::time::Duration::from_millis(load.gap);
        // Half a pause before it, or after the one before.
        let (before, after) = match load.cold {
            Some(Cold::Early) => (gap / 10, gap * 9 / 10),
            Some(Cold::Late) | None => (gap * 9 / 10, gap / 10),
        };
        thread::sleep(before);
        if load.cold.is_some() {
            self.evict(&day.models[load.model])?;
        }
        thread::sleep(after);
        let player = Player::new(&self.program, load, &self.paths);
        Ok((index, player.run(&self.group, tell)?))
    }
}

/// The loads of each program, in order.
fn chains(day: &Day) -> Vec<Vec<usize>> {
    let mut chains: Vec<Vec<usize>> = Vec::new();
    for (index, load) in day.loads.iter().enumerate() {
        let chain = chains
            .iter_mut()
            .find(|chain| chain.last().copied() == load.after && load.after.is_some());
        match chain {
            Some(chain) => chain.push(index),
            None => chains.push(vec![index]),
        }
    }
    chains
}

/// What a contender came to: medians.
#[derive(Clone, Copy, Debug, Serialize)]
struct Came {
    seconds: f64,
    saved: f64,
    read: f64,
    /// Bytes that help brought in.
    brought: f64,
    /// Bytes read more than without help.
    wasted: f64,
    there: f64,
    /// Seconds saved for each MiB wasted.
    worth: f64,
}

fn result(figures: &[Figure], without: &[Figure]) -> Came {
    let pairs = || figures.iter().zip(without);
    let of = |values: Vec<f64>| stats::median(&values);
    let saved = of(pairs().map(|(with, without)| without.seconds - with.seconds).collect());
    let wasted = of(pairs()
        .map(|(with, without)| with.read.saturating_sub(without.read) as f64)
        .collect());
    Came {
        seconds: of(figures.iter().map(|figure| figure.seconds).collect()),
        saved,
        read: of(figures.iter().map(|figure| figure.read as f64).collect()),
        brought: of(figures.iter().map(|figure| figure.brought as f64).collect()),
        wasted,
        there: of(figures
            .iter()
            .map(|figure| figure.second_there as f64 / figure.second.max(1) as f64)
            .collect()),
        worth: saved * MIB / (wasted + SPARED),
    }
}

fn publish(args: &DayArgs, day: &Day, figures: &BTreeMap<Contender, Vec<Figure>>) -> Result<ExitCode> {
    let without = figures.get(&Contender::None).context("no day without help")?;
    let results: Vec<(Contender, Came)> = figures
        .iter()
        .map(|(contender, figures)| (*contender, result(figures, without)))
        .collect();
    let of = |contender: Contender| {
        results
            .iter()
            .find(|(other, _)| *other == contender)
            .map(|(_, result)| *result)
    };
    let agent = of(Contender::Agent).context("no day with the agent")?;
    let waste = agent.wasted / agent.brought.max(1.0);
    let mut checks = vec![
        Check::new(
            "second load, there in time",
            percent(agent.there),
            format!(">= {}", percent(THERE)),
            agent.there >= THERE,
        ),
        Check::new(
            "read more than without help, of what was brought in",
            percent(waste),
            format!("<= {}", percent(WASTE)),
            waste <= WASTE,
        ),
    ];
    for (contender, other) in results.iter().filter(|(contender, _)| contender.simple().is_some()) {
        checks.push(Check::new(
            format!("s/MiB against {}", contender.name()),
            format!("{:.3}", agent.worth),
            format!("> {:.3}", other.worth),
            agent.worth > other.worth,
        ));
    }
    let mut table = Table::new();
    table.set_header([
        "",
        "waiting",
        "saved",
        "read",
        "brought in",
        "more than without help",
        "s/MiB",
        "second loads: there",
    ]);
    super::tables::align(&mut table, 1);
    for (contender, result) in &results {
        table.add_row([
            contender.name().to_owned(),
            format!("{:.2} s", result.seconds),
            format!("{:.2} s", result.saved),
            ByteCount(result.read as u64).to_string(),
            ByteCount(result.brought as u64).to_string(),
            ByteCount(result.wasted as u64).to_string(),
            format!("{:.3}", result.worth),
            percent(result.there),
        ]);
    }
    let mut checked = Table::new();
    checked.set_header(["target", "measured", "to be", "verdict"]);
    for check in &checks {
        checked.add_row([check.what.as_str(), &check.measured, &check.target, verdict(check.ok)]);
    }
    let missed = checks.iter().filter(|check| !check.ok).count();
    let notes = vec![
        format!(
            "{}: {} loads by several programs on ext4 on a loop device, {} MB/s and {} requests/s at most, readahead 128 KiB. Medians of {} days each, in turn; saved and more: of pairs.",
            day.name(),
            day.loads.len(),
            day.device.limit,
            day.device.requests,
            args.rounds
        ),
        "The agent finds out by itself; readers tell the others what they open. there: in the page cache when the reader came to its 2 MiB step. s/MiB: seconds saved for each MiB read more, \
         and one MiB."
            .into(),
    ];
    Outcome {
        title: "day on the real kernel",
        notes,
        tables: vec![table, checked],
        figures: json!({ "checks": checks, "results": results, "days": figures }),
        missed,
    }
    .publish(&args.common)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn figure(seconds: f64, read: u64, there: u64) -> Figure {
        Figure {
            seconds,
            read,
            brought: read,
            second: 100,
            second_there: there,
        }
    }

    #[test]
    fn figures_are_medians_of_pairs() {
        let without = [
            figure(10.0, 100 << 20, 0),
            figure(20.0, 100 << 20, 0),
            figure(30.0, 100 << 20, 0),
        ];
        let with = [
            figure(8.0, 101 << 20, 90),
            figure(11.0, 103 << 20, 80),
            figure(29.0, 99 << 20, 100),
        ];
        let result = result(&with, &without);
        assert_eq!((result.seconds, result.saved, result.there), (11.0, 2.0, 0.9));
        assert_eq!((result.wasted, result.worth), (MIB, 1.0));
    }

    #[test]
    fn the_short_day_has_second_loads_and_several_programs() {
        let scenario = &definition::parse(SHORT).unwrap()[0];
        let day = generate::day(scenario, 0);
        let chains = chains(&day);
        assert_eq!(chains.len(), scenario.programs.len());
        assert_eq!(chains.iter().map(Vec::len).sum::<usize>(), day.loads.len());
        assert!(day.loads.iter().filter(|load| load.cold.is_some()).count() >= 3);
    }
}
