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
fn looks_elsewhere_are_forgiven() {
    let steps = layers(100, 10);
    let order = Ranked::new(seen(&[2000], steps.iter().copied().chain(ascend(1500, 1600))).runs).unwrap();
    for every in [20, 300] {
        // Some of them at what was never read before.
        let with_look = |(index, step): (usize, &(u32, u32))| {
            let look = (index % every == every - 1).then_some((0, 1500 + (index * 7 / every) as u32));
            [Some(*step), look].into_iter().flatten().collect::<Steps>()
        };
        let looks: Steps = steps.iter().enumerate().flat_map(with_look).collect();
        let found = follow(&order, &looks, 16);
        let along = found.iter().filter(|found| **found == Following::Along).count();
        assert!(along >= 995, "{along} of 1000, one look in {every}");
    }
}

#[test]
fn who_jumps_again_and_again_is_left() {
    let order = Ranked::new(seen(&[1000], layers(100, 10)).runs).unwrap();
    let mut random = fastrand::Rng::with_seed(12);
    for _ in 0..20 {
        let mut layers: Vec<Steps> = layers(100, 10).chunks(10).map(<[_]>::to_vec).collect();
        random.shuffle(&mut layers);
        let found = follow(&order, &layers.concat(), 8);
        let along = found.iter().filter(|found| **found == Following::Along).count();
        assert_eq!(found.last(), Some(&Following::Left));
        assert!(along < 100, "{along}");
    }
}

#[test]
fn several_places_of_one_load_are_along_the_same_order() {
    let mut random = fastrand::Rng::with_seed(11);
    let halves = || {
        let second = layers(50, 80).into_iter().map(|(part, step)| (part, step + 4000));
        vec![layers(50, 80), second.collect()]
    };
    let order = Ranked::new(seen_at(2, &[8000], in_step(halves(), 20, &mut random)).runs).unwrap();
    let mut follower = Follower::default();
    let steps = in_step(halves(), 20, &mut random);
    let along = steps
        .iter()
        .filter(|(part, step)| follower.moved(&order, *part, *step, 32, 2) == Following::Along);
    assert!(along.count() > 7800);
}
