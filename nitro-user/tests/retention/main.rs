//! What the engine keeps after the loads: pins, what is brought back, what people ask for.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod expected;
mod start;
mod world;

use std::{collections::BTreeSet, time::Duration};

use nitro_user::{
    engine::{
        Input,
        input::{Command, Item, OrderId, StepEnd},
        retain::Settings,
    },
    units::{ByteCount, STEP},
};

use world::{HOUR, RESERVE, SECOND, SIZE, STEPS, World, file, model, pinning, several};

#[test]
fn a_model_that_was_used_is_locked_and_let_go_when_it_has_cooled() {
    let mut world = World::new(pinning(2));
    world.load(10, 7);
    world.wait(SECOND);
    assert_eq!(world.locked(10), STEPS);
    assert_eq!(world.engine.held().0, SIZE, "it is inside the ceiling");
    world.evict(10);
    assert_eq!(world.there(10), STEPS);
    world.wait(11 * HOUR);
    assert_eq!(world.locked(10), STEPS, "0.28 uses are left");
    world.wait(2 * HOUR);
    assert_eq!(world.locked(10), 0);
    assert_eq!(world.engine.held().0, 0);
}

#[test]
fn without_pins_nothing_is_locked() {
    let mut world = World::new(Settings::default());
    world.load(10, 7);
    world.wait(SECOND);
    assert!(world.locked.is_empty());
}

#[test]
fn the_hottest_are_locked_and_the_room_is_not_exceeded() {
    let mut world = World::new(pinning(1));
    world.load(10, 7);
    world.wait(SECOND);
    assert_eq!((world.locked(10), world.locked(20)), (STEPS, 0));
    world.load(20, 8);
    world.wait(SECOND);
    assert_eq!((world.locked(10), world.locked(20)), (STEPS, 0), "not clearly hotter");
    world.load(20, 8);
    world.wait(SECOND);
    assert_eq!((world.locked(10), world.locked(20)), (0, STEPS));
}

#[test]
fn of_a_model_that_is_larger_than_the_room_a_part_is_locked() {
    let settings = Settings {
        pin: ByteCount(5 * STEP + 4096),
        ..Settings::default()
    };
    let mut world = World::new(settings);
    world.load(10, 7);
    world.wait(SECOND);
    assert_eq!(world.locked(10), 5);
    let before = world.errands.len();
    world.wait(HOUR);
    assert_eq!(world.locked(10), 5);
    assert_eq!(world.errands.len(), before, "it is not tried again and again");
}

#[test]
fn only_what_is_read_of_a_model_is_locked() {
    let mut world = World::new(pinning(4));
    world.load(40, 7);
    world.wait(SECOND);
    assert_eq!((world.locked(40), world.locked(41)), (STEPS, 0));
}

#[test]
fn a_mapping_of_a_live_process_keeps_a_model_hot() {
    let mut world = World::new(pinning(2));
    world.read(10, 7);
    world.processes.get_mut(&7).unwrap().0.insert(10);
    world.wait(48 * HOUR);
    assert_eq!(world.locked(10), STEPS);
    assert!((2000..4000).contains(&world.looks), "{} looks in two days", world.looks);
    world.end(7);
    world.wait(11 * HOUR);
    assert_eq!(world.locked(10), STEPS, "it cools from the end of the process on");
    world.wait(2 * HOUR);
    assert_eq!(world.locked(10), 0);
    let looks = world.looks;
    world.wait(HOUR);
    assert_eq!(world.looks, looks, "nobody is looked at where nobody has anything");
}

#[test]
fn what_is_gone_or_unwatched_is_let_go_at_once() {
    let mut world = World::new(pinning(4));
    world.load(10, 7);
    world.load(20, 7);
    world.wait(SECOND);
    world.feed(Input::Gone { file: file(10) });
    assert_eq!((world.locked(10), world.locked(20)), (0, STEPS));
    world.feed(Input::Unwatched { path: "/r".into() });
    assert!(world.locked.is_empty());
    assert_eq!(world.engine.held().0, 0);
}

#[test]
fn a_pause_lets_go_and_its_end_takes_up_again() {
    let mut world = World::new(pinning(2));
    world.load(10, 7);
    world.wait(SECOND);
    world.feed(Input::Pause { until: None });
    assert!(world.locked.is_empty());
    world.wait(HOUR);
    assert!(world.locked.is_empty());
    world.feed(Input::Resume);
    world.wait(SECOND);
    assert_eq!(world.locked(10), STEPS);
}

#[test]
fn under_pressure_the_coldest_go_first_within_a_second() {
    let mut world = World::new(pinning(3));
    world.load(10, 7);
    world.wait(HOUR);
    world.load(20, 7);
    world.wait(SECOND);
    assert_eq!((world.locked(10), world.locked(20)), (STEPS, STEPS));
    world.available = RESERVE - STEP;
    world.wait(SECOND + Duration::from_millis(1));
    assert_eq!(world.locked(10), 0);
    world.wait(SECOND);
    assert!(world.locked.is_empty(), "it is still short");
    world.available = 64 << 30;
    world.wait(20 * SECOND);
    assert!(world.locked.is_empty(), "it is not taken back at once");
    world.wait(20 * SECOND);
    assert_eq!((world.locked(10), world.locked(20)), (STEPS, STEPS));
}

#[test]
fn where_somebody_stalls_pins_go_within_two_seconds() {
    let mut world = World::new(pinning(4));
    for inode in [10, 20, 30, 40] {
        world.load(inode, 7);
    }
    world.wait(SECOND);
    assert_eq!(world.engine.held().0, 4 * SIZE);
    world.available = 2 * RESERVE;
    world.wait(SECOND);
    for _ in 0..8 {
        world.stalled += Duration::from_millis(100);
        world.wait(Duration::from_millis(250));
    }
    assert!(world.locked.is_empty(), "{:?}", world.locked);
}

#[test]
fn pins_go_within_two_seconds_where_others_under_the_same_limit_read_again_what_they_use() {
    for (room, locked) in [(Some(1 << 30), 0), (None, 4)] {
        let mut world = World::new(pinning(4));
        world.room = room;
        for inode in [10, 20, 30, 40] {
            world.load(inode, 7);
        }
        world.wait(SECOND);
        assert_eq!(world.engine.held().0, 4 * SIZE);
        for _ in 0..8 {
            world.restored += 100 << 20;
            world.wait(Duration::from_millis(250));
        }
        assert_eq!(
            world.locked.len(),
            locked,
            "a limit of theirs alone is not ours to mend"
        );
        world.wait(10 * SECOND);
        assert_eq!(world.locked.len(), locked);
        world.wait(60 * SECOND);
        assert_eq!(world.locked.len(), 4);
    }
}

#[test]
fn what_the_kernel_took_comes_back_when_there_is_room() {
    let mut world = World::new(Settings::default());
    world.load(10, 7);
    world.available = RESERVE / 2;
    world.evict(10);
    world.wait(60 * SECOND);
    assert_eq!(world.there(10), 0, "memory is short");
    world.available = RESERVE + SIZE / 2;
    world.wait(60 * SECOND);
    assert_eq!(world.there(10), 0, "not enough to spare");
    world.available = 64 << 30;
    world.wait(600 * SECOND);
    assert_eq!(world.there(10), STEPS);
    assert_eq!(world.engine.held().0, 0, "it is the page cache's, as before");
}

#[test]
fn what_is_evicted_again_and_again_comes_back_less_and_less_often() {
    let mut world = World::new(Settings::default());
    world.load(10, 7);
    let mut returns = 0;
    let end = world.now.after(HOUR);
    while world.now < end {
        world.evict(10);
        world.wait(4 * SECOND);
        returns += u32::from(world.there(10) > 0);
    }
    assert!((3..=12).contains(&returns), "{returns} times in an hour");
}

#[test]
fn what_was_used_long_ago_stays_away() {
    let mut world = World::new(Settings::default());
    world.load(10, 7);
    world.wait(24 * HOUR);
    world.evict(10);
    world.wait(HOUR);
    assert_eq!(world.there(10), 0);
    assert_eq!(world.engine.deadline(), None, "nothing is left to do");
}

#[test]
fn a_model_in_memory_of_its_readers_own_goes_first_and_is_wanted_when_they_end() {
    let gpu = |world: &mut World| world.processes.get_mut(&7).unwrap().1 = true;
    let copy = |world: &mut World| world.processes.get_mut(&7).unwrap().2 = SIZE;
    for elsewhere in [&gpu as &dyn Fn(&mut World), &copy] {
        let mut world = World::new(pinning(4));
        world.read(10, 7);
        elsewhere(&mut world);
        world.load(20, 8);
        world.wait(60 * SECOND);
        assert_eq!((world.locked(10), world.locked(20)), (0, STEPS));
        world.available = RESERVE / 2;
        world.wait(2 * SECOND);
        assert_eq!(world.there(10), 0, "it is dropped");
        world.available = 64 << 30;
        world.wait(HOUR);
        assert_eq!(world.there(10), 0, "nobody needs it");
        world.end(7);
        world.wait(60 * SECOND);
        assert_eq!(world.locked(10), STEPS, "somebody may start it again");
    }
}

#[test]
fn what_was_copied_is_kept_if_that_is_wanted() {
    let mut world = World::new(Settings {
        keep_after_copy: true,
        ..Settings::default()
    });
    world.read(10, 7);
    world.processes.get_mut(&7).unwrap().2 = SIZE;
    world.wait(60 * SECOND);
    world.available = RESERVE / 2;
    world.load(20, 8);
    world.wait(10 * SECOND);
    assert_eq!(world.there(10), STEPS);
    assert!(world.dropped.is_empty());
}

#[test]
fn the_keepers_end_is_noticed_and_it_begins_anew_later() {
    let mut world = World::new(pinning(2));
    world.load(10, 7);
    world.wait(SECOND);
    let pins = std::mem::take(&mut world.locked).into_keys().collect();
    world.feed(Input::Unheld { pins });
    assert_eq!(world.engine.held().0, 0);
    world.wait(20 * SECOND);
    assert!(world.locked.is_empty());
    world.wait(20 * SECOND);
    assert_eq!(world.locked(10), STEPS);
}

#[test]
fn a_model_that_may_not_be_locked_is_not_tried_all_the_time() {
    let mut world = World::new(pinning(2));
    world.refuses = true;
    world.load(10, 7);
    world.wait(10 * SECOND);
    assert!(world.locked.is_empty());
    let progress = world.order(1, Command::Pin, 10);
    assert!(progress.over, "{progress:?}");
    assert_eq!((progress.held, progress.trouble), (0, Some(StepEnd::NotHeld)));
}

#[test]
fn by_hand_it_is_pinned_unpinned_warmed_and_evicted() {
    let mut world = World::new(pinning(2));
    let warmed = world.order(1, Command::Warm, 40);
    assert!(warmed.over, "{warmed:?}");
    assert_eq!(
        (warmed.total, warmed.there, warmed.changed),
        (3 * SIZE, 3 * SIZE, 3 * SIZE)
    );
    assert_eq!(world.there(41), STEPS);
    let evicted = world.order(2, Command::Evict, 40);
    assert_eq!((evicted.changed, evicted.there, evicted.over), (3 * SIZE, 0, true));
    world.wait(60 * SECOND);
    assert_eq!(world.there(40), 0, "it stays away");
    let pinned = world.order(3, Command::Pin, 10);
    assert_eq!((pinned.total, pinned.held, pinned.over), (SIZE, SIZE, true));
    world.wait(100 * HOUR);
    assert_eq!(world.locked(10), STEPS, "whatever its heat");
    let unpinned = world.order(4, Command::Unpin, 10);
    assert_eq!((unpinned.held, unpinned.over), (SIZE, true));
    assert!(world.locked.is_empty());
    world.wait(HOUR);
    assert!(world.locked.is_empty());
}

#[test]
fn an_order_waits_while_memory_is_short_and_ends_when_it_is_withdrawn() {
    let mut world = World::new(pinning(2));
    world.available = RESERVE / 2;
    world.load(20, 7);
    world.wait(2 * SECOND);
    let order = world.order(1, Command::Warm, 10);
    assert!(order.waits && !order.over, "{order:?}");
    world.wait(10 * SECOND);
    assert_eq!(world.there(10), 0);
    world.available = 64 << 30;
    world.wait(10 * SECOND);
    assert!(world.progress[&OrderId(1)].over);
    assert_eq!(world.there(10), STEPS);
    world.available = RESERVE / 2;
    world.wait(10 * SECOND);
    world.order(2, Command::Warm, 30);
    world.feed(Input::Withdrawn { order: OrderId(2) });
    world.available = 64 << 30;
    world.wait(60 * SECOND);
    assert_eq!(world.there(30), 0);
}

#[test]
fn after_a_day_of_random_use_the_room_was_never_exceeded() {
    let mut world = World::new(pinning(2));
    let mut seed = 7u64;
    for _ in 0..400 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let inode = [10, 20, 30, 40][(seed >> 33) as usize % 4];
        match (seed >> 40) % 8 {
            0 => world.evict(inode),
            1 => world.available = RESERVE / 2,
            2 | 3 => world.available = 64 << 30,
            _ => world.load(inode, 7),
        }
        world.wait(Duration::from_secs((seed >> 50) % 600));
        let locked: BTreeSet<_> = world.locked.values().flatten().collect();
        assert!(locked.len() as u64 * STEP <= 2 * SIZE);
        assert!(world.locked.len() <= 2);
    }
}

#[test]
fn an_errand_that_ends_while_it_rests_is_over() {
    let mut world = World::new(pinning(2));
    world.busy = true;
    world.read(10, 7);
    world.evict(10);
    world.end(7);
    world.wait(2 * SECOND);
    assert_eq!(world.locked(10), 0, "somebody else uses the disk");
    world.available = RESERVE / 2;
    world.wait(SECOND);
    (world.busy, world.available) = (false, 64 << 30);
    world.wait(120 * SECOND);
    assert_eq!(world.locked(10), STEPS);
}

#[test]
fn where_nothing_can_be_done_nothing_is_begun_again_and_again() {
    let mut world = World::new(Settings {
        pin: ByteCount(STEP / 2),
        ..Settings::default()
    });
    world.load(10, 7);
    world.wait(HOUR);
    assert!(world.engine.next_load() < 10, "{} errands", world.engine.next_load());
    // What has no bytes is done with at once.
    let order = OrderId(1);
    let (command, items) = (
        Command::Warm,
        vec![Item {
            model: model(10, 1),
            parts: vec![7],
        }],
    );
    world.feed(Input::Ordered { order, command, items });
    assert!(world.progress[&order].over);
    assert!(world.order(2, Command::Warm, 20).over, "others get their turn");
}

#[test]
fn few_models_are_dropped_at_the_same_time() {
    let mut world = World::new(Settings::default());
    let models = (100..112).map(|inode| model(inode, 1));
    let items = models.map(|model| Item { model, parts: vec![0] });
    let (order, command) = (OrderId(1), Command::Evict);
    world.feed(Input::Ordered {
        order,
        command,
        items: items.collect(),
    });
    assert!(world.progress[&order].over);
    assert!((1..=4).contains(&world.most_dropped), "{} at once", world.most_dropped);
    assert_eq!(world.dropped.len(), 12);
}

#[test]
fn who_reads_a_model_again_brings_back_what_had_gone() {
    let mut world = World::new(Settings::default());
    world.load(10, 7);
    world.evict(10);
    world.load(10, 7);
    let loads = world.engine.next_load();
    world.wait(60 * SECOND);
    assert_eq!(world.engine.next_load(), loads, "nothing is left to do");
}

#[test]
fn what_has_gone_comes_back_where_nobody_is_driven_out_for_it() {
    let mut world = World::new(Settings::default());
    world.load(10, 7);
    world.taken = (64 << 30) - SIZE / 8;
    for step in 0..STEPS / 4 {
        world.evict_step(10, step);
    }
    world.wait(60 * SECOND);
    assert_eq!(
        world.there(10),
        STEPS - STEPS / 4,
        "there is enough, but it is somebody's page cache"
    );
    world.taken = 0;
    world.wait(600 * SECOND);
    assert_eq!(world.there(10), STEPS);
}

#[test]
fn a_model_that_is_replaced_is_as_hot_as_before() {
    let mut world = World::new(Settings::default());
    world.load(10, 7);
    world.feed(Input::Gone { file: file(10) });
    assert_eq!(world.engine.retention().kept().count(), 0);
    world.load(10, 7);
    let (now, half_life) = (world.now, Settings::default().half_life);
    let heat = world
        .engine
        .retention()
        .kept()
        .next()
        .map(|(_, kept)| kept.heat.at(now, half_life));
    assert!(heat.is_some_and(|heat| heat > 1.99), "{heat:?}");
}

#[test]
fn under_pressure_what_a_reader_has_copied_is_dropped_behind_it() {
    for (copies, keeps) in [(true, false), (true, true), (false, false)] {
        let mut world = World::new(Settings {
            keep_after_copy: keeps,
            ..Settings::default()
        });
        world
            .processes
            .insert(7, (BTreeSet::new(), false, if copies { SIZE * 4 } else { 1 << 20 }));
        // Four files of one model, one after the other; memory gets short in the third.
        let model = several(50, 4);
        world.models.insert(50, model);
        (50..52).for_each(|part| world.read(part, 7));
        world.available = RESERVE / 2;
        world.wait(3 * SECOND);
        world.read(52, 7);
        world.wait(3 * SECOND);
        let there = world.there(50) + world.there(51);
        assert_eq!(there, if copies && !keeps { 0 } else { 2 * STEPS }, "{copies}, {keeps}");
        assert!(world.there(52) >= 2, "where it reads");
        world.end(7);
    }
}
