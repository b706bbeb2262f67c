//! What a million learned transitions cost: the start, memory, a look-up. It needs neither the agent nor rights.
//!
//! Two shapes: *many* has 2000 programs with 20 models each and a few followers in each context, as habits have; *wide* has 16 programs whose contexts all have as many
//! followers as are kept, which is as much work as a look-up can be.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use nitro_user::{
    engine::{
        learn::row::{MOST_CONTEXT, Number, Row, Successor},
        predict::successors::Successors,
    },
    units::ByteCount,
};
use serde_json::json;

use super::{Check, Common, Outcome};
use crate::stats;

const LOOK_UP: Duration = Duration::from_micros(50);
const START: Duration = Duration::from_secs(2);
const RESIDENT: u64 = 200_000_000;

/// Now, as far as the rows are concerned.
const NOW: Duration = Duration::from_secs(1_767_571_200);

/// Followers of a context in the wide shape: as many as are kept.
const WIDE: u32 = 64;

/// Options of `nitro-bench predict`.
#[derive(Clone, Debug, Args)]
pub struct PredictArgs {
    #[command(flatten)]
    common: Common,
    /// Learned transitions.
    #[arg(long, default_value_t = 1_000_000)]
    rows: usize,
    /// Look-ups, each after a load.
    #[arg(long, default_value_t = 200_000)]
    look_ups: usize,
}

/// Restores the rows and looks up.
///
/// # Errors
/// When the process cannot learn how much memory it has.
pub fn run(args: &PredictArgs) -> Result<ExitCode> {
    let (mut checks, mut figures) = (Vec::new(), Vec::new());
    for shape in [Shape::Many, Shape::Wide] {
        figures.push((shape.name(), measure(args, shape, &mut checks)?));
    }
    let notes = vec![format!(
        "{} rows; {} loads of random programs, each followed by a look-up: the rows that it needs are in no processor's cache. Every fifth load is of a model that nobody \
         expects, so that rows are added, and others dropped. On disk: not part of this bench.",
        args.rows, args.look_ups
    )];
    let figures: serde_json::Map<_, _> = figures
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
    Outcome::of_checks("predict", notes, &checks, figures.into()).publish(&args.common)
}

fn measure(args: &PredictArgs, shape: Shape, checks: &mut Vec<Check>) -> Result<serde_json::Value> {
    let before = resident()?;
    let mut predictor = Successors::default();
    let begun = Instant::now();
    predictor.reserve(args.rows);
    (0..args.rows).for_each(|index| predictor.restore(NOW, &Row::Successor(shape.row(index))));
    let restored = begun.elapsed();
    ensure!(
        predictor.rows() == args.rows,
        "{} of {} rows were restored",
        predictor.rows(),
        args.rows
    );
    let held = resident()?.saturating_sub(before);

    let mut random = fastrand::Rng::with_seed(1);
    let (mut now, mut found) = (NOW, 0);
    let (mut look_ups, mut loads) = (Vec::with_capacity(args.look_ups), Vec::with_capacity(args.look_ups));
    while look_ups.len() < args.look_ups {
        let (program, models) = shape.session(&mut random);
        for model in models {
            now += Duration::from_secs(20);
            let begun = Instant::now();
            predictor.loaded(now, program, model);
            loads.push(begun.elapsed().as_secs_f64());
        }
        let begun = Instant::now();
        let candidates = predictor.predict(now, program);
        look_ups.push(begun.elapsed().as_secs_f64());
        found += candidates.len();
        // As the engine does, so that they do not pile up.
        predictor.take_changes();
    }
    ensure!(found > 0, "nothing was predicted");
    let held_later = resident()?.saturating_sub(before);
    let micros = |seconds: f64| format!("{:.1} µs", seconds * 1e6);
    let (median, most) = (stats::median(&look_ups), stats::quantile(&look_ups, 0.99));
    let name = shape.name();
    checks.push(Check::new(
        format!("{name}: start"),
        format!("{:.2} s", restored.as_secs_f64()),
        format!("≤ {} s", START.as_secs()),
        restored <= START,
    ));
    // What the shape before gave back is not given back by the allocator: of the second nothing can be said.
    if shape == Shape::Many {
        let each = held.max(held_later) as f64 / args.rows as f64;
        checks.push(Check::new(
            format!("{name}: resident"),
            format!("{} ({each:.0} bytes a row)", ByteCount(held.max(held_later))),
            format!("≤ {} MB", RESIDENT / 1_000_000),
            held.max(held_later) <= RESIDENT,
        ));
    }
    checks.push(Check::new(
        format!("{name}: look-up, median and p99"),
        format!("{}, {}", micros(median), micros(most)),
        format!("p99 ≤ {} µs", LOOK_UP.as_micros()),
        most <= LOOK_UP.as_secs_f64(),
    ));
    let (load, most_load) = (stats::median(&loads), stats::quantile(&loads, 0.99));
    checks.push(Check::new(
        format!("{name}: taking in a load, median and p99"),
        format!("{}, {}", micros(load), micros(most_load)),
        "none",
        true,
    ));
    Ok(json!({
        "restore_seconds": restored.as_secs_f64(),
        "resident_bytes": held,
        "resident_bytes_later": held_later,
        "look_up_seconds": { "median": median, "p99": most },
        "load_seconds": { "median": load, "p99": most_load },
        "candidates": found as f64 / look_ups.len() as f64,
    }))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Many,
    Wide,
}

impl Shape {
    const fn name(self) -> &'static str {
        match self {
            Self::Many => "many",
            Self::Wide => "wide",
        }
    }

    /// Programs, and models of each.
    const fn size(self) -> (u32, u32) {
        match self {
            Self::Many => (2000, 20),
            Self::Wide => (16, 325),
        }
    }

    /// Row `index`: programs take turns, so that none is together in memory.
    fn row(self, index: usize) -> Successor {
        let (programs, models) = self.size();
        let index = index as u32;
        let (program, place) = (index % programs, index / programs);
        let model = |number: u32| 1 + program * models + number % models;
        let (context, next) = match self {
            // 20 without context, 100 after one model, 180 after two, 200 after three.
            Self::Many => match place % 500 {
                place @ 0..20 => ([0; MOST_CONTEXT], model(place)),
                place @ 20..120 => ([model(place / 5), 0, 0], model(place / 5 + 1 + place % 5)),
                place @ 120..300 => {
                    let last = place / 9;
                    (
                        [model(last), model(last + 19 - place % 3), 0],
                        model(last + 1 + place / 3 % 3),
                    )
                }
                place => {
                    let (last, before) = (place / 10, place % 2);
                    let first = before + place / 2 % 5;
                    (
                        [model(last), model(last + 19 - before), model(last + 18 - first)],
                        model(last + 1),
                    )
                }
            },
            Self::Wide => {
                let (context, follower) = (place / WIDE, place % WIDE);
                let last = context / 3;
                let mut models = [model(last), model(last + models - 1), model(last + models - 2)];
                models[context as usize % 3 + 1..].fill(0);
                (models, model(last + 1 + follower * 5))
            }
        };
        Successor {
            program: program + 1 + 4096 * (place / self.places()),
            context,
            next,
            weight: 1.0 + (index % 7) as f32,
            at: NOW.as_secs() - u64::from(index % 1_000_000),
            gap_log: 4.0,
            gap_spread: 0.5,
        }
    }

    /// Rows of one program.
    const fn places(self) -> u32 {
        match self {
            Self::Many => 500,
            Self::Wide => 325 * 3 * WIDE,
        }
    }

    /// A program and what it loads, so that all its contexts are found.
    fn session(self, random: &mut fastrand::Rng) -> (Number, Vec<Number>) {
        let (programs, models) = self.size();
        let program = random.u32(0..programs);
        let model = |number: u32| 1 + program * models + number % models;
        let last = random.u32(0..models) + models;
        let mut loaded = vec![model(last - 2), model(last - 1), model(last)];
        if random.u32(0..5) == 0 {
            loaded.insert(0, model(random.u32(0..models)));
        }
        (program + 1, loaded)
    }
}

/// Bytes of this process in memory.
fn resident() -> Result<u64> {
    let pages = std::fs::read_to_string("/proc/self/statm").context("read /proc/self/statm")?;
    let pages = pages.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    let pages = pages.context("/proc/self/statm has no second number")?;
    Ok(pages
        * nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)
            .ok()
            .flatten()
            .map_or(4096, |size| size as u64))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_million_rows_are_a_million_keys() {
        for shape in [Shape::Many, Shape::Wide] {
            let keys: HashSet<_> = (0..1_000_000)
                .map(|index| shape.row(index))
                .map(|row| (row.program, row.context, row.next))
                .collect();
            assert_eq!(keys.len(), 1_000_000, "{}", shape.name());
        }
    }
}
