//! A mixed day: several programs that switch between models, list them, read parts of them, on a machine where not everything fits; with the agent, and with what is simpler.
//!
//! In the simulator, which needs no rights and measures nothing: days are drawn from scenarios, each from its scenario and a seed. Those in `tests/data/day/scenarios.json` were
//! written, and are for tuning; a third of all are drawn themselves, from a number (`draw`), and held out: with another number there are others. Every contender has the same workers; they differ in what they choose. `--record` writes days out, load by load, and `--play` plays such
//! a file; a few are in `tests/data/day/recorded.jsonl`.

mod definition;
mod draw;
mod generate;
pub mod real;
mod record;
mod score;
mod show;
mod tables;
mod world;

use std::{
    num::NonZeroUsize,
    path::PathBuf,
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use nitro_user::sim::{self, Report};
use serde_json::json;

use self::{
    definition::{Definition, SCENARIOS, Set},
    record::Day,
    score::{SPARED, Score},
    world::Contender,
};
use super::{Common, Outcome};

/// Days of each scenario: with thirty-two of these, more than a thousand.
const SEEDS: u64 = 50;

/// Scenarios that are drawn: a third of all.
const DRAWN: u64 = 10;

/// What they are drawn from.
const DRAW: u64 = 2026;

/// Days of each contender on the real kernel.
const ROUNDS: usize = 3;

/// Options of `nitro-bench day`.
#[derive(Clone, Debug, Args)]
pub struct DayArgs {
    #[command(flatten)]
    common: Common,
    /// Days of each scenario.
    #[arg(long, default_value_t = SEEDS)]
    seeds: u64,
    /// The seed of the first of them.
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// These scenarios only.
    #[arg(long, value_delimiter = ',')]
    scenario: Vec<String>,
    /// Other scenarios than those of the repository, and none that are drawn.
    #[arg(long)]
    scenarios: Option<PathBuf>,
    /// The number that the scenarios which are held out are drawn from.
    #[arg(long, default_value_t = DRAW)]
    draw: u64,
    /// How many of these.
    #[arg(long, default_value_t = DRAWN)]
    drawn: u64,
    /// Only write these days to a file, one in each line: who loads what, when, how, in which order.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Play the days of such a file.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["record", "scenario", "first"])]
    play: Option<PathBuf>,
    /// Tell every load of these days.
    #[arg(long)]
    show: bool,
    /// A short day on the real kernel, as root.
    #[arg(long, conflicts_with_all = ["record", "play", "show", "scenario", "scenarios", "seeds"])]
    real: bool,
    /// Days of each contender on the real kernel.
    #[arg(long, default_value_t = ROUNDS)]
    rounds: usize,
    /// Only say how many days there are.
    #[arg(long)]
    dry_run: bool,
}

/// A day, and in which set it is.
struct Entry {
    set: Set,
    day: Day,
}

/// Plays the days.
///
/// # Errors
/// When a file cannot be read or understood, or the engine breaks a rule of the simulator. A missed target is not an error unless `--check` was given.
pub fn run(args: &DayArgs) -> Result<ExitCode> {
    if args.real {
        return real::run(args);
    }
    let scenarios = scenarios(args)?;
    let entries = entries(args, &scenarios)?;
    if let Some(path) = &args.record {
        let days: Vec<Day> = entries.into_iter().map(|entry| entry.day).collect();
        std::fs::write(path, record::write(&days)?).with_context(|| format!("write {}", path.display()))?;
        return Ok(ExitCode::SUCCESS);
    }
    let loads: usize = entries.iter().map(|entry| entry.day.loads.len()).sum();
    eprintln!(
        "{} days of {} scenarios, {loads} loads, each with {} contenders",
        entries.len(),
        scenarios.len(),
        Contender::ALL.len()
    );
    if args.dry_run {
        return Ok(ExitCode::SUCCESS);
    }
    if args.show {
        entries.iter().for_each(|entry| show::day(&entry.day));
    }
    let scores = play_all(&entries)?;
    let (checks, tables) = tables::of(&scores);
    let missed = checks.iter().filter(|check| !check.ok).count();
    let mut outcome = Outcome {
        title: "Mixed days in the simulator",
        notes: tables::notes(&scores, &scenarios),
        tables,
        figures: json!({ "checks": checks, "days": scores }),
        missed,
    };
    let mut common = args.common.clone();
    // The figures are the same on every machine, and so is what is written of them.
    if let Some(path) = common.report.take() {
        let about = scenarios.iter().map(|scenario| {
            let Definition { name, set, about, .. } = scenario;
            format!("- {name} ({}): {about}\n", set.name())
        });
        let text = format!("{}\n{}", outcome.markdown(), about.collect::<String>());
        std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    }
    outcome.publish(&common)
}

fn scenarios(args: &DayArgs) -> Result<Vec<Definition>> {
    let mut all = match &args.scenarios {
        Some(path) => {
            let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
            definition::parse(&text).with_context(|| format!("scenarios of {}", path.display()))?
        }
        None => {
            let mut all = definition::parse(SCENARIOS)?;
            all.extend(draw::scenarios(args.draw, args.drawn));
            all
        }
    };
    for name in &args.scenario {
        ensure!(
            all.iter().any(|scenario| scenario.name == *name),
            "there is no scenario {name}: see tests/data/day/scenarios.json"
        );
    }
    all.retain(|scenario| args.scenario.is_empty() || args.scenario.contains(&scenario.name));
    Ok(all)
}

fn entries(args: &DayArgs, scenarios: &[Definition]) -> Result<Vec<Entry>> {
    if let Some(path) = &args.play {
        let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        let days = record::parse(&text).with_context(|| format!("days of {}", path.display()))?;
        let set_of = |day: &Day| scenarios.iter().find(|scenario| scenario.name == day.scenario);
        return Ok(days
            .into_iter()
            .map(|day| Entry {
                set: set_of(&day).map_or(Set::Tuning, |scenario| scenario.set),
                day,
            })
            .collect());
    }
    let seeds = args.first..args.first + args.seeds;
    Ok(scenarios
        .iter()
        .flat_map(|scenario| {
            seeds.clone().map(|seed| Entry {
                set: scenario.set,
                day: generate::day(scenario, seed),
            })
        })
        .collect())
}

/// All days with all contenders, on all processors; in their order, whoever was ready first.
fn play_all(entries: &[Entry]) -> Result<Vec<Score>> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(entries.len()));
    let workers = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let work = || -> Result<()> {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(entry) = entries.get(index) else {
                return Ok(());
            };
            let scores = play(entry)?;
            done.lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .push((index, scores));
            if index % 100 == 99 {
                eprintln!("{} of {} days", index + 1, entries.len());
            }
        }
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })?;
    let mut done = done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    done.sort_by_key(|(index, _)| *index);
    Ok(done.into_iter().flat_map(|(_, scores)| scores).collect())
}

/// One day with all contenders.
fn play(entry: &Entry) -> Result<Vec<Score>> {
    let mut without: Option<Report> = None;
    let mut scores = Vec::new();
    for contender in Contender::ALL {
        let report = sim::run(&world::scenario(&entry.day, contender));
        ensure!(
            report.broken.is_empty(),
            "{} with {}: {:?}",
            entry.day.name(),
            contender.name(),
            report.broken
        );
        let compared = without.as_ref().unwrap_or(&report);
        scores.push(Score::new(&entry.day, entry.set, contender, &report, compared));
        without.get_or_insert(report);
    }
    Ok(scores)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Days as they were written out.
    const RECORDED: &str = include_str!("../../../data/day/recorded.jsonl");

    #[test]
    fn the_recorded_days_are_those_that_are_drawn() {
        let scenarios = definition::parse(SCENARIOS).unwrap();
        let days = record::parse(RECORDED).unwrap();
        assert!(days.len() >= scenarios.len());
        for day in &days {
            let scenario = scenarios.iter().find(|scenario| scenario.name == day.scenario).unwrap();
            assert_eq!(generate::day(scenario, day.seed), *day);
        }
        assert_eq!(record::write(&days).unwrap(), RECORDED);
    }

    #[test]
    fn a_day_is_played_to_its_end_and_the_same_again() {
        let days = record::parse(RECORDED).unwrap();
        let day = days.into_iter().find(|day| day.scenario == "office").unwrap();
        let entry = Entry { set: Set::Tuning, day };
        let once = play(&entry).unwrap();
        let again = play(&entry).unwrap();
        let figures = |scores: &[Score]| serde_json::to_string(scores).unwrap();
        assert_eq!(figures(&once), figures(&again));
        let report = sim::run(&world::scenario(&entry.day, Contender::Agent));
        assert!(report.reader_times.iter().all(|time| !time.is_zero()));
        assert_eq!(once[0].saved, 0.0);
        assert!(once[1].saved > 0.0, "{:?}", once[1]);
    }

    #[test]
    fn nothing_is_warmed_for_whoever_lists() {
        let mut days = record::parse(RECORDED).unwrap();
        let mut listings = 0;
        for day in &mut days {
            day.loads.retain(|load| load.listing);
            day.restarts.clear();
            for (index, load) in day.loads.iter_mut().enumerate() {
                load.after = index.checked_sub(1);
            }
            listings += day.loads.len();
            let report = sim::run(&world::scenario(day, Contender::Agent));
            let warmed = report.used.by_help + report.wasted_bytes;
            assert_eq!(warmed, 0, "{}", day.name());
        }
        assert!(listings >= 3, "{listings}");
    }
}
