//! Readers along an order, and away from it.

use super::*;

/// Follows `order` along `steps`; what it says at each.
fn follow(order: &Ranked, steps: &Steps, window: u32) -> Vec<Following> {
    let mut follower = Follower::default();
    steps
        .iter()
        .map(|(part, step)| follower.moved(order, *part, *step, window, 1))
        .collect()
}

#[test]
fn who_is_along_the_order_is_followed() {
    let steps = layers(100, 10);
    let order = Ranked::new(seen(&[1000], steps.clone()).runs).unwrap();
    assert!(
        follow(&order, &steps, 16)
            .iter()
            .all(|found| *found == Following::Along)
    );
    // Two that are not quite in turn.
    let mut swapped = steps;
    swapped.chunks_mut(3).for_each(|chunk| chunk.reverse());
    assert!(
        follow(&order, &swapped, 16)
            .iter()
            .all(|found| *found == Following::Along)
    );
}

#[test]
fn who_leaves_the_order_is_given_up_within_two_windows() {
    let window = 16;
    let steps = layers(100, 10);
    let order = Ranked::new(seen(&[1000], steps.clone()).runs).unwrap();
    let mut random = fastrand::Rng::with_seed(10);
    for other in [
        ascend(0, 1000),
        shuffled(1000, &mut random),
        steps.iter().rev().copied().collect(),
    ] {
        let changed = [
            steps[..200].to_vec(),
            other.into_iter().filter(|step| !steps[..200].contains(step)).collect(),
        ]
        .concat();
        let found = follow(&order, &changed, window);
        assert!(found[..200].iter().all(|found| *found == Following::Along));
        // Steps for which the order would have been warmed, after the reader had left it.
        let wrong = |index: usize| {
            found[index] == Following::Along && !is_next(&order, changed[index], changed[index + 1], window)
        };
        let wrong = (200..changed.len() - 1).filter(|index| wrong(*index)).count();
        assert!(wrong <= 2 * window as usize, "{wrong} steps");
    }
}

/// Whether `then` is within a window after `step`.
fn is_next(order: &Ranked, step: (u32, u32), then: (u32, u32), window: u32) -> bool {
    let rank = |(part, step)| order.rank(part, step).unwrap();
    rank(then).wrapping_sub(rank(step)) <= window
}

#[test]
fn a_look_elsewhere_is_forgiven_and_many_are_not() {
    let steps = layers(100, 10);
    let order = Ranked::new(seen(&[2000], steps.iter().copied().chain(ascend(1500, 1600))).runs).unwrap();
    let looks = |every: usize| -> Steps {
        let with_look = |(index, step): (usize, &(u32, u32))| {
            let look = (index % every == every - 1).then_some((0, 1500 + (index / every) as u32));
            [Some(*step), look].into_iter().flatten().collect::<Steps>()
        };
        steps.iter().enumerate().flat_map(with_look).collect()
    };
    let rare = follow(&order, &looks(300), 16);
    let along = rare.iter().filter(|found| **found == Following::Along).count();
    assert!(along > 950 && *rare.last().unwrap() == Following::Along, "{along}");
    assert_eq!(*follow(&order, &looks(20), 16).last().unwrap(), Following::Left);
}

#[test]
fn several_places_of_one_load_are_along_the_same_order() {
    let mut random = fastrand::Rng::with_seed(11);
    let halves = || {
        vec![
            layers(50, 10),
            layers(50, 10)
                .into_iter()
                .map(|(part, step)| (part, step + 500))
                .collect(),
        ]
    };
    let order = Ranked::new(seen(&[1000], together(halves(), &mut random)).runs).unwrap();
    let mut follower = Follower::default();
    let steps = together(halves(), &mut random);
    let along = steps
        .iter()
        .filter(|(part, step)| follower.moved(&order, *part, *step, 32, 2) == Following::Along);
    assert!(along.count() > 900);
}
