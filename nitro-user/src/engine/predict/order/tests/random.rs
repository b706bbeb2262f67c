//! Whatever is read, and learned.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// Pieces of a file in any order, some of them in turns.
fn reading() -> impl Strategy<Value = Steps> {
    let piece = (0..3_u32, 0..120_u32, 1..40_u32, any::<bool>());
    prop::collection::vec(piece, 1..20).prop_map(|pieces| {
        let mut steps: Steps = Vec::new();
        for (part, first, count, turns) in pieces {
            let more: Steps = (first..first + count).map(|step| (part, step)).collect();
            if turns {
                let before = steps.split_off(steps.len().saturating_sub(more.len()));
                steps.extend(
                    before
                        .into_iter()
                        .zip(more.clone())
                        .flat_map(|(one, other)| [one, other]),
                );
            }
            steps.extend(more);
        }
        steps
    })
}

proptest! {
    #[test]
    fn runs_hold_what_was_read_and_nothing_else(steps in reading()) {
        let found = seen(&[160, 160, 160], steps.clone());
        let order = Ranked::new(found.runs.clone());
        prop_assert!(order.is_some(), "{:?}", found.runs);
        let order = order.unwrap();
        let read: BTreeSet<(u32, u32)> = steps.into_iter().collect();
        prop_assert_eq!(order.steps() as usize, read.len());
        for part in 0..4 {
            for step in 0..170 {
                prop_assert_eq!(order.rank(part, step).is_some(), read.contains(&(part, step)));
            }
        }
        // A rank is a place.
        for rank in 0..order.steps() {
            let first = order.from(rank).next().unwrap();
            prop_assert_eq!(order.rank(first.part, first.first), Some(rank));
            let left: u32 = order.from(rank).map(|run| run.steps).sum();
            prop_assert_eq!(left, order.steps() - rank);
        }
    }

    #[test]
    fn whatever_is_learned_is_bounded_kept_and_the_same_again(loads in prop::collection::vec((reading(), 0..60_u32), 1..12)) {
        let (mut orders, mut store) = (Orders::default(), BTreeMap::new());
        let mut now = START;
        let mut read: BTreeSet<(u32, u32)> = BTreeSet::new();
        for (steps, days) in loads {
            now += days * DAY;
            let lesson = orders.learn(now, 1, 1, bytes(480), seen(&[160, 160, 160], steps.clone()));
            prop_assert!(lesson.is_some());
            read.extend(&steps);
            for change in orders.take_changes() {
                let Change::Put(Row::Order(row)) = change else { panic!("{change:?}") };
                store.insert((row.model, row.program), row);
            }
            let known = orders.recall(now, 1, 1, bytes(480)).unwrap();
            // Nothing is held to be read that never was, nor the load's own steps for unread.
            for run in known.order.runs() {
                prop_assert!((run.first..run.first + run.steps).all(|step| read.contains(&(run.part, step))));
            }
            prop_assert!(steps.iter().all(|(part, step)| !known.is_unread(*part, *step)));
            let mut again = Orders::default();
            store.values().for_each(|row| again.restore(now, &Row::Order(row.clone())));
            let restored = again.recall(now, 1, 1, bytes(480)).unwrap();
            prop_assert_eq!(restored.order, known.order);
            prop_assert_eq!(restored.weight, known.weight);
            prop_assert_eq!(orders.runs, orders.kept.values().map(Kept::len).sum::<usize>());
        }
    }
}
