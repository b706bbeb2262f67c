use proptest::prelude::*;

use super::*;
use crate::engine::learn::row::{BEGINNING, Successor};

const START: Duration = Duration::from_secs(1_767_571_200);
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);

/// One that runs for long enough to know a beginning when it sees one.
fn predictor() -> Successors {
    let mut predictor = Successors::default();
    predictor.settle(START - DAY);
    predictor.session(START - DAY, 99);
    predictor
}

/// Loads `models` day after day, `pause` apart; returns the time of the day after.
fn days(
    predictor: &mut Successors,
    first: Duration,
    days: u32,
    pause: Duration,
    program: Number,
    models: &[Number],
) -> Duration {
    for day in 0..days {
        for (index, model) in (0..).zip(models) {
            predictor.loaded(first + day * DAY + pause * index, program, *model);
        }
    }
    first + days * DAY
}

fn models(candidates: &[Candidate]) -> Vec<Number> {
    candidates.iter().map(|candidate| candidate.model).collect()
}

/// What is predicted right after a load.
fn after_load(predictor: &mut Successors, at: Duration, program: Number, model: Number) -> Vec<Candidate> {
    predictor.loaded(at, program, model);
    predictor.predict(at, program)
}

#[test]
fn nothing_is_known_at_first() {
    let mut predictor = predictor();
    assert!(predictor.predict(START, 1).is_empty());
    let found = after_load(&mut predictor, START, 1, 5);
    assert!(found.iter().all(|found| found.confidence < 0.2), "{found:?}");
}

#[test]
fn what_came_before_tells_which_way_it_goes_on() {
    let mut predictor = predictor();
    let mut now = START;
    for _ in 0..6 {
        now = days(&mut predictor, now, 1, MINUTE, 1, &[1, 2, 3]);
        now = days(&mut predictor, now, 1, MINUTE, 1, &[4, 2, 5]);
    }
    predictor.loaded(now, 1, 1);
    let after = after_load(&mut predictor, now + MINUTE, 1, 2);
    assert_eq!(after[0].model, 3);
    assert_eq!(after[0].reason.context, [2, 1, BEGINNING]);
    assert!(after[0].reason.times > 4.0 && after[0].reason.times <= after[0].reason.of);
    predictor.loaded(now + DAY, 1, 4);
    assert_eq!(after_load(&mut predictor, now + DAY + MINUTE, 1, 2)[0].model, 5);
}

#[test]
fn a_program_that_begins_anew_is_known_by_its_beginning() {
    let mut predictor = predictor();
    let now = days(&mut predictor, START, 8, MINUTE, 1, &[1, 2, 3, 2, 3, 2]);
    // Two is loaded more often, and yet one comes first.
    let first = predictor.predict(now, 1);
    assert_eq!(first[0].model, 1);
    assert_eq!(first[0].reason.context, [BEGINNING, 0, 0]);
}

#[test]
fn that_nothing_follows_is_learned() {
    let mut predictor = predictor();
    let now = days(&mut predictor, START, 12, MINUTE, 1, &[1, 2]);
    let confidence = |candidates: &[Candidate]| candidates.iter().map(|found| found.confidence).fold(0.0, f32::max);
    assert!(confidence(&after_load(&mut predictor, now, 1, 1)) > 0.6);
    assert!(confidence(&after_load(&mut predictor, now + MINUTE, 1, 2)) < 0.2);
}

#[test]
fn of_a_program_that_runs_already_nobody_knows_what_came_before() {
    let mut predictor = Successors::default();
    predictor.loaded(START, 1, 1);
    predictor.loaded(START + MINUTE, 1, 2);
    let changes = predictor.take_changes();
    let begins =
        |change: &Change| matches!(change, Change::Put(Row::Successor(row)) if row.context.contains(&BEGINNING));
    assert!(!changes.iter().any(begins), "{changes:?}");
}

#[test]
fn programs_that_load_in_turns_do_not_disturb_each_other() {
    let mut predictor = predictor();
    let mut now = START;
    for _ in 0..8 {
        for (index, (program, model)) in (0..).zip([(1, 1), (2, 10), (1, 2), (2, 20), (2, 30), (1, 3)]) {
            predictor.loaded(now + MINUTE * index, program, model);
        }
        now += DAY;
    }
    predictor.loaded(now, 1, 1);
    predictor.loaded(now, 2, 10);
    assert_eq!(predictor.predict(now, 1)[0].model, 2);
    assert_eq!(predictor.predict(now, 2)[0].model, 20);
}

#[test]
fn a_program_that_is_new_does_what_any_program_does() {
    let mut predictor = predictor();
    let now = days(&mut predictor, START, 8, MINUTE, 1, &[1, 2]);
    for program in [7, 0] {
        let after = after_load(&mut predictor, now, program, 1);
        assert_eq!((after[0].model, after[0].reason.program), (2, 0), "{after:?}");
        assert!(after[0].confidence > 0.4);
    }
    // Its own habit goes first.
    let now = days(&mut predictor, now + DAY, 4, MINUTE, 7, &[1, 9]);
    assert_eq!(after_load(&mut predictor, now, 7, 1)[0].model, 9);
}

#[test]
fn one_model_over_and_over() {
    let mut predictor = predictor();
    for index in 0..20 {
        predictor.loaded(START + index * MINUTE / 20, 1, 5);
    }
    assert_eq!(models(&predictor.predict(START + MINUTE, 1)), [5]);
}

#[test]
fn whichever_of_two_that_belong_together_comes_first_stands_for_the_other() {
    let mut predictor = predictor();
    let (base, adapter) = (1, 2);
    let close = Duration::from_secs(3);
    // It has always been the base that came first.
    let mut now = START;
    for _ in 0..6 {
        now = days(&mut predictor, now, 1, close, 1, &[base, adapter]);
        predictor.loaded(now - DAY + 5 * MINUTE, 1, 3);
    }
    for (first, second) in [(base, adapter), (adapter, base)] {
        let found = after_load(&mut predictor, now, 1, first);
        assert_eq!(found[0].model, second, "after {first}: {found:?}");
        assert!(found[0].due[1] < TOGETHER);
        let found = after_load(&mut predictor, now + close, 1, second);
        assert_eq!(found[0].model, 3, "after both: {found:?}");
        assert!(!models(&found).contains(&first), "{found:?}");
        now += DAY;
    }
}

#[test]
fn of_a_group_the_first_stands_for_all() {
    let mut predictor = predictor();
    let close = Duration::from_secs(2);
    let mut now = START;
    for _ in 0..6 {
        now = days(&mut predictor, now, 1, close, 1, &[1, 2, 3, 4]);
        predictor.loaded(now - DAY / 2, 1, 8);
    }
    let found = after_load(&mut predictor, now, 1, 1);
    assert_eq!(models(&found)[..3], [2, 3, 4]);
    assert_eq!(found[2].reason.with, Some(3));
    assert!(found[2].due[1] > found[0].due[1] && found[2].due[1] < TOGETHER);
    // What announces the first of them announces all.
    let now = days(&mut predictor, now + DAY, 6, MINUTE, 2, &[7]);
    for day in 0..8 {
        let morning = now + day * DAY;
        predictor.loaded(morning, 2, 7);
        days(&mut predictor, morning + 5 * MINUTE, 1, close, 2, &[1, 2, 3, 4]);
    }
    let found = after_load(&mut predictor, now + 8 * DAY, 2, 7);
    let mut all = models(&found);
    all.sort_unstable();
    assert_eq!(all[..4], [1, 2, 3, 4], "{found:?}");
}

#[test]
fn two_that_alternate_quickly_are_told_from_two_that_belong_together() {
    let mut predictor = predictor();
    for index in 0..40 {
        predictor.loaded(START + index * Duration::from_secs(4), 1, 1 + index % 2);
    }
    assert_eq!(predictor.predict(START + 156 * Duration::from_secs(1), 1)[0].model, 1);
}

#[test]
fn a_habit_that_was_given_up_fades() {
    let mut predictor = predictor();
    let now = days(&mut predictor, START, 30, MINUTE, 1, &[1, 2]);
    let now = days(&mut predictor, now, 30, MINUTE, 1, &[1, 3]);
    assert_eq!(after_load(&mut predictor, now, 1, 1)[0].model, 3);
    predictor.take_changes();
    // Of what nobody does any more nothing is left.
    let later = now + 400 * DAY;
    for index in 0..200 {
        predictor.loaded(later + index * MINUTE, 2, 9);
    }
    assert!(!models(&after_load(&mut predictor, later, 1, 1)).contains(&2));
    let changes = predictor.take_changes();
    assert!(
        changes
            .iter()
            .any(|change| matches!(change, Change::Fade { program: 1, .. })),
        "{changes:?}"
    );
}

#[test]
fn it_says_when_and_waits_no_longer_than_that() {
    let mut predictor = predictor();
    let mut random = fastrand::Rng::with_seed(3);
    let mut now = START;
    for _ in 0..30 {
        predictor.loaded(now, 1, 1);
        predictor.loaded(now + Duration::from_secs(random.u64(200..400)), 1, 2);
        now += DAY;
    }
    predictor.loaded(now, 1, 1);
    let due = predictor.predict(now, 1)[0].due;
    let near = |time: Duration, seconds: u64| time.abs_diff(Duration::from_secs(seconds)) < Duration::from_secs(60);
    assert!(near(due[0], 220) && near(due[1], 300) && near(due[2], 380), "{due:?}");
    assert!(near(predictor.predict(now + MINUTE, 1)[0].due[1], 240));
    let confidence = |found: Vec<Candidate>| found.first().map_or(0.0, |found| found.raw);
    let at_once = confidence(predictor.predict(now, 1));
    let after_two = confidence(predictor.predict(now + 2 * MINUTE, 1));
    let after_ten = confidence(predictor.predict(now + 10 * MINUTE, 1));
    assert!((at_once - after_two).abs() < 0.1, "{at_once} {after_two}");
    assert!(after_ten < at_once / 3.0, "{at_once} {after_ten}");
}

#[test]
fn what_is_forgotten_is_not_offered_and_not_written() {
    let mut predictor = predictor();
    let now = days(&mut predictor, START, 4, MINUTE, 1, &[1, 2, 3]);
    days(&mut predictor, START, 4, MINUTE, 2, &[1, 2, 3]);
    predictor.loaded(now, 1, 1);
    predictor.forget(&HashSet::from([2]), &HashSet::from([2]));
    let mentions = |change: &Change| match change {
        Change::Put(Row::Successor(row)) => row.program == 2 || row.next == 2 || row.context.contains(&2),
        Change::Fade { .. } => true,
        _ => false,
    };
    assert!(!predictor.take_changes().iter().any(mentions));
    assert!(!models(&predictor.predict(now, 1)).contains(&2));
    assert!(!models(&predictor.predict(now, 2)).contains(&2));
}

#[test]
fn rows_that_cannot_be_are_left_out() {
    let good = Successor {
        program: 1,
        context: [1, 0, 0],
        next: 2,
        weight: 3.0,
        at: START.as_secs(),
        gap_log: 4.0,
        gap_spread: 0.5,
    };
    let mut predictor = Successors::default();
    let bad = [
        Successor {
            weight: f32::NAN,
            ..good
        },
        Successor { weight: -1.0, ..good },
        Successor {
            weight: f32::INFINITY,
            ..good
        },
        Successor {
            gap_log: f32::NAN,
            ..good
        },
        Successor {
            gap_spread: -1.0,
            ..good
        },
        Successor {
            context: [1, 0, 2],
            ..good
        },
        Successor { at: 0, ..good },
    ];
    for row in bad {
        predictor.restore(START, &Row::Successor(row));
        assert_eq!(predictor.rows(), 0, "{row:?}");
        // Nor are they kept any longer.
        assert_eq!(predictor.take_changes().len(), 1, "{row:?}");
    }
    // A clock that was put back.
    predictor.restore(START, &Row::Successor(Successor { at: u64::MAX, ..good }));
    assert_eq!(predictor.rows(), 1);
}

/// What a store has after the changes.
fn keep(store: &mut BTreeMap<(Number, [Number; 3], Number), Successor>, changes: Vec<Change>) {
    for change in changes {
        match change {
            Change::Put(Row::Successor(row)) => drop(store.insert((row.program, row.context, row.next), row)),
            Change::Fade { program, context, next } => drop(store.remove(&(program, context, next))),
            Change::Put(Row::Calibration { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
}

proptest! {
    /// Whatever is loaded, in whatever order of times: the table stays within its bound, a store that follows the changes has exactly its rows, one that is restored from
    /// there predicts the same, and so does another that is told the same.
    #[test]
    fn bounded_kept_and_the_same_again(
        loads in prop::collection::vec((0..4_u32, 0..12_u32, 0..20_000_u64, 0..40_u32), 1..400),
        most in 1..200_usize,
        forgotten in 1..12_u32,
        forgets in any::<bool>(),
    ) {
        let half_life = if forgets { DAY } else { 1000 * DAY };
        let (mut one, mut other) = (Successors::new(most, half_life), Successors::new(most, half_life));
        let mut store = BTreeMap::new();
        let mut now = START;
        for (index, (program, model, pause, back)) in loads.iter().enumerate() {
            now += Duration::from_secs(*pause);
            let at = if *back == 0 { now - DAY } else { now };
            let candidates = after_load(&mut one, at, *program, *model);
            prop_assert_eq!(&candidates, &after_load(&mut other, at, *program, *model));
            prop_assert!(candidates.len() <= MOST_CANDIDATES);
            prop_assert!(candidates.windows(2).all(|pair| pair[0].confidence >= pair[1].confidence));
            for candidate in &candidates {
                prop_assert!(candidate.model != 0 && (0.0..=1.0).contains(&candidate.confidence));
                prop_assert!(candidate.due.is_sorted());
                prop_assert!(candidate.reason.times <= candidate.reason.of * 1.0001);
            }
            prop_assert!(one.rows() <= most);
            if index % 50 == 20 {
                let forgotten = HashSet::from([forgotten]);
                one.forget(&forgotten, &HashSet::new());
                other.forget(&forgotten, &HashSet::new());
                store.retain(|(_, context, next): &(Number, [Number; 3], Number), _: &mut Successor| {
                    !context.iter().chain([next]).any(|model| forgotten.contains(model))
                });
            }
            if index % 7 == 0 {
                keep(&mut store, one.take_changes());
                prop_assert_eq!(store.len(), one.rows());
            }
        }
        one.settle(now + DAY);
        keep(&mut store, one.take_changes());
        prop_assert_eq!(store.len(), one.rows());
        let mut restored = Successors::new(most, half_life);
        restored.reserve(store.len());
        for row in store.values() {
            restored.restore(now, &Row::Successor(*row));
        }
        let session = one.sessions.clone();
        (restored.sessions, restored.calibration) = (session, std::mem::take(&mut one.calibration));
        restored.since = one.since;
        // What is faint is left out at once.
        for program in (0..4).filter(|_| !forgets) {
            let (before, after) = (restored.raw(seconds(now), program), one.raw(seconds(now), program));
            prop_assert_eq!(before.len(), after.len());
            for (before, after) in before.iter().zip(&after) {
                prop_assert!((before.share - after.share).abs() < 1e-9);
            }
        }
    }
}
