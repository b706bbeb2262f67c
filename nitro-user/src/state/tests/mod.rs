//! The state as the daemon has it: what is kept is there after a restart, whatever happens to the directory.

mod damaged;
mod disk;
mod killed;
mod random;
mod restart;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, channel},
    time::Duration,
};

use super::{
    Notice,
    pending::Key,
    store::{Opened, Store},
};
use crate::{
    catalog::model::LayoutKind,
    engine::{
        learn::row::{Lead, MOST_CONTEXT, Number, Order, Row, Run, Successor},
        plan::device::Knowledge,
    },
    units::Rate,
};

/// Longest wait for what must happen.
const SOON: Duration = Duration::from_secs(60);

pub fn model(number: Number) -> Row {
    Row::Model {
        number,
        path: PathBuf::from(format!("/models/{number}")),
    }
}

pub fn program(number: Number) -> Row {
    Row::Program {
        number,
        name: format!("program {number}"),
    }
}

pub fn heat(model: Number, heat: f64) -> Row {
    Row::Heat {
        model,
        heat,
        asked: false,
        at: 1_700_000_000,
    }
}

pub fn successor(program: Number, context: [Number; MOST_CONTEXT], next: Number, weight: f32) -> Row {
    Row::Successor(Successor {
        program,
        context,
        next,
        weight,
        at: 1_700_000_000,
        gap_log: -2.5,
        gap_spread: 0.1,
    })
}

pub fn order(model: Number, program: Number, runs: &[(u32, u32, u32)]) -> Row {
    let run = |&(part, first, steps): &_| Run { part, first, steps };
    Row::Order(Order {
        model,
        program,
        bytes: 1 << 40,
        runs: runs.iter().map(run).collect(),
        weight: 1.5,
        at: 1_700_000_000,
    })
}

pub fn lead(layout: LayoutKind, program: Number) -> Row {
    Row::Lead(Lead {
        layout,
        program,
        weight: 3.0,
        at: 1_700_000_000,
        log: -1.0,
        spread: 0.5,
    })
}

pub fn device(identity: &str, rate: f64) -> Row {
    Row::Device {
        identity: identity.into(),
        knowledge: Knowledge {
            rate: Some(Rate(rate)),
            ..Knowledge::default()
        },
        at: 1_700_000_000,
    }
}

/// One row of each kind, and a few more, with all that they name.
pub fn some_of_each() -> Vec<Row> {
    let mut rows: Vec<_> = (1..=20).map(model).chain((1..=3).map(program)).collect();
    rows.extend((1..=20).map(|number| heat(number, number.into())));
    rows.extend((1..=20).map(|number| successor(number % 4, [number, number % 7, 0], 21 - number, 1.0)));
    rows.extend((1..=20).map(|number| order(number, number % 3, &[(0, 0, 9), (1, number, 1)])));
    rows.push(order(1, 3, &vec![(0, 1, 2); 3000]));
    rows.extend([lead(LayoutKind::Ollama, 1), lead(LayoutKind::TorchZip, 0)]);
    rows.push(Row::Calibration {
        bucket: 255,
        right: 1.0,
        all: 2.0,
    });
    rows.push(device("wwid one", 1e9));
    rows
}

/// Where flushes cost nothing, if there is such a place: what is tested thousands of times is what is written, not the disk.
fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

/// A store whose notices are heard here.
struct Heard {
    store: Store,
    rows: Vec<Row>,
    /// What was told when it was opened.
    troubles: Vec<String>,
    /// What is told later.
    notices: Receiver<String>,
}

fn open(directory: &Path) -> Heard {
    let (tell, notices) = channel();
    let Opened { store, rows, troubles } = Store::open_telling(
        directory,
        // The test may be over.
        Box::new(move |notice: Notice| drop(tell.send(notice.to_string()))),
    )
    .unwrap();
    Heard {
        store,
        rows,
        troubles: troubles.iter().map(ToString::to_string).collect(),
        notices,
    }
}

/// Opened without a word.
fn open_quietly(directory: &Path) -> Heard {
    let heard = open(directory);
    assert!(heard.troubles.is_empty(), "{:?}", heard.troubles);
    heard
}

impl Heard {
    fn put(&mut self, rows: impl IntoIterator<Item = Row>) {
        for row in rows {
            self.store.keep(crate::engine::learn::row::Change::Put(row));
        }
    }

    /// All that was put is on disk.
    fn written(&self) {
        assert!(self.store.flush(SOON), "{:?}", self.said());
    }

    /// What was told so far.
    fn said(&self) -> Vec<String> {
        self.notices.try_iter().collect()
    }
}

/// Rows in the order of their keys; no two have the same.
fn sorted(rows: &[Row]) -> Vec<Row> {
    let by_key: BTreeMap<Key, Row> = rows.iter().map(|row| (Key::of(row), row.clone())).collect();
    assert_eq!(by_key.len(), rows.len());
    by_key.into_values().collect()
}

/// Names in a directory.
fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
