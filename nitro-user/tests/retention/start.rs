//! What survives a restart, and what comes back at the start.

use std::{path::PathBuf, time::Duration};

use nitro_user::engine::{
    Engine, Input, Policy,
    input::Command,
    learn::row::{Change, Row},
    retain::Settings,
};

use super::world::{RESERVE, SECOND, STEPS, World, pinning};

fn learned(hot: &[(u64, f64, u64)], asked: u64) -> Input {
    let mut rows = Vec::new();
    for (number, (inode, heat, at)) in (1..).zip(hot) {
        rows.push(Row::Model {
            number,
            path: format!("/r/{inode}").into(),
        });
        rows.push(Row::Heat {
            model: number,
            heat: *heat,
            asked: *inode == asked,
            at: *at,
        });
    }
    Input::Learned(rows)
}

const NOW: u64 = 1_700_000_000;

fn restarted(settings: Settings) -> World {
    let mut world = World::new(settings);
    world.engine = Engine::new(Policy {
        booted: Duration::from_secs(NOW),
        ..world.engine.policy().clone()
    });
    world
}

#[test]
fn at_the_start_what_was_hottest_comes_back_in_order_of_its_heat() {
    let rewarm = Settings {
        rewarm: true,
        ..Settings::default()
    };
    for (settings, locked) in [(rewarm, 0), (pinning(3), STEPS)] {
        let mut world = restarted(settings);
        // What was hotter longer ago is colder now; 30 is cold; 99 is not there any more.
        let six_hours_ago = NOW - 6 * 3600;
        world.feed(learned(
            &[(10, 1.0, NOW), (20, 5.0, six_hours_ago), (30, 0.2, NOW), (99, 9.0, NOW)],
            0,
        ));
        world.wait(60 * SECOND);
        let came: Vec<u64> = world
            .errands
            .chunk_by(|one, other| one.0 == other.0)
            .map(|chunk| chunk[0].0)
            .collect();
        assert_eq!(came, [20, 10]);
        assert_eq!((world.there(20), world.there(30)), (STEPS, 0));
        assert_eq!((world.locked(20), world.locked(10)), (locked, locked));
        assert_eq!(world.sought.first(), Some(&PathBuf::from("/r/99")));
    }
}

#[test]
fn at_the_start_the_first_sign_of_pressure_ends_it() {
    let mut world = restarted(Settings {
        rewarm: true,
        ..Settings::default()
    });
    world.available = RESERVE / 2;
    world.feed(learned(&[(10, 1.0, NOW), (20, 2.0, NOW)], 0));
    world.wait(5 * SECOND);
    world.available = 64 << 30;
    world.wait(600 * SECOND);
    assert_eq!(world.there(10), 0, "it was not begun");
}

#[test]
fn at_the_start_pressure_does_not_end_what_was_asked_for() {
    let mut world = restarted(pinning(2));
    world.available = RESERVE / 2;
    world.feed(learned(&[(10, 1.0, NOW), (20, 2.0, NOW)], 10));
    world.wait(5 * SECOND);
    world.available = 64 << 30;
    world.wait(60 * SECOND);
    assert_eq!((world.locked(10), world.locked(20)), (STEPS, 0));
}

#[test]
fn without_being_asked_for_nothing_comes_at_the_start_and_heat_goes_on() {
    let mut world = restarted(Settings::default());
    world.feed(learned(&[(10, 3.0, NOW)], 0));
    world.wait(60 * SECOND);
    assert!(world.sought.is_empty() && world.errands.is_empty());
    world.load(10, 7);
    let (now, half_life) = (world.now, Settings::default().half_life);
    let heats: Vec<f64> = world
        .engine
        .retention()
        .kept()
        .map(|(_, kept)| kept.heat.at(now, half_life))
        .collect();
    assert!(heats.len() == 1 && (3.9..=4.0).contains(&heats[0]), "{heats:?}");
}

#[test]
fn what_was_pinned_by_hand_is_so_after_a_restart() {
    let mut world = restarted(pinning(2));
    world.feed(learned(&[(10, 0.0, NOW)], 10));
    world.wait(60 * SECOND);
    assert_eq!(world.locked(10), STEPS);
}

#[test]
fn heat_is_kept_when_it_changes() {
    let mut world = restarted(pinning(2));
    world.load(10, 7);
    world.order(1, Command::Pin, 20);
    let heat = |world: &World, inode: u64| {
        let wanted = PathBuf::from(format!("/r/{inode}"));
        let number = world.kept.iter().find_map(|change| match change {
            Change::Put(Row::Model { number, path }) if *path == wanted => Some(*number),
            _ => None,
        });
        world.kept.iter().rev().find_map(|change| match change {
            Change::Put(Row::Heat { model, heat, asked, .. }) if Some(*model) == number => Some((*heat, *asked)),
            _ => None,
        })
    };
    assert!(heat(&world, 10).is_some_and(|(heat, asked)| heat > 0.99 && !asked));
    assert_eq!(heat(&world, 20), Some((0.0, true)));
    world.order(2, Command::Unpin, 20);
    assert_eq!(heat(&world, 20), Some((0.0, false)));
}
