//! Scenarios that nobody wrote: drawn from a number. What an engine was tuned by says little of it, and what somebody writes to try it is like what he knows; with another number there are others.

use fastrand::Rng;
use nitro_user::catalog::model::LayoutKind;

use super::definition::{Definition, DeviceDef, How, Order, PartDef, Program, Reads, Set, Store};

/// Scenarios of the seed, the same on every machine; all of them are held out.
pub fn scenarios(seed: u64, count: u64) -> Vec<Definition> {
    (1..=count).map(|number| scenario(seed, number)).collect()
}

fn scenario(seed: u64, number: u64) -> Definition {
    let random = &mut Rng::with_seed(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let stores: Vec<Store> = (1..=random.u64(1..=2)).map(|number| store(random, number)).collect();
    let programs: Vec<Program> = (1..=random.u64(1..=3))
        .map(|number| {
            let store = &stores[random.usize(0..stores.len())];
            program(random, number, store)
        })
        .collect();
    let all: u64 = stores.iter().map(|store| usual(store.models) * bytes(store)).sum();
    let (device, disk) = device(random);
    Definition {
        name: format!("drawn-{seed}-{number}"),
        set: Set::HeldOut,
        about: format!(
            "{disk}; {}",
            programs.iter().map(about).collect::<Vec<String>>().join("; ")
        ),
        // As a rule, not all of it fits.
        memory: (all * random.u64(60..=130) / 100).next_multiple_of(256).max(1024),
        device,
        restarts: random.u32(0..=1),
        stores,
        programs,
    }
}

fn usual([low, high]: [u64; 2]) -> u64 {
    low.midpoint(high)
}

/// MiB of a model.
fn bytes(store: &Store) -> u64 {
    store
        .parts
        .iter()
        .map(|part| usual(part.count) * usual(part.size))
        .sum()
}

fn device(random: &mut Rng) -> (DeviceDef, String) {
    let usual = DeviceDef::default();
    match random.u8(0..4) {
        0 => {
            let (limit, requests) = (random.u32(4..=40) * 25, random.u32(5..=40) * 100);
            let device = DeviceDef {
                limit: f64::from(limit),
                requests: f64::from(requests),
                ..usual
            };
            (
                device,
                format!("a network disk of {limit} MB/s and {requests} requests a second"),
            )
        }
        1 => {
            let (rate, seek) = (random.u32(12..=22) * 10, random.u32(5..=12));
            let device = DeviceDef {
                rate: f64::from(rate),
                seek: f64::from(seek),
                ..usual
            };
            (device, format!("a disk with a head, {rate} MB/s and {seek} ms"))
        }
        2 => {
            let (latency, rate) = (random.u32(1..=4), random.u32(5..=25) * 100);
            let device = DeviceDef {
                latency: f64::from(latency) / 20.0,
                rate: f64::from(rate),
                parallel: 4,
                ..usual
            };
            (device, format!("flash, {} us a request", latency * 50))
        }
        _ => {
            let (latency, rate) = (random.u32(1..=6), random.u32(6..=20) * 10);
            let device = DeviceDef {
                latency: f64::from(latency) / 2.0,
                rate: f64::from(rate),
                parallel: random.usize(4..=8),
                read_ahead: if random.bool() { 128 } else { 1024 },
                request: 0,
                ..usual
            };
            (device, format!("a file server, {} us a request", latency * 500))
        }
    }
}

fn store(random: &mut Rng, number: u64) -> Store {
    const LAYOUTS: [LayoutKind; 7] = [
        LayoutKind::Ollama,
        LayoutKind::Gguf,
        LayoutKind::HuggingFace,
        LayoutKind::Safetensors,
        LayoutKind::Numbered,
        LayoutKind::Siblings,
        LayoutKind::Single,
    ];
    let layout = LAYOUTS[random.usize(0..LAYOUTS.len())];
    let is_one = matches!(layout, LayoutKind::Ollama | LayoutKind::Gguf | LayoutKind::Single);
    let least = if is_one { 1 } else { random.u64(2..=6) };
    let most = if is_one { 1 } else { least + random.u64(0..=4) };
    let part = |role: &str, count: [u64; 2], size: [u64; 2]| PartDef {
        role: role.into(),
        extension: String::new(),
        count,
        size,
        header: 64,
        common: false,
    };
    let low = (random.u64(128..=512) / most).max(24);
    let mut parts = vec![part("data", [least, most], [low, low * random.u64(2..=3)])];
    if layout == LayoutKind::Ollama {
        parts.push(part("projector", [1, 1], [32, 128]));
    }
    Store {
        name: format!("store-{number}"),
        layout,
        models: [2, random.u64(2..=5)],
        idle: [1, random.u64(1..=4)],
        apart: !is_one,
        parts,
    }
}

fn program(random: &mut Rng, number: u64, store: &Store) -> Program {
    let how = [
        How::Map,
        How::Map,
        How::MapRandom,
        How::Populate,
        How::Read,
        How::Read,
        How::ReadSmall,
    ];
    let how = how[random.usize(0..how.len())];
    let maps = matches!(how, How::Map | How::MapRandom | How::Populate);
    let [least, _] = store
        .parts
        .iter()
        .fold([0, 0], |[low, high], part| [low + part.count[0], high + part.count[1]]);
    let order = |random: &mut Rng| match random.u8(0..20) {
        0..=10 => Order::Listed,
        11..=12 => Order::Reversed,
        13..=18 => Order::Own,
        _ => Order::EachTime,
    };
    let one_in = |random: &mut Rng, count: u8| random.u8(0..count) == 0;
    let (files, within) = (order(random), order(random));
    let reads = Reads {
        listing: false,
        roles: if store.parts.len() > 1 && random.bool() {
            vec!["data".into()]
        } else {
            Vec::new()
        },
        files,
        some: (least > 3 && one_in(random, 4)).then_some([2, least - 1]),
        within: if within == Order::Reversed {
            Order::Listed
        } else {
            within
        },
        share: one_in(random, 4).then(|| f64::from(random.u32(3..=8)) / 10.0),
    };
    let busy = random.u64(1..=20) * 100;
    let (think, pause) = if maps {
        ([0, 0], [busy, busy * 4])
    } else {
        ([busy, busy * 4], [0, 0])
    };
    Program {
        name: format!("program-{number}"),
        store: store.name.clone(),
        loads: [6, 12],
        how,
        announced: random.bool(),
        stays_one: one_in(random, 3),
        copies: how == How::Read && one_in(random, 3),
        habit: f64::from(random.u32(3..=9)) / 10.0,
        reads,
        think,
        pause,
        stays: if one_in(random, 3) { [30, 300] } else { [0, 0] },
        gap: [20, random.u64(5..=15) * 100],
    }
}

/// In a few words.
fn about(program: &Program) -> String {
    let how = match program.how {
        How::Map => "maps",
        How::MapRandom => "maps page by page",
        How::Populate => "maps at once",
        How::Read => "reads",
        How::ReadSmall => "reads in small pieces",
    };
    let what = match (&program.reads.some, program.reads.share) {
        (None, None) => "all".to_owned(),
        (Some(_), None) => "some files".to_owned(),
        (None, Some(share)) => format!("{:.0} % of each file", share * 100.0),
        (Some(_), Some(share)) => format!("{:.0} % of some files", share * 100.0),
    };
    let order = |order| match order {
        Order::Listed => "as listed",
        Order::Reversed => "reversed",
        Order::Own => "in its own order",
        Order::EachTime => "in another order each time",
    };
    let (files, within) = (order(program.reads.files), order(program.reads.within));
    format!("{} {how} {what}, files {files}, bytes {within}", program.name)
}

#[cfg(test)]
mod tests {
    use super::{super::generate, *};

    #[test]
    fn the_same_number_gives_the_same_scenarios_and_each_a_day() {
        let (one, again, other) = (scenarios(7, 20), scenarios(7, 20), scenarios(8, 20));
        let told = |all: &[Definition]| all.iter().map(|one| one.about.clone()).collect::<Vec<String>>();
        assert_eq!(told(&one), told(&again));
        assert_ne!(told(&one), told(&other));
        for scenario in one.iter().chain(&other) {
            let day = generate::day(scenario, 0);
            assert!(day.loads.len() >= 6, "{}", scenario.about);
            assert!(
                day.loads.iter().any(|load| !load.pieces.is_empty()),
                "{}",
                scenario.about
            );
        }
    }
}
