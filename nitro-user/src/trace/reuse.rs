//! Reuse distance: how many different bytes were touched between two touches of the same place. A cache that holds as much as that, and drops what was used longest ago, would still have had it.
//!
//! Mattson et al., "Evaluation techniques for storage hierarchies", IBM Systems Journal 9(2), 1970, with a Fenwick tree over the touches. The grain is a step.

use std::collections::HashMap;

use crate::units::STEP;

/// A place: number of a file, and step.
pub type Place = (u32, u64);

/// Touches between which the tree is made anew, for those that are the last of their place: memory follows the places, not the touches.
const LEAST: usize = 1 << 16;

/// Follows touches.
#[derive(Debug, Default)]
pub struct Reuse {
    /// By touch, as a Fenwick tree: 1 where it is the last of its place.
    tree: Vec<u32>,
    last: HashMap<Place, u32>,
    next: u32,
}

impl Reuse {
    /// A place is touched. Bytes that were touched since it was touched last, itself included; `None` for the first time.
    pub fn touch(&mut self, place: Place) -> Option<u64> {
        if self.next as usize >= self.tree.len() {
            self.renumber();
        }
        let before = self.last.insert(place, self.next);
        let distance = before.map(|before| {
            let since = self.sum(self.next) - self.sum(before);
            self.add(before, -1);
            u64::from(since) * STEP
        });
        self.add(self.next, 1);
        self.next += 1;
        distance
    }

    /// Numbers the last touches of all places from 0 on, with as much room again.
    fn renumber(&mut self) {
        let mut places: Vec<(u32, Place)> = self.last.iter().map(|(place, touch)| (*touch, *place)).collect();
        places.sort_unstable();
        self.tree = vec![0; (places.len() * 2).max(LEAST)];
        self.next = 0;
        for (_, place) in places {
            self.last.insert(place, self.next);
            self.add(self.next, 1);
            self.next += 1;
        }
    }

    fn add(&mut self, touch: u32, by: i32) {
        let mut at = touch as usize + 1;
        while let Some(sum) = self.tree.get_mut(at - 1) {
            *sum = sum.wrapping_add_signed(by);
            at += at & at.wrapping_neg();
        }
    }

    /// Last touches before this one.
    fn sum(&self, touch: u32) -> u32 {
        let (mut at, mut sum) = (touch as usize, 0);
        while at > 0 {
            sum += self.tree.get(at - 1).copied().unwrap_or(0);
            at &= at - 1;
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_distance_is_what_was_touched_in_between_and_itself() {
        let mut reuse = Reuse::default();
        let place = |step| (0, step);
        for step in 0..4 {
            assert_eq!(reuse.touch(place(step)), None);
        }
        assert_eq!(reuse.touch(place(3)), Some(STEP));
        assert_eq!(reuse.touch(place(0)), Some(4 * STEP));
        assert_eq!(reuse.touch(place(0)), Some(STEP));
        assert_eq!(reuse.touch(place(1)), Some(4 * STEP));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn it_is_that_of_a_list_ordered_by_use(touches in proptest::collection::vec(0u64..200, 1..2000), again in 1usize..120) {
            let (mut reuse, mut list) = (Reuse::default(), Vec::new());
            for _ in 0..again {
                for step in &touches {
                    let at = list.iter().rev().position(|known| known == step);
                    let distance = at.map(|at| (at as u64 + 1) * STEP);
                    if let Some(at) = at {
                        list.remove(list.len() - 1 - at);
                    }
                    list.push(*step);
                    prop_assert_eq!(reuse.touch((7, *step)), distance);
                }
            }
        }
    }
}
