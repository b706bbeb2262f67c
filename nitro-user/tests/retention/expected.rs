//! What loads teach about those that come after them.

use nitro_user::engine::{
    Input,
    happening::Skip,
    learn::row::{Change, Row},
    retain::Settings,
};

use super::world::{HOUR, RESERVE, SECOND, SIZE, STEPS, World, several};

const RUNNER: u32 = 7;

/// What was evicted is not brought back for its heat.
fn nothing_returns() -> Settings {
    Settings {
        unpin_below: 1e9,
        ..Settings::default()
    }
}

/// A world in which a program has loaded one model a minute after another, so many times, each time from the disk.
fn habit(times: u64) -> World {
    let mut world = World::new(nothing_returns());
    world.programs.insert(RUNNER, "runner".into());
    (0..times).for_each(|_| day(&mut world));
    world.evict(10);
    world.evict(20);
    world
}

fn day(world: &mut World) {
    for inode in [10, 20] {
        world.evict(inode);
        world.load(inode, RUNNER);
        world.wait(60 * SECOND);
    }
    world.wait(2 * HOUR);
}

#[test]
fn what_usually_follows_is_there_when_it_is_due() {
    let mut world = habit(8);
    let before = world.engine.foresight().tally();
    world.load(10, RUNNER);
    assert_eq!(world.there(20), 0, "it is not due");
    world.wait(50 * SECOND);
    assert_eq!(world.there(20), STEPS);
    world.load(20, RUNNER);
    world.wait(SECOND);
    let tally = world.engine.foresight().tally();
    assert_eq!(tally.met.0 - before.met.0, SIZE);
    assert_eq!(tally.in_vain.0, 0);
    world.wait(2 * HOUR);
    assert_eq!(world.engine.foresight().tally().in_vain.0, 0);
}

#[test]
fn once_is_no_habit() {
    let mut world = habit(1);
    world.load(10, RUNNER);
    world.wait(HOUR);
    assert_eq!(world.there(20), 0);
}

#[test]
fn what_nobody_came_for_was_in_vain_and_takes_room_from_nobody() {
    let mut world = habit(8);
    world.load(10, RUNNER);
    world.wait(50 * SECOND);
    assert_eq!(world.engine.held().0, SIZE);
    world.wait(2 * HOUR);
    assert_eq!(world.engine.held().0, 0);
    let tally = world.engine.foresight().tally();
    assert_eq!(tally.in_vain.0, SIZE);
}

#[test]
fn a_program_is_expected_to_do_what_it_does_and_no_other() {
    let mut world = habit(8);
    world.programs.insert(9, "other".into());
    world.load(10, 9);
    world.wait(HOUR);
    let came = world.engine.foresight().tally();
    assert_eq!((world.there(20), came.warmed.0), (0, came.met.0));
}

#[test]
fn nothing_is_brought_in_ahead_under_pressure_while_paused_or_on_a_battery() {
    for hinder in [
        |world: &mut World| world.available = RESERVE / 2,
        |world: &mut World| world.feed(Input::Pause { until: None }),
        |world: &mut World| world.feed(Input::Battery(true)),
    ] {
        let mut world = habit(8);
        world.load(10, RUNNER);
        hinder(&mut world);
        world.wait(HOUR);
        assert_eq!(world.there(20), 0);
    }
}

#[test]
fn what_was_learned_survives_a_restart() {
    // Of a program that runs longer than the agent nobody knows what it did before: it must be surer.
    let before = habit(20);
    let rows: Vec<Row> = before
        .kept
        .iter()
        .filter_map(|change| match change {
            Change::Put(row) => Some(row.clone()),
            _ => None,
        })
        .collect();
    let mut world = World::new(nothing_returns());
    world.now = before.now;
    world.programs.insert(RUNNER, "runner".into());
    world.feed(Input::Learned(rows));
    world.load(10, RUNNER);
    world.wait(50 * SECOND);
    assert_eq!(world.there(20), STEPS);
}

/// A world with a model of three files that a loader of all of them reads.
fn of_parts() -> World {
    let mut world = World::new(nothing_returns());
    world.programs.insert(RUNNER, "runner".into());
    world.models.insert(40, several(40, 3));
    world
}

fn load_parts(world: &mut World, parts: &[u64]) {
    for part in 40..43 {
        world.evict(part);
    }
    world.asked.clear();
    parts.iter().for_each(|part| world.read(*part, RUNNER));
    world.end(RUNNER);
    world.wait(60 * SECOND);
}

#[test]
fn parts_that_were_never_read_are_not_warmed() {
    let mut world = of_parts();
    load_parts(&mut world, &[40, 42]);
    assert!(world.asked.iter().any(|(inode, _)| *inode == 41), "nobody could know");
    load_parts(&mut world, &[40, 42]);
    assert!(world.asked.iter().all(|(inode, _)| *inode != 41), "{:?}", world.asked);
    assert!(world.asked.iter().any(|(inode, _)| *inode == 42));
    // Until they are.
    load_parts(&mut world, &[40, 41, 42]);
    load_parts(&mut world, &[40, 41, 42]);
    assert!(world.asked.iter().any(|(inode, _)| *inode == 41));
}

#[test]
fn a_program_s_own_order_is_followed_and_given_up_when_it_goes_elsewhere() {
    let mut world = World::new(nothing_returns());
    world.programs.insert(RUNNER, "runner".into());
    let parts = 100..108;
    world.models.insert(parts.start, several(parts.start, 8));
    let own = [106, 101, 104, 100, 107, 102, 105, 103];
    let begin = |world: &mut World| {
        parts.clone().for_each(|part| world.evict(part));
        world.asked.clear();
    };
    let end = |world: &mut World| {
        world.end(RUNNER);
        world.wait(60 * SECOND);
    };
    for _ in 0..2 {
        begin(&mut world);
        own.iter().for_each(|part| world.read(*part, RUNNER));
        end(&mut world);
    }
    begin(&mut world);
    world.read_step(own[0], 0, RUNNER);
    world.read_step(own[0], 1, RUNNER);
    world.read_step(own[0], 2, RUNNER);
    let mut asked: Vec<u64> = world.asked.iter().map(|(inode, _)| *inode).collect();
    asked.dedup();
    assert_eq!(asked, own, "the window has room for all of it");
    end(&mut world);
    // Somebody has turned the order round.
    begin(&mut world);
    own.iter().rev().for_each(|part| world.read(*part, RUNNER));
    end(&mut world);
    begin(&mut world);
    own.iter().rev().for_each(|part| world.read(*part, RUNNER));
    end(&mut world);
    begin(&mut world);
    world.read_step(own[7], 0, RUNNER);
    world.read_step(own[7], 1, RUNNER);
    let mut asked: Vec<u64> = world.asked.iter().map(|(inode, _)| *inode).collect();
    asked.dedup();
    let turned: Vec<u64> = own.iter().rev().copied().collect();
    assert_eq!(asked, turned);
}

#[test]
fn what_is_forgotten_is_not_expected_any_more_and_not_explained() {
    let mut world = habit(20);
    let explained = |world: &World, inode: u64| world.engine.explain(world.now, &world.models[&inode]);
    let before = explained(&world, 10);
    assert!(before.uses > 1.0, "{before:?}");
    assert_eq!(before.readers[0].program, "runner");
    assert_eq!(
        (before.next[0].path.as_str(), before.next[0].brought_in),
        ("/r/20", true)
    );
    let path = Some("/r/20".into());
    world.feed(Input::Forget { path });
    assert!(explained(&world, 10).next.iter().all(|next| next.path != "/r/20"));
    assert_eq!(explained(&world, 20).uses, 0.0);
    world.load(10, RUNNER);
    world.wait(HOUR);
    assert_eq!(world.there(20), 0);
    assert!(world.kept.contains(&Change::ForgetModel(2)));
    world.feed(Input::Forget { path: None });
    assert!(explained(&world, 10).readers.is_empty());
    assert_eq!(world.kept.last(), Some(&Change::ForgetAll));
}

#[test]
fn what_would_be_done_is_explained_while_it_is_so() {
    let mut world = habit(8);
    world.load(10, RUNNER);
    let coming = world.engine.explain(world.now, &world.models[&20]).expected;
    assert_eq!(coming.len(), 1);
    assert!(coming[0].begins_in > 0.0 && coming[0].confidence > 0.75, "{coming:?}");
    let would = world.engine.explain(world.now, &world.models[&20]).would;
    assert!(would.hindrances.is_empty() && would.window.0 > 0);
    world.feed(Input::Pause { until: None });
    let would = world.engine.explain(world.now, &world.models[&20]).would;
    assert_eq!(would.hindrances, [Skip::Paused]);
}
