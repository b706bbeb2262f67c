use super::*;
use crate::{engine::AccessKind, units::FileId};

const PIECE: u64 = 128 << 10;

/// What a thread does, as the kernel tells it: each access that does not go on where the thread's last one ended is a jump, and the eighth in order is told as such.
#[derive(Default)]
struct Threads {
    groups: Groups,
    last: HashMap<u32, (u64, u32)>,
    time: u64,
}

impl Threads {
    fn read(&mut self, thread: u32, at: u64) -> (Placed, Move) {
        let (end, in_order) = self.last.get(&thread).copied().unwrap_or((at, 0));
        let jump = at < end.saturating_sub(PIECE) || at > end + PIECE;
        let in_order = if jump { 0 } else { in_order + 1 };
        self.last.insert(thread, (at + PIECE, in_order));
        self.time += 100_000;
        let access = Access {
            at: Moment(self.time),
            process: 1,
            thread,
            file: FileId { device: 1, inode: 1 },
            generation: 0,
            range: ByteRange::new(at, PIECE),
            kind: AccessKind::Read,
            jump,
            in_order: in_order == 8,
            written: false,
        };
        let placed = self.groups.place(0, &access);
        let met = Met {
            fresh: u64::from(at.is_multiple_of(STEP)),
            ..Met::default()
        };
        let moved = self.groups.follow(placed, 0, &access, met, false);
        if moved == Move::On
            && let Some(group) = self.groups.get_mut(placed.group)
            && group.walks(&access, placed)
        {
            group.lost = false;
        }
        (placed, moved)
    }

    fn walking(&self) -> Vec<u64> {
        let mut fronts: Vec<u64> = self
            .groups
            .iter()
            .filter(|group| !group.lost && self.groups.is_alive(group, std::time::Duration::from_secs(5)))
            .map(|group| group.front)
            .collect();
        fronts.sort_unstable();
        fronts
    }
}

#[test]
fn a_thread_that_goes_round_between_places_has_a_walk_at_each() {
    let mut threads = Threads::default();
    for round in 0..8 {
        for place in 0..16 {
            threads.read(1, (place << 30) + round * PIECE);
        }
    }
    let fronts: Vec<u64> = (0..16).map(|place| (place << 30) + 8 * PIECE).collect();
    assert_eq!(threads.walking(), fronts);
    assert!(!threads.groups.are_random(Duration::from_secs(5)));
}

#[test]
fn threads_that_take_turns_are_one_walk() {
    let mut threads = Threads::default();
    for piece in 0..256 {
        threads.read(1 + (piece % 32) as u32, piece * PIECE);
    }
    assert_eq!(threads.walking(), [256 * PIECE]);
    assert!(!threads.groups.are_random(Duration::from_secs(5)));
}

#[test]
fn ranks_that_begin_one_after_the_other_have_a_walk_each() {
    let mut threads = Threads::default();
    // Rank 2 begins when rank 1 has read 64 MiB.
    for piece in 0..1024u64 {
        threads.read(1, piece * PIECE);
        if let Some(behind) = piece.checked_sub(512) {
            threads.read(2, behind * PIECE);
        }
    }
    assert_eq!(threads.walking(), [512 * PIECE, 1024 * PIECE]);
}

#[test]
fn a_reader_at_random_places_is_found_out() {
    for size in [256 << 20, 2 << 30, 64 << 30] {
        found_out(size);
    }
}

fn found_out(size: u64) {
    let mut threads = Threads::default();
    let mut seed = 7u64;
    let mut found_after = None;
    for access in 0..200 {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        threads.read(1, (seed >> 20) % size / 4096 * 4096);
        if threads.groups.are_random(Duration::from_secs(5)) {
            found_after.get_or_insert(access);
        }
    }
    assert!(found_after.is_some_and(|access| access < 80), "{size}: {found_after:?}");
    assert!(threads.walking().len() <= 4, "{size}: {:?}", threads.walking());
}

#[test]
fn there_are_never_more_than_so_many() {
    let mut threads = Threads::default();
    for thread in 0..5000u64 {
        threads.read(thread as u32 + 1, thread << 30);
    }
    assert!(threads.groups.iter().count() <= MOST_GROUPS);
    assert!(threads.groups.of_thread.len() <= MOST_THREADS);
}

#[test]
fn shuffled_records_are_no_walks() {
    const RECORD: u64 = 10 * PIECE;
    let mut threads = Threads::default();
    let (mut seed, mut walked) = (3u64, Vec::new());
    for record in 0..60 {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        // Every third begins where another one ended.
        let at = ((seed >> 20) % 200 + 4) * RECORD;
        for piece in 0..10 {
            let (placed, moved) = threads.read(1, at + piece * PIECE);
            let group = threads.groups.get_mut(placed.group).unwrap();
            if moved == Move::ColdJump {
                group.lost = group.walk.typical_run() < STEP;
            }
            if !group.lost && walked.last() != Some(&record) {
                walked.push(record);
            }
        }
    }
    // The first might have been one, and two that happen to follow each other are one.
    assert!(walked.len() <= 2, "{walked:?}");
}
