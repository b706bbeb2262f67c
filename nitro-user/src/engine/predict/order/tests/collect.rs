//! What is collected of one load.

use super::*;

#[test]
fn a_reader_that_goes_on_makes_one_run() {
    let found = seen(&[100], ascend(0, 100));
    assert_eq!((found.runs, found.ordered), (vec![run(0, 100)], true));
    // Again, and beyond the end.
    let again = seen(&[100], ascend(0, 200).into_iter().chain(ascend(0, 50)));
    assert_eq!(again.runs, [run(0, 100)]);
}

#[test]
fn jumps_make_runs_in_the_order_in_which_they_were_made() {
    let found = seen(&[100], [ascend(90, 100), ascend(0, 40), ascend(60, 70)].concat());
    assert_eq!(found.runs, [run(90, 10), run(0, 40), run(60, 10)]);
    let parts = seen(&[3, 3], [(1, 0), (1, 1), (0, 0), (0, 1), (0, 2), (1, 2)]);
    assert_eq!(
        parts.runs[0],
        Run {
            part: 1,
            first: 0,
            steps: 3
        }
    );
}

#[test]
fn cursors_that_take_turns_do_not_cut_each_other() {
    let mut random = fastrand::Rng::with_seed(5);
    let readers = (0..16).map(|reader| ascend(reader * 500, reader * 500 + 500)).collect();
    let found = seen(&[8000], together(readers, &mut random));
    assert!(found.ordered && found.runs.len() < 80, "{}", found.runs.len());
}

#[test]
fn threads_that_are_not_in_step_make_one_run() {
    let steps: Steps = (0..100)
        .flat_map(|four| [2, 0, 3, 1].map(|step| (0, 4 * four + step)))
        .collect();
    let found = seen(&[400], steps);
    assert!(found.runs.len() < 5, "{:?}", found.runs);
    // What nobody fills stays a hole.
    let found = seen(&[400], (0..100).map(|step| (0, 2 * step)));
    assert_eq!(found.runs.len(), 100);
}

#[test]
fn layers_of_a_small_model_are_not_cursors() {
    let found = seen(&[160], layers(20, 8));
    // 0, 1, 2 … where 10 to 19 lie between 1 and 2.
    assert_eq!(found.runs, [run(0, 16), run(96, 64), run(16, 80)]);
}

#[test]
fn a_tebibyte_in_no_order_takes_no_more_than_its_bits() {
    let steps = 1 << 19;
    let mut random = fastrand::Rng::with_seed(6);
    let found = seen(&[steps], shuffled(steps, &mut random));
    assert!(!found.ordered);
    assert_eq!(found.runs, [run(0, steps)]);
    // Half of it, here and there: more holes than there is room for are filled.
    let mut some = shuffled(steps, &mut random);
    some.truncate(1 << 18);
    let found = seen(&[steps], some.clone());
    assert!(!found.ordered && found.runs.len() <= MOST_RUNS);
    let order = Ranked::new(found.runs).unwrap();
    assert!(some.iter().all(|(part, step)| order.rank(*part, *step).is_some()));
}

#[test]
fn a_tebibyte_by_readers_that_take_long_turns_has_an_order() {
    // Each goes on after the others have read more than a run may wait for.
    let steps: Steps = (0..4096)
        .flat_map(|turn| {
            (0..16).flat_map(move |reader| {
                let first = reader * 32_768 + turn * 8;
                ascend(first, first + 8)
            })
        })
        .collect();
    let found = seen(&[1 << 19], steps);
    assert!(found.ordered && found.runs.len() <= MOST_RUNS, "{}", found.runs.len());
}

#[test]
fn a_model_beyond_all_measure_is_not_followed() {
    let mut collector = Collector::new([u64::MAX, u64::MAX]);
    collector.demanded(0, 5);
    collector.demanded(7, u64::MAX);
    let found = collector.finish(1);
    assert!(found.runs.is_empty() && !found.ordered);
    assert_eq!(Orders::default().learn(START, 1, 1, u64::MAX, found), None);
}
