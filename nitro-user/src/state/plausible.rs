//! What a row can be: looked at before it is written and after it was read, since somebody else may have written it.
//!
//! Times are not compared with the clock: a machine without a battery begins in 1970, and would forget all.

use std::{collections::HashSet, os::unix::ffi::OsStrExt, path::Path};

use super::pending::Key;
use crate::engine::learn::row::{Lead, MOST_RUNS, Number, Order, Row, Run, Successor};

/// Longest path in bytes, as the kernel takes it.
pub const MOST_PATH: usize = 4096;

/// Longest name of a program in bytes; the kernel keeps 15.
const MOST_NAME: usize = 64;

/// Longest identity of a device in bytes: it may hold a path.
const MOST_IDENTITY: usize = 2 * MOST_PATH;

/// The end of the year 9999, in seconds since 1970.
const LAST: u64 = 253_402_300_799;

/// Largest size of a model in bytes.
const MOST_MODEL: u64 = 1 << 60;

/// Decayed numbers are sums of ones.
const MOST_WEIGHT: f64 = 1e9;

/// Logarithms of seconds: e^64 is longer than anything.
const MOST_LOG: f32 = 64.0;

/// Whether a row can be true, as far as it tells by itself. Program 0 stands for none wherever a program is named; so does model 0 in a context and for what came next.
pub fn is_plausible(row: &Row) -> bool {
    match row {
        Row::Model { number, path } => *number > 0 && is_path(path),
        Row::Program { number, name } => *number > 0 && name.len() <= MOST_NAME && !name.contains('\0'),
        Row::Heat { model, heat, at, .. } => *model > 0 && is_weight(*heat) && is_time(*at),
        Row::Successor(row) => {
            let Successor {
                weight,
                at,
                gap_log,
                gap_spread,
                ..
            } = *row;
            is_weight(weight.into()) && is_time(at) && is_log(gap_log) && is_spread(gap_spread)
        }
        Row::Order(order) => is_order(order),
        Row::Lead(row) => {
            let Lead {
                weight,
                at,
                log,
                spread,
                ..
            } = *row;
            is_weight(weight.into()) && is_time(at) && is_log(log) && is_spread(spread)
        }
        // Both decay alike, each with its own rounding.
        Row::Calibration { right, all, .. } => {
            is_weight((*right).into()) && is_weight((*all).into()) && *right <= *all * 1.001
        }
        Row::Device { identity, at, .. } => !identity.is_empty() && identity.len() <= MOST_IDENTITY && is_time(*at),
    }
}

fn is_path(path: &Path) -> bool {
    let bytes = path.as_os_str().as_bytes();
    path.is_absolute() && bytes.len() <= MOST_PATH && !bytes.contains(&0)
}

fn is_weight(weight: f64) -> bool {
    (0.0..=MOST_WEIGHT).contains(&weight)
}

const fn is_time(at: u64) -> bool {
    at <= LAST
}

fn is_log(log: f32) -> bool {
    (-MOST_LOG..=MOST_LOG).contains(&log)
}

fn is_spread(spread: f32) -> bool {
    (0.0..=MOST_LOG).contains(&spread)
}

fn is_order(order: &Order) -> bool {
    let is_run = |run: &Run| run.steps > 0 && run.first.checked_add(run.steps).is_some();
    order.model > 0
        && order.bytes <= MOST_MODEL
        && order.runs.len() <= MOST_RUNS
        && order.runs.iter().all(is_run)
        && is_weight(order.weight.into())
        && is_time(order.at)
}

/// The models and programs that have a meaning.
#[derive(Debug, Default)]
pub struct Known {
    /// Numbers of models.
    pub models: HashSet<Number>,
    /// Numbers of programs.
    pub programs: HashSet<Number>,
}

impl Known {
    /// Whether all that `key` mentions is known.
    pub fn has(&self, key: &Key) -> bool {
        let program = key.program();
        (program == 0 || self.programs.contains(&program))
            && key
                .models()
                .iter()
                .all(|model| *model == 0 || self.models.contains(model))
    }
}

#[cfg(test)]
mod tests {
    use std::{ffi::OsStr, path::PathBuf};

    use super::*;
    use crate::{
        catalog::model::LayoutKind,
        state::tests::{device, heat, lead, model, order, program, successor},
    };

    fn edited<T: Clone>(row: &T, edit: impl FnOnce(&mut T)) -> T {
        let mut row = row.clone();
        edit(&mut row);
        row
    }

    #[test]
    fn what_the_engine_hands_out_is_plausible() {
        let rows = [
            model(1),
            program(1),
            heat(1, 2.5),
            successor(0, [3, 2, 1], 0, 1.0),
            order(1, 0, &[(0, 0, 5), (2, 7, 1)]),
            lead(LayoutKind::Gguf, 1),
            device("wwid x", 1e9),
            Row::Calibration {
                bucket: 0,
                right: 0.0,
                all: 0.0,
            },
        ];
        for row in rows {
            assert!(is_plausible(&row), "{row:?}");
        }
    }

    #[test]
    fn what_cannot_be_is_not() {
        let path = |path: &[u8]| Row::Model {
            number: 1,
            path: PathBuf::from(OsStr::from_bytes(path)),
        };
        let mut long = vec![b'/'];
        long.resize(MOST_PATH + 1, b'a');
        let mut wrong = vec![
            model(0),
            path(b""),
            path(b"relative"),
            path(b"/a\0b"),
            path(&long),
            program(0),
            heat(0, 1.0),
            order(0, 1, &[]),
            order(1, 1, &[(0, 0, 0)]),
            order(1, 1, &[(0, u32::MAX, 1)]),
            order(1, 1, &vec![(0, 0, 1); MOST_RUNS + 1]),
            device("", 1.0),
            device(&"i".repeat(MOST_IDENTITY + 1), 1.0),
            Row::Program {
                number: 1,
                name: "n".repeat(MOST_NAME + 1),
            },
            Row::Calibration {
                bucket: 1,
                right: 2.0,
                all: 1.0,
            },
            Row::Heat {
                model: 1,
                heat: 1.0,
                asked: false,
                at: u64::MAX,
            },
        ];
        for value in [f32::NAN, f32::INFINITY, -1.0, 1e10] {
            wrong.push(heat(1, value.into()));
            wrong.push(Row::Calibration {
                bucket: 1,
                right: 0.0,
                all: value,
            });
            let Row::Successor(good) = successor(1, [0; 3], 1, 1.0) else {
                continue;
            };
            wrong.push(Row::Successor(edited(&good, |row| row.weight = value)));
            wrong.push(Row::Successor(edited(&good, |row| row.gap_log = value * 65.0)));
            wrong.push(Row::Successor(edited(&good, |row| row.gap_spread = value)));
            let Row::Lead(good) = lead(LayoutKind::Single, 1) else {
                continue;
            };
            wrong.push(Row::Lead(edited(&good, |row| row.weight = value)));
            wrong.push(Row::Lead(edited(&good, |row| row.spread = value)));
            let Row::Order(good) = order(1, 1, &[]) else { continue };
            wrong.push(Row::Order(edited(&good, |row| row.weight = value)));
        }
        for row in wrong {
            assert!(!is_plausible(&row), "{row:?}");
        }
    }
}
