//! Draws a day from a scenario and a seed: the same day for the same two.

use fastrand::Rng;

use super::{
    definition::{Definition, Order, Program, Reads, Store},
    record::{Cold, Day, FileDef, Load, ModelDef, Piece},
};

const MIB: u64 = 1 << 20;

/// Tensors of a file are so large, in MiB.
const TENSOR: std::ops::RangeInclusive<u64> = 1..=12;

/// A file that is read in part is read in pieces of so much.
const PIECE: u64 = 4 * MIB;

/// A number of a name, the same on every machine (FNV-1a).
fn hash(name: &str) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    name.as_bytes().iter().fold(0xcbf2_9ce4_8422_2325, step)
}

fn within(random: &mut Rng, [low, high]: [u64; 2]) -> u64 {
    random.u64(low..=high.max(low))
}

/// Milliseconds within a range of seconds; short ones as likely as long ones.
fn spread(random: &mut Rng, [low, high]: [u64; 2]) -> u64 {
    let (low, high) = ((low.max(1) as f64).ln(), (high.max(low).max(1) as f64).ln());
    ((low + random.f64() * (high - low)).exp() * 1e3) as u64
}

/// The day of this seed.
pub fn day(scenario: &Definition, seed: u64) -> Day {
    let mut random = Rng::with_seed(hash(&scenario.name) ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut day = Day {
        scenario: scenario.name.clone(),
        seed,
        memory: scenario.memory * MIB,
        device: scenario.device,
        files: Vec::new(),
        models: Vec::new(),
        loads: Vec::new(),
        restarts: Vec::new(),
    };
    let stores: Vec<Stored> = scenario
        .stores
        .iter()
        .map(|store| stock(&mut day, store, &mut random))
        .collect();
    for program in &scenario.programs {
        let stored = stores.iter().find(|stored| stored.name == program.store);
        if let Some(stored) = stored {
            spend(&mut day, program, stored, &mut random);
        }
    }
    // While the longest program is at it.
    let length = lengths(&day).into_iter().max().unwrap_or(0);
    day.restarts = (0..scenario.restarts)
        .map(|_| random.u64(length / 4..=length * 3 / 4))
        .collect();
    day.restarts.sort_unstable();
    day
}

/// Milliseconds until each load begins, as if reading took none.
fn lengths(day: &Day) -> Vec<u64> {
    let mut lengths: Vec<u64> = Vec::new();
    for load in &day.loads {
        let before = load.after.and_then(|after| lengths.get(after)).copied().unwrap_or(0);
        lengths.push(before + load.gap);
    }
    lengths
}

/// A store that is filled.
struct Stored<'a> {
    name: &'a str,
    definition: &'a Store,
    /// Its models that are loaded, as indexes of the day's.
    models: Vec<usize>,
    /// All of them.
    all: Vec<usize>,
    /// The role of each file of each of these models.
    roles: Vec<Vec<usize>>,
}

fn stock<'a>(day: &mut Day, store: &'a Store, random: &mut Rng) -> Stored<'a> {
    let mut stored = Stored {
        name: &store.name,
        definition: store,
        models: Vec::new(),
        all: Vec::new(),
        roles: Vec::new(),
    };
    let used = within(random, store.models);
    let mut common: Vec<Option<Vec<usize>>> = vec![None; store.parts.len()];
    for number in 0..used + within(random, store.idle) {
        // No order of models can be read off their names.
        let name = format!("{}-{:06x}", store.name, random.u32(0..1 << 24));
        let (mut parts, mut roles) = (Vec::new(), Vec::new());
        for (role, part) in store.parts.iter().enumerate() {
            let made = common.get(role).cloned().flatten();
            let files = made.unwrap_or_else(|| {
                let count = within(random, part.count);
                let mut make = |index: u64| {
                    let file = if count == 1 {
                        format!("{name}-{}", part.role)
                    } else {
                        format!("{name}-{}-{:05}-of-{count:05}", part.role, index + 1)
                    };
                    let directory = if store.apart { format!("/{name}") } else { String::new() };
                    day.files.push(FileDef {
                        path: format!("/{}{directory}/{file}{}", store.name, part.extension),
                        size: within(random, part.size) * MIB,
                        header: part.header << 10,
                    });
                    day.files.len() - 1
                };
                (0..count).map(&mut make).collect()
            });
            roles.extend(files.iter().map(|_| role));
            parts.extend(&files);
            if part.common && number == 0 {
                common[role] = Some(files);
            }
        }
        stored.all.push(day.models.len());
        if number < used {
            stored.models.push(day.models.len());
            stored.roles.push(roles);
        }
        day.models.push(ModelDef {
            name,
            layout: store.layout,
            parts,
        });
    }
    stored
}

/// A program's loads, one after the other.
fn spend(day: &mut Day, program: &Program, stored: &Stored<'_>, random: &mut Rng) {
    let models = stored.models.len();
    // Whom each model is mostly followed by: of one circle, so that all are used.
    let mut circle: Vec<usize> = (0..models).collect();
    random.shuffle(&mut circle);
    let follower = |model: usize| {
        let place = circle.iter().position(|other| *other == model).unwrap_or(0);
        circle[(place + 1) % models]
    };
    let own = random.u64(..);
    let (think, pause) = (within(random, program.think), within(random, program.pause));
    let first = day.loads.len();
    let (mut model, mut before) = (random.usize(0..models), None);
    let mut times = vec![0; models];
    for number in 0..within(random, program.loads) {
        if number > 0 {
            model = if random.f64() < program.habit {
                follower(model)
            } else {
                random.usize(0..models)
            };
        }
        times[model] += 1;
        let is_second = times[model] == 2 && program.reads.is_same_each_time();
        let early = random.bool();
        let pieces = if program.reads.listing {
            listing(day, stored)
        } else {
            let each_time = random.u64(..);
            pieces(day, stored, model, &program.reads, own, each_time)
        };
        let gap = spread(random, program.gap);
        day.loads.push(Load {
            program: program.name.clone(),
            model: stored.models[model],
            after: before,
            gap,
            process: (program.stays_one && number > 0).then_some(first),
            how: program.how,
            announced: program.announced,
            copies: program.copies,
            think,
            pause,
            stays: (within(random, program.stays) * 1000).min(gap * 9 / 10),
            cold: (is_second && before.is_some()).then_some(if early { Cold::Early } else { Cold::Late }),
            listing: program.reads.listing,
            pieces,
        });
        before = Some(day.loads.len() - 1);
    }
}

/// The headers of all models.
fn listing(day: &Day, stored: &Stored<'_>) -> Vec<Piece> {
    let mut files: Vec<usize> = stored
        .all
        .iter()
        .flat_map(|model| day.models[*model].parts.clone())
        .collect();
    files.sort_by(|one, other| day.files[*one].path.cmp(&day.files[*other].path));
    files.dedup();
    files
        .into_iter()
        .map(|file| Piece(file, 0, day.files[file].header.clamp(64 << 10, MIB)))
        .collect()
}

/// What is read of a model, in which order.
fn pieces(day: &Day, stored: &Stored<'_>, model: usize, reads: &Reads, own: u64, each_time: u64) -> Vec<Piece> {
    let of_model = own ^ (model as u64 + 1).wrapping_mul(0x2545_f491_4f6c_dd1d);
    let random_of = |order: Order| Rng::with_seed(if order == Order::EachTime { each_time } else { of_model });
    let role_of = |role: usize| stored.definition.parts[role].role.as_str();
    let mut files: Vec<usize> = day.models[stored.models[model]]
        .parts
        .iter()
        .zip(&stored.roles[model])
        .filter(|(_, role)| reads.roles.is_empty() || reads.roles.iter().any(|name| name == role_of(**role)))
        .map(|(file, _)| *file)
        .collect();
    arrange(&mut files, reads.files, &mut random_of(reads.files));
    if let Some(some) = reads.some {
        let count = within(&mut random_of(reads.files), some);
        files.truncate(usize::try_from(count).unwrap_or(usize::MAX));
    }
    let mut random = random_of(reads.within);
    files
        .into_iter()
        .flat_map(|file| file_pieces(&day.files[file], file, reads, &mut random))
        .collect()
}

fn file_pieces(file: &FileDef, index: usize, reads: &Reads, random: &mut Rng) -> Vec<Piece> {
    let whole = reads.within == Order::Listed && reads.share.is_none();
    if whole {
        return vec![Piece(index, 0, file.size)];
    }
    let mut pieces = Vec::new();
    let mut start = file.header;
    while start < file.size {
        let length = if reads.within == Order::Listed {
            PIECE
        } else {
            random.u64(TENSOR) * MIB
        };
        let end = (start + length).min(file.size);
        pieces.push(Piece(index, start, end));
        start = end;
    }
    let share = reads.share.unwrap_or(1.0);
    pieces.retain(|_| random.f64() < share);
    arrange(&mut pieces, reads.within, random);
    if file.header > 0 {
        pieces.insert(0, Piece(index, 0, file.header));
    }
    pieces
}

fn arrange<T>(list: &mut [T], order: Order, random: &mut Rng) {
    match order {
        Order::Listed => {}
        Order::Reversed => list.reverse(),
        Order::Own | Order::EachTime => random.shuffle(list),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::bench::day::definition::{SCENARIOS, parse};

    #[test]
    fn a_seed_makes_the_same_day_again_and_another_one_another_day() {
        for scenario in parse(SCENARIOS).unwrap() {
            assert_eq!(day(&scenario, 3), day(&scenario, 3));
            assert_ne!(day(&scenario, 3), day(&scenario, 4));
        }
    }

    #[test]
    fn a_second_time_is_like_the_first_and_cold() {
        for scenario in parse(SCENARIOS).unwrap() {
            for seed in 0..20 {
                let day = day(&scenario, seed);
                let mut seen: HashMap<(&str, usize), Vec<&Load>> = HashMap::new();
                for load in &day.loads {
                    assert!(load.pieces.iter().all(|piece| piece.2 <= day.files[piece.0].size));
                    let before = seen.entry((&load.program, load.model)).or_default();
                    if load.cold.is_some() {
                        assert_eq!(before.len(), 1, "{} {seed}", scenario.name);
                        assert_eq!(before[0].pieces, load.pieces);
                    }
                    before.push(load);
                }
            }
        }
    }

    #[test]
    fn every_scenario_but_those_of_chance_has_second_times() {
        for scenario in parse(SCENARIOS).unwrap() {
            let same = scenario
                .programs
                .iter()
                .any(|program| program.reads.is_same_each_time());
            let seconds = (0..10).flat_map(|seed| day(&scenario, seed).loads);
            assert_eq!(
                seconds.filter(|load| load.cold.is_some()).count() > 0,
                same,
                "{}",
                scenario.name
            );
        }
    }
}
