//! Who is locked: the hottest models, as far as the memory set aside goes.
//!
//! Two thresholds and an advantage for what is locked already, so that nothing flaps: a model is taken up at the upper threshold and let go below the lower one, and one that is
//! locked makes room only for one that is clearly hotter.

use std::cmp::Ordering;

use crate::units::FileId;

/// So much hotter must another be.
const ADVANTAGE: f64 = 1.5;

/// A model, as the decision sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// Its name.
    pub key: FileId,
    /// Its heat now.
    pub heat: f64,
    /// Somebody asked for it.
    pub asked: bool,
    /// It was hot enough at some time, and has not cooled since.
    pub chosen: bool,
    /// It holds something.
    pub held: bool,
    /// Bytes worth holding.
    pub bytes: u64,
}

/// The thresholds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Thresholds {
    /// A model that is so hot is taken up.
    pub above: f64,
    /// A model that has cooled below this is let go.
    pub below: f64,
}

impl Thresholds {
    /// Whether a model of this heat is to be locked, if it was before.
    pub fn chooses(&self, heat: f64, before: bool) -> bool {
        heat >= if before { self.below } else { self.above }
    }
}

/// What each may hold of `room` bytes, the hottest first; those that may hold nothing are not among them. The last one may get a part of what it wants.
pub fn shares(mut candidates: Vec<Candidate>, thresholds: Thresholds, room: u64) -> Vec<(FileId, u64)> {
    candidates.retain(|one| one.bytes > 0 && (one.asked || thresholds.chooses(one.heat, one.chosen)));
    candidates.sort_by(|one, other| rank(other, one).then(one.key.cmp(&other.key)));
    let mut left = room;
    let mut shares = Vec::new();
    for one in candidates {
        let share = one.bytes.min(left);
        if share == 0 {
            break;
        }
        left -= share;
        shares.push((one.key, share));
    }
    shares
}

fn rank(one: &Candidate, other: &Candidate) -> Ordering {
    let heat = |one: &Candidate| if one.held { one.heat * ADVANTAGE } else { one.heat };
    one.asked
        .cmp(&other.asked)
        .then_with(|| heat(one).total_cmp(&heat(other)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const THRESHOLDS: Thresholds = Thresholds { above: 0.9, below: 0.2 };

    fn one(inode: u64, heat: f64, bytes: u64) -> Candidate {
        let key = FileId { device: 1, inode };
        Candidate {
            key,
            heat,
            asked: false,
            chosen: false,
            held: false,
            bytes,
        }
    }

    fn held(inode: u64, heat: f64, bytes: u64) -> Candidate {
        Candidate {
            chosen: true,
            held: true,
            ..one(inode, heat, bytes)
        }
    }

    fn inodes(candidates: &[Candidate], room: u64) -> Vec<(u64, u64)> {
        let shares = shares(candidates.to_vec(), THRESHOLDS, room);
        shares.into_iter().map(|(key, share)| (key.inode, share)).collect()
    }

    #[test]
    fn the_hottest_go_first_and_the_last_gets_a_part() {
        let all = [one(1, 1.0, 40), one(2, 3.0, 40), one(3, 2.0, 40), one(4, 0.5, 1)];
        assert_eq!(inodes(&all, 100), [(2, 40), (3, 40), (1, 20)]);
        assert_eq!(inodes(&all, 80), [(2, 40), (3, 40)]);
        assert_eq!(inodes(&all, 0), []);
    }

    #[test]
    fn between_the_thresholds_all_stays_as_it_is() {
        assert_eq!(inodes(&[one(1, 0.5, 10), held(2, 0.5, 10)], 100), [(2, 10)]);
        assert_eq!(inodes(&[held(2, 0.19, 10)], 100), []);
    }

    #[test]
    fn what_is_locked_gives_way_to_what_is_clearly_hotter() {
        assert_eq!(inodes(&[held(1, 1.0, 10), one(2, 1.4, 10)], 10), [(1, 10)]);
        assert_eq!(inodes(&[held(1, 1.0, 10), one(2, 1.6, 10)], 10), [(2, 10)]);
    }

    #[test]
    fn what_was_asked_for_goes_before_all_others_and_needs_no_heat() {
        let asked = Candidate {
            asked: true,
            ..one(1, 0.0, 10)
        };
        assert_eq!(inodes(&[asked, held(2, 9.0, 10)], 10), [(1, 10)]);
    }
}
