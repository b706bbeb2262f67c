//! A writer that is killed, at any moment.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
    time::Duration,
};

use super::*;
use crate::engine::learn::row::Change;

/// Where the child writes.
const DIRECTORY: &str = "NITRO_TEST_STATE";

const KILLS: usize = 60;

/// What a child does in its `step`th step: a model, how it follows the one before, and that it is the last one; every tenth the oldest is forgotten.
fn changes(step: Number) -> Vec<Change> {
    let mut changes = vec![
        Change::Put(model(step)),
        Change::Put(order(step, 0, &vec![(0, step, 1); 200])),
        Change::Put(successor(0, [step.saturating_sub(1), 0, 0], step, 1.0)),
        Change::Put(Row::Calibration {
            bucket: 1,
            right: 0.0,
            all: step as f32,
        }),
    ];
    if step.is_multiple_of(10) {
        changes.push(Change::ForgetModel(step / 10));
    }
    changes
}

/// How far the one came that left this.
fn last(rows: &[Row]) -> Number {
    let all = rows.iter().find_map(|row| match row {
        Row::Calibration { all, .. } => Some(*all as Number),
        _ => None,
    });
    all.unwrap_or(0)
}

/// The child: not a test of its own. It says how far it has come, and never ends.
#[test]
fn a_writer_that_will_be_killed() {
    let Some(directory) = std::env::var_os(DIRECTORY) else {
        return;
    };
    let mut heard = open_quietly(Path::new(&directory));
    let mut step = last(&heard.rows);
    loop {
        step += 1;
        for change in changes(step) {
            heard.store.keep(change);
        }
        // Some are written several at a time.
        if step.is_multiple_of(3) {
            heard.written();
            let mut out = std::io::stdout();
            writeln!(out, "written {step}").and_then(|()| out.flush()).unwrap();
        }
    }
}

#[test]
fn a_writer_that_is_killed_leaves_all_that_it_had_written_and_nothing_half() {
    let dir = directory();
    let mut random = fastrand::Rng::with_seed(7);
    let mut before = 0;
    for _ in 0..KILLS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "state::tests::killed::a_writer_that_will_be_killed",
                "--exact",
                "--nocapture",
                "--test-threads=1",
            ])
            .env(DIRECTORY, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let written = |line: std::io::Result<String>| line.unwrap().split_once("written ")?.1.parse::<Number>().ok();
        let first = lines.by_ref().find_map(written).unwrap();
        assert!(
            first > before,
            "it goes on where the last one was: {first} after {before}"
        );
        // At any moment: the pause is the test's point, and it holds whatever it is.
        std::thread::sleep(Duration::from_micros(random.u64(0..20_000)));
        child.kill().unwrap();
        child.wait().unwrap();
        let said = lines.filter_map(written).last().unwrap_or(first);
        let heard = open_quietly(dir.path());
        before = last(&heard.rows);
        assert!(before >= said, "{said} was on disk, {before} is");
        let mut truth: BTreeMap<Key, Row> = BTreeMap::new();
        for change in (1..=before).flat_map(changes) {
            match change {
                Change::Put(row) => drop(truth.insert(Key::of(&row), row)),
                Change::ForgetModel(model) => truth.retain(|key, _| !key.models().contains(&model)),
                _ => unreachable!(),
            }
        }
        // A successor whose model was forgotten before it came.
        truth.retain(|key, _| !key.models().iter().any(|model| (1..=before / 10).contains(model)));
        let wanted: Vec<_> = truth.into_values().collect();
        assert_eq!(sorted(&heard.rows), wanted);
    }
}

#[test]
fn what_a_writer_leaves_that_is_killed_in_a_transaction_is_taken_back() {
    let (dir, left) = (directory(), directory());
    let mut heard = open_quietly(dir.path());
    heard.put((1..=5000).map(model));
    drop(heard);
    let writer = rusqlite::Connection::open(dir.path().join("state.db")).unwrap();
    // Written to the file before it is done, as a long transaction is.
    let half =
        "PRAGMA cache_size = 2; BEGIN; DELETE FROM models WHERE number % 3 = 0; UPDATE models SET path = x'2f78'";
    writer.execute_batch(half).unwrap();
    for name in names(dir.path()) {
        std::fs::copy(dir.path().join(&name), left.path().join(&name)).unwrap();
    }
    drop(writer);
    assert_eq!(names(left.path()), ["state.db", "state.db-journal"]);
    let bytes = |dir: &Path| std::fs::read(dir.join("state.db")).unwrap();
    assert!(bytes(dir.path()) != bytes(left.path()), "the half of it is in the file");
    let heard = open_quietly(left.path());
    assert_eq!(heard.rows, (1..=5000).map(model).collect::<Vec<_>>());
    drop(heard);
    assert_eq!(names(left.path()), ["state.db"]);
}

#[test]
fn a_first_transaction_that_is_killed_leaves_an_empty_database() {
    let (dir, left) = (directory(), directory());
    let writer = rusqlite::Connection::open(dir.path().join("state.db")).unwrap();
    let half = "PRAGMA cache_size = 2; BEGIN; CREATE TABLE t(a); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 9999) \
                INSERT INTO t SELECT i FROM n";
    writer.execute_batch(half).unwrap();
    for name in names(dir.path()) {
        std::fs::copy(dir.path().join(&name), left.path().join(&name)).unwrap();
    }
    assert!(left.path().join("state.db").metadata().unwrap().len() > 4096);
    let mut heard = open_quietly(left.path());
    heard.put([model(1)]);
    drop(heard);
    assert_eq!(open_quietly(left.path()).rows, [model(1)]);
}
