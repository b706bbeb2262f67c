mod collect;
mod follow;
mod loaders;
mod random;

use super::*;

const START: Duration = Duration::from_secs(1_767_571_200);
const DAY: Duration = Duration::from_secs(86_400);

type Steps = Vec<(u32, u32)>;

/// A model in one part of so many steps.
fn bytes(steps: u32) -> u64 {
    u64::from(steps) * STEP
}

fn seen(parts: &[u32], steps: impl IntoIterator<Item = (u32, u32)>) -> Seen {
    seen_at(1, parts, steps)
}

/// What was read at so many places at once.
fn seen_at(places: usize, parts: &[u32], steps: impl IntoIterator<Item = (u32, u32)>) -> Seen {
    let mut collector = Collector::new(parts.iter().map(|steps| bytes(*steps)));
    for (part, step) in steps {
        collector.demanded(part as usize, u64::from(step));
    }
    collector.finish(places)
}

fn ascend(from: u32, until: u32) -> Steps {
    (from..until).map(|step| (0, step)).collect()
}

/// Layers of `layer` steps each, which lie in the file as their names sort and are read as they are numbered.
fn layers(count: u32, layer: u32) -> Steps {
    let mut names: Vec<u32> = (0..count).collect();
    names.sort_by_key(u32::to_string);
    let place = |number: u32| names.iter().position(|name| *name == number).unwrap() as u32 * layer;
    (0..count)
        .flat_map(|number| ascend(place(number), place(number) + layer))
        .collect()
}

fn shuffled(steps: u32, random: &mut fastrand::Rng) -> Steps {
    let mut all = ascend(0, steps);
    random.shuffle(&mut all);
    all
}

/// Readers that each go their way, one of them a few steps at a time, as fast as it happens.
fn together(readers: Vec<Steps>, random: &mut fastrand::Rng) -> Steps {
    let mut left: Vec<_> = readers.into_iter().map(Vec::into_iter).collect();
    let mut all = Vec::new();
    while !left.is_empty() {
        let reader = random.usize(0..left.len());
        all.extend(left[reader].by_ref().take(random.usize(1..3)));
        left.retain(|reader| reader.len() > 0);
    }
    all
}

/// Readers of which none is more than so many steps ahead.
fn in_step(readers: Vec<Steps>, ahead: usize, random: &mut fastrand::Rng) -> Steps {
    let all = readers.into_iter().flat_map(|steps| steps.into_iter().enumerate());
    let mut all: Vec<_> = all
        .map(|(index, step)| (index + random.usize(0..ahead), index, step))
        .collect();
    all.sort_unstable();
    all.into_iter().map(|(_, _, step)| step).collect()
}

fn run(first: u32, steps: u32) -> Run {
    Run { part: 0, first, steps }
}

struct Bed {
    places: usize,
    orders: Orders,
    now: Duration,
    steps: u32,
}

impl Bed {
    fn new(steps: u32) -> Self {
        Self {
            places: 1,
            orders: Orders::default(),
            now: START,
            steps,
        }
    }

    fn load(&mut self, steps: Steps) -> Lesson {
        self.now += DAY;
        let seen = seen_at(self.places, &[self.steps], steps);
        self.orders.learn(self.now, 1, 1, bytes(self.steps), seen).unwrap()
    }

    fn loads(&mut self, times: usize, steps: &Steps) {
        for _ in 0..times {
            self.load(steps.clone());
        }
    }

    fn known(&self) -> Known {
        self.orders.recall(self.now, 1, 1, bytes(self.steps)).unwrap()
    }

    fn kind(&self) -> Kind {
        self.known().kind
    }
}

#[test]
fn the_files_own_order_is_left_to_the_other_predictor() {
    let mut random = fastrand::Rng::with_seed(7);
    let slices = (0..16).map(|rank| ascend(rank * 500, rank * 500 + 500)).collect();
    for (places, steps) in [
        (1, ascend(0, 8000)),
        // Without a projector in the middle, and the tail first.
        (1, [ascend(7999, 8000), ascend(0, 400), ascend(450, 7999)].concat()),
        // Sixteen ranks, each with its slice.
        (16, together(slices, &mut random)),
    ] {
        let mut bed = Bed::new(8000);
        bed.places = places;
        assert_eq!(bed.load(steps.clone()), Lesson::First);
        assert_eq!(bed.kind(), Kind::InOrder, "{:?}", bed.known().order.runs());
        assert_eq!(bed.load(steps), Lesson::Agreed);
        assert_eq!(bed.kind(), Kind::InOrder);
    }
}

#[test]
fn another_order_is_known_after_one_load_and_surer_after_each() {
    let backwards: Steps = ascend(0, 1000).into_iter().rev().collect();
    for steps in [layers(100, 10), backwards, [ascend(500, 1000), ascend(0, 500)].concat()] {
        let mut bed = Bed::new(1000);
        bed.load(steps.clone());
        if bed.kind() == Kind::InOrder {
            // One jump in two gigabytes is none.
            assert_eq!(steps[0], (0, 500));
            continue;
        }
        assert_eq!(bed.kind(), Kind::Own);
        let expected: Steps = bed
            .known()
            .order
            .from(0)
            .flat_map(|run| (run.first..run.first + run.steps).map(|step| (0, step)))
            .collect();
        assert_eq!(expected, steps);
        for loads in 2..5 {
            assert_eq!(bed.load(steps.clone()), Lesson::Agreed);
            assert!(bed.known().weight > loads as f32 - 0.2);
        }
    }
}

#[test]
fn what_varies_a_little_is_the_same_order() {
    let mut random = fastrand::Rng::with_seed(8);
    let mut bed = Bed::new(2000);
    bed.places = 4;
    let slices = |random: &mut fastrand::Rng| {
        // Four ranks, each of which reads its part of each layer.
        let readers = (0..4).map(|rank| {
            layers(100, 20)
                .into_iter()
                .filter(|(_, step)| step % 20 / 5 == rank)
                .collect()
        });
        together(readers.collect(), random)
    };
    bed.load(slices(&mut random));
    assert_eq!(bed.kind(), Kind::Own);
    for _ in 0..10 {
        assert_eq!(bed.load(slices(&mut random)), Lesson::Agreed);
        assert_eq!(bed.kind(), Kind::Own);
    }
}

#[test]
fn chance_is_no_order_and_yet_tells_what_is_read() {
    let mut random = fastrand::Rng::with_seed(9);
    for steps in [250, 1000, 8000] {
        let mut bed = Bed::new(steps + 100);
        for load in 0..8 {
            bed.load(shuffled(steps, &mut random));
            assert!(
                load == 0 || bed.kind() == Kind::Unstable,
                "load {load} of {steps}: {:?}",
                bed.known().weight
            );
        }
        let known = bed.known();
        assert!(known.is_unread(0, steps + 50) && !known.is_unread(0, steps / 2));
    }
}

#[test]
fn another_habit_takes_over() {
    let mut bed = Bed::new(1000);
    let habit = layers(100, 10);
    bed.loads(20, &habit);
    let new = [ascend(300, 1000), ascend(0, 300)].concat();
    let backwards: Steps = new.chunks(7).rev().flatten().copied().collect();
    assert_eq!(bed.load(backwards.clone()), Lesson::Differed);
    // Once is nothing.
    assert_eq!((bed.kind(), bed.load(habit.clone())), (Kind::Own, Lesson::Agreed));
    let lessons: Vec<Lesson> = (0..4).map(|_| bed.load(backwards.clone())).collect();
    assert_eq!(
        lessons,
        [Lesson::Differed, Lesson::Replaced, Lesson::Agreed, Lesson::Agreed]
    );
    assert_eq!(bed.kind(), Kind::Own);
    assert_eq!(
        bed.known().after(0, backwards[5].1).next(),
        Some(run(backwards[6].1, 7))
    );
}

#[test]
fn what_was_never_read_is_known_after_a_load_and_read_once_no_more() {
    let mut bed = Bed::new(1000);
    bed.load(ascend(0, 900));
    assert!(bed.known().is_unread(0, 950), "one load is enough");
    bed.load(ascend(0, 900));
    assert!(bed.known().is_unread(0, 950) && !bed.known().is_unread(0, 899));
    bed.load(ascend(0, 1000));
    assert!(!bed.known().is_unread(0, 950));
    // And long not since.
    bed.loads(3, &ascend(0, 900));
    assert!(!bed.known().is_unread(0, 950));
    bed.load(ascend(0, 900));
    assert!(bed.known().is_unread(0, 950));
}

#[test]
fn parts_that_are_never_read_are_known() {
    let mut orders = Orders::default();
    let steps = [50, 50, 50];
    let read: Steps = [0, 2]
        .into_iter()
        .flat_map(|part| (0..50).map(move |step| (part, step)))
        .collect();
    for load in 0..2 {
        orders.learn(START + load * DAY, 1, 1, bytes(150), seen(&steps, read.clone()));
    }
    let known = orders.recall(START + 2 * DAY, 1, 1, bytes(150)).unwrap();
    assert!(known.is_unread_part(1) && !known.is_unread_part(0) && !known.is_unread_part(2));
    assert_eq!(known.kind, Kind::InOrder);
    assert_eq!(
        known.after(0, 49).next(),
        Some(Run {
            part: 2,
            first: 0,
            steps: 50
        })
    );
}

#[test]
fn a_load_that_was_cut_short_takes_nothing_away() {
    let mut bed = Bed::new(1000);
    bed.loads(3, &layers(100, 10));
    let before = bed.known();
    let mut some = layers(100, 10);
    some.truncate(300);
    assert_eq!(bed.load(some), Lesson::CutShort);
    assert_eq!((bed.known().order, bed.kind()), (before.order, Kind::Own));
    assert!(!bed.known().is_unread(0, 999));
}

#[test]
fn a_model_of_another_size_is_another_model() {
    let mut bed = Bed::new(1000);
    bed.load(layers(100, 10));
    assert!(bed.orders.recall(bed.now, 1, 1, bytes(999)).is_none());
    assert!(bed.orders.recall(bed.now, 1, 2, bytes(1000)).is_none());
    assert_eq!(
        bed.orders
            .learn(bed.now, 1, 1, bytes(999), seen(&[999], ascend(0, 999))),
        Some(Lesson::First)
    );
}

#[test]
fn an_old_order_is_a_guess() {
    let mut bed = Bed::new(1000);
    bed.load(layers(100, 10));
    bed.now += 100 * DAY;
    assert_eq!(bed.kind(), Kind::Unstable);
}

#[test]
fn without_room_the_oldest_go() {
    let mut orders = Orders::new(MOST_RUNS);
    for model in 1..100 {
        let steps: Steps = (0..100).rev().map(|step| (0, 2 * step)).collect();
        orders.learn(START + model * DAY, model, 1, bytes(200), seen(&[200], steps));
    }
    assert!(orders.runs <= MOST_RUNS);
    let changes = orders.take_changes();
    assert!(changes.contains(&Change::ForgetOrder { model: 1, program: 1 }));
    assert!(matches!(
        changes.last(),
        Some(Change::Put(Row::Order(Order { model: 99, .. })))
    ));
}

#[test]
fn rows_that_cannot_be_are_left_out() {
    let good = Order {
        model: 1,
        program: 1,
        bytes: bytes(10),
        runs: vec![run(0, 5), run(6, 2)],
        weight: 2.0,
        at: START.as_secs(),
    };
    let bad = [
        vec![run(0, 5), run(4, 2)],
        vec![run(0, 0)],
        vec![],
        vec![run(u32::MAX, 2)],
        vec![run(0, u32::MAX)],
        vec![run(0, 20)],
        (0..5000).map(|step| run(2 * step, 1)).collect(),
    ];
    let mut orders = Orders::default();
    let weights = [f32::NAN, 0.0, -1.0, 100.0].map(|weight| Order { weight, ..good.clone() });
    for row in bad
        .map(|runs| Order { runs, ..good.clone() })
        .into_iter()
        .chain(weights)
    {
        orders.restore(START, &Row::Order(row.clone()));
        assert!(orders.recall(START, 1, 1, bytes(10)).is_none(), "{row:?}");
        assert_eq!(orders.take_changes(), [Change::ForgetOrder { model: 1, program: 1 }]);
    }
    orders.restore(START, &Row::Order(good));
    let known = orders.recall(START, 1, 1, bytes(10)).unwrap();
    assert!(known.is_unread(0, 5) && known.kind == Kind::InOrder);
    orders.forget(&HashSet::new(), &HashSet::from([1]));
    assert!(orders.recall(START, 1, 1, bytes(10)).is_none() && orders.take_changes().is_empty());
    assert_eq!(orders.runs, 0);
}
