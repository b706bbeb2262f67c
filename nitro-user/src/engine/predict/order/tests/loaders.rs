//! Loaders of many kinds, several loads each: what is made of them.

use super::*;

/// Loads of each.
const LOADS: usize = 6;

struct Loader {
    name: &'static str,
    /// Places at which it reads at once.
    places: usize,
    /// What its order is found to be after a few loads.
    kind: Kind,
    /// Sizes of the parts, and what is read, by the chance of the load, and by what is the same in all loads.
    load: fn(&mut fastrand::Rng, u64) -> (Vec<u32>, Steps),
}

fn tensors(count: u32, random: &mut fastrand::Rng) -> Vec<u32> {
    let mut all: Vec<u32> = (0..count).collect();
    random.shuffle(&mut all);
    all
}

fn twenty(tensors: &[u32]) -> Steps {
    tensors
        .iter()
        .flat_map(|tensor| ascend(tensor * 20, tensor * 20 + 20))
        .collect()
}

/// Eight ranks, each of which reads its part of each layer.
fn stripes() -> Vec<Steps> {
    let part = |rank| {
        layers(80, 50)
            .into_iter()
            .filter(move |(_, step)| step % 50 / 7 == rank)
    };
    (0..8).map(|rank| part(rank).collect()).collect()
}

/// Eight threads, of which each takes the next shard when it is done with one.
fn pool(shards: &[u32], random: &mut fastrand::Rng) -> Steps {
    let mut left = shards.iter();
    let mut threads: Vec<Steps> = Vec::new();
    let mut steps = Vec::new();
    loop {
        while threads.len() < 8
            && let Some(shard) = left.next()
        {
            threads.push((0..60).rev().map(|step| (*shard, step)).collect());
        }
        if threads.is_empty() {
            return steps;
        }
        let thread = random.usize(0..threads.len());
        steps.extend(threads[thread].pop());
        threads.retain(|thread| !thread.is_empty());
    }
}

const LOADERS: [Loader; 15] = [
    Loader {
        name: "ascending",
        places: 1,
        kind: Kind::InOrder,
        load: |_, _| (vec![4000], ascend(0, 4000)),
    },
    Loader {
        name: "32 threads, next step",
        places: 1,
        kind: Kind::InOrder,
        load: |random, _| (vec![4000], in_step(vec![ascend(0, 4000)], 32, random)),
    },
    Loader {
        name: "16 slices, turns of 2",
        places: 16,
        kind: Kind::InOrder,
        load: |random, _| {
            (
                vec![4000],
                together(
                    (0..16).map(|slice| ascend(slice * 250, slice * 250 + 250)).collect(),
                    random,
                ),
            )
        },
    },
    Loader {
        name: "16 slices, turns of 16",
        places: 16,
        kind: Kind::InOrder,
        load: |_, _| {
            (
                vec![4000],
                (0..250)
                    .step_by(16)
                    .flat_map(|from| {
                        (0..16).flat_map(move |slice| ascend(slice * 250 + from, slice * 250 + (from + 16).min(250)))
                    })
                    .collect(),
            )
        },
    },
    Loader {
        name: "8 threads, 64 shards",
        places: 8,
        kind: Kind::InOrder,
        load: |random, _| (vec![60; 64], pool(&(0..64).collect::<Vec<_>>(), random)),
    },
    Loader {
        name: "descending",
        places: 1,
        kind: Kind::Own,
        load: |_, _| (vec![4000], ascend(0, 4000).into_iter().rev().collect()),
    },
    Loader {
        name: "tail first",
        places: 1,
        kind: Kind::Own,
        load: |_, _| (vec![400], [ascend(300, 400), ascend(0, 300)].concat()),
    },
    Loader {
        name: "layers by number",
        places: 1,
        kind: Kind::Own,
        load: |_, _| (vec![4000], layers(80, 50)),
    },
    Loader {
        name: "layers by 8 ranks",
        places: 8,
        kind: Kind::Own,
        load: |random, _| (vec![4000], in_step(stripes(), 14, random)),
    },
    Loader {
        name: "the same, drifting apart",
        places: 8,
        kind: Kind::Own,
        load: |random, _| (vec![4000], together(stripes(), random)),
    },
    Loader {
        name: "tensors of its own",
        places: 1,
        kind: Kind::Own,
        load: |_, same| (vec![4000], twenty(&tensors(200, &mut fastrand::Rng::with_seed(same)))),
    },
    Loader {
        name: "the same, a tenth moved",
        places: 1,
        kind: Kind::Own,
        load: |random, same| {
            let mut order = tensors(200, &mut fastrand::Rng::with_seed(same));
            for _ in 0..20 {
                let moved = order.remove(random.usize(0..200));
                order.insert(random.usize(0..200), moved);
            }
            (vec![4000], twenty(&order))
        },
    },
    Loader {
        name: "tensors by chance",
        places: 1,
        kind: Kind::Unstable,
        load: |random, _| (vec![4000], twenty(&tensors(200, random))),
    },
    Loader {
        name: "shards by chance",
        places: 8,
        kind: Kind::Unstable,
        load: |random, _| (vec![60; 64], pool(&tensors(64, random), random)),
    },
    Loader {
        name: "steps by chance",
        places: 1,
        kind: Kind::Unstable,
        load: |random, _| (vec![4000], shuffled(4000, random)),
    },
];

/// The second load along what the first taught: the share of steps at which it is followed, and of those after which the next step would have been warmed in vain.
fn follow(known: &Known, steps: &Steps, places: usize) -> (f64, f64) {
    let mut follower = Follower::default();
    let (mut along, mut wrong) = (0.0, 0.0);
    for (index, (part, step)) in steps.iter().enumerate() {
        if follower.moved(&known.order, *part, *step, 32, places) != Following::Along {
            continue;
        }
        along += 1.0;
        if let Some(next) = known.after(*part, *step).next() {
            let until = steps.len().min(index + 64 * places);
            wrong += f64::from(u8::from(!steps[..until].contains(&(next.part, next.first))));
        }
    }
    (along / steps.len() as f64, wrong / steps.len() as f64)
}

/// With `--nocapture` it prints what is said of it in ARCHITECTURE.md.
#[test]
fn orders_are_told_from_chance() {
    println!("{:26} | runs | after {LOADS} loads | agreed | followed | in vain", "");
    for loader in LOADERS {
        let (mut agreed, mut along, mut wrong, mut runs) = (0, 0.0, 0.0, 0);
        let seeds = 20;
        // Others than those by which the constants were chosen.
        for seed in 8000..8000 + seeds {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut orders = Orders::default();
            for load in 0..LOADS {
                let now = START + DAY * load as u32;
                let (parts, steps) = (loader.load)(&mut random, 1000 + seed);
                let size = bytes(parts.iter().sum());
                if let Some(known) = orders
                    .recall(now, 1, 1, size)
                    .filter(|known| load == 1 && known.kind == Kind::Own)
                {
                    let (followed, vain) = follow(&known, &steps, loader.places);
                    along += followed / seeds as f64;
                    wrong += vain / seeds as f64;
                }
                let lesson = orders.learn(now, 1, 1, size, seen_at(loader.places, &parts, steps));
                agreed += usize::from(lesson == Some(Lesson::Agreed));
                let known = orders.recall(now, 1, 1, size).unwrap();
                runs = known.order.runs().len();
                assert!(
                    load + 1 < LOADS || known.kind == loader.kind,
                    "{}, seed {seed}: {:?}",
                    loader.name,
                    known.kind
                );
            }
        }
        let agreed = 100 * agreed / (seeds as usize * (LOADS - 1));
        let kind = format!("{:?}", loader.kind);
        println!(
            "{:26} | {runs:4} | {kind:13} | {agreed:4} % | {:6.0} % | {:5.1} %",
            loader.name,
            100.0 * along,
            100.0 * wrong
        );
        assert!(wrong < 0.02, "{}: {wrong}", loader.name);
        assert!(loader.kind != Kind::Own || along > 0.8, "{}: {along}", loader.name);
    }
}
