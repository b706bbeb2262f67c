//! The tables: what each holds, how a row of the engine's is written there, and how all are read.
//!
//! In: rows, keys. Out: rows. No table has an index beside it, so that there is nothing that could disagree with it. What is read is taken for what it is: a row that cannot
//! be, or that names a model or a program that is not there, is left out and counted.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt, path::PathBuf};

use rusqlite::{Connection, Row as Found, params, types::ValueRef};
use serde::{Deserialize, de::IntoDeserializer};

use super::{
    bounds::{BOUNDS, Tally, width},
    pending::Key,
    plausible::{Known, is_plausible},
};
use crate::{
    catalog::model::LayoutKind,
    engine::{
        learn::row::{Lead, MOST_CONTEXT, MOST_RUNS, Number, Order, Row, Run, Successor},
        plan::device::Knowledge,
    },
};

/// Bytes that a run takes, at most: three numbers of seven bits a byte.
pub const MOST_RUN: u64 = 15;

/// Longest row in bytes: the longest order, or the longest identity with what is known of the device, and room for the rest.
pub const MOST_LENGTH: i32 = (1 << 12) * 15 + (1 << 14);
const _: () = assert!(MOST_RUNS as u64 * MOST_RUN < MOST_LENGTH as u64 - (1 << 14) + 1);

// The table of successors has a column for each.
const _: () = assert!(MOST_CONTEXT == 3);

/// The tables, by name, and how they are made. The order is that in which they are read: what is named comes before what names it. In models and programs `at` is when the
/// number was handed out. Where a row is wide its widest column comes last, so that the others are read without it.
pub const SCHEMA: [(&str, &str); 8] = [
    (
        "models",
        "CREATE TABLE models(number INTEGER PRIMARY KEY, at INTEGER NOT NULL, path BLOB NOT NULL) STRICT",
    ),
    (
        "programs",
        "CREATE TABLE programs(number INTEGER PRIMARY KEY, at INTEGER NOT NULL, name TEXT NOT NULL) STRICT",
    ),
    (
        "heats",
        "CREATE TABLE heats(model INTEGER PRIMARY KEY, heat REAL NOT NULL, asked INTEGER NOT NULL, at INTEGER NOT NULL) STRICT",
    ),
    (
        "successors",
        "CREATE TABLE successors(program INTEGER, first INTEGER, second INTEGER, third INTEGER, next INTEGER, weight REAL NOT NULL, at INTEGER NOT NULL, \
         gap_log REAL NOT NULL, gap_spread REAL NOT NULL, PRIMARY KEY(program, first, second, third, next)) STRICT, WITHOUT ROWID",
    ),
    (
        "orders",
        "CREATE TABLE orders(model INTEGER, program INTEGER, bytes INTEGER NOT NULL, weight REAL NOT NULL, at INTEGER NOT NULL, runs BLOB NOT NULL, \
         PRIMARY KEY(model, program)) STRICT, WITHOUT ROWID",
    ),
    (
        "leads",
        "CREATE TABLE leads(layout TEXT, program INTEGER, weight REAL NOT NULL, at INTEGER NOT NULL, log REAL NOT NULL, spread REAL NOT NULL, \
         PRIMARY KEY(layout, program)) STRICT, WITHOUT ROWID",
    ),
    (
        "calibrations",
        "CREATE TABLE calibrations(bucket INTEGER PRIMARY KEY, right REAL NOT NULL, \"all\" REAL NOT NULL) STRICT",
    ),
    (
        "devices",
        "CREATE TABLE devices(identity TEXT PRIMARY KEY, at INTEGER NOT NULL, knowledge TEXT NOT NULL) STRICT, WITHOUT ROWID",
    ),
];

/// All that is kept.
#[derive(Debug, Default)]
pub struct Loaded {
    /// Models and programs before all others.
    pub rows: Vec<Row>,
    /// How much there is, table by table, in the order of [`SCHEMA`].
    pub tallies: [Tally; SCHEMA.len()],
    /// Rows that were left out.
    pub dropped: u64,
}

/// Writes a row in place of that with its key. `now`: seconds since 1970.
///
/// # Errors
/// SQLite's.
pub fn put(to: &Connection, row: &Row, now: u64) -> rusqlite::Result<()> {
    let seconds = |at: u64| i64::try_from(at).unwrap_or(i64::MAX);
    let run = |sql, values: &[&dyn rusqlite::ToSql]| to.prepare_cached(sql)?.execute(values);
    match row {
        Row::Model { number, path } => run(
            "INSERT OR REPLACE INTO models VALUES(?1, ?2, ?3)",
            params![number, seconds(now), path.as_os_str().as_bytes()],
        ),
        Row::Program { number, name } => run(
            "INSERT OR REPLACE INTO programs VALUES(?1, ?2, ?3)",
            params![number, seconds(now), name],
        ),
        Row::Heat { model, heat, asked, at } => run(
            "INSERT OR REPLACE INTO heats VALUES(?1, ?2, ?3, ?4)",
            params![model, heat, asked, seconds(*at)],
        ),
        Row::Successor(row) => {
            let [first, second, third] = row.context;
            run(
                "INSERT OR REPLACE INTO successors VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
                params![
                    row.program,
                    first,
                    second,
                    third,
                    row.next,
                    row.weight,
                    seconds(row.at),
                    row.gap_log,
                    row.gap_spread
                ],
            )
        }
        Row::Order(row) => run(
            "INSERT OR REPLACE INTO orders VALUES(?1, ?2, ?3, ?4, ?5, ?6)",
            params![
                row.model,
                row.program,
                seconds(row.bytes),
                row.weight,
                seconds(row.at),
                pack(&row.runs)
            ],
        ),
        Row::Lead(row) => run(
            "INSERT OR REPLACE INTO leads VALUES(?1, ?2, ?3, ?4, ?5, ?6)",
            params![
                row.layout.name(),
                row.program,
                row.weight,
                seconds(row.at),
                row.log,
                row.spread
            ],
        ),
        Row::Calibration { bucket, right, all } => run(
            "INSERT OR REPLACE INTO calibrations VALUES(?1, ?2, ?3)",
            params![bucket, right, all],
        ),
        Row::Device {
            identity,
            knowledge,
            at,
        } => run(
            "INSERT OR REPLACE INTO devices VALUES(?1, ?2, ?3)",
            // Later versions may know more of a device; none is refused for it.
            params![
                identity,
                seconds(*at),
                serde_json::to_string(knowledge).unwrap_or_default()
            ],
        ),
    }?;
    Ok(())
}

/// Removes the row with this key, if it is there.
///
/// # Errors
/// SQLite's.
pub fn remove(from: &Connection, key: &Key) -> rusqlite::Result<()> {
    let run = |sql, values: &[&dyn rusqlite::ToSql]| from.prepare_cached(sql)?.execute(values);
    match key {
        Key::Model(number) => run("DELETE FROM models WHERE number = ?1", params![number]),
        Key::Program(number) => run("DELETE FROM programs WHERE number = ?1", params![number]),
        Key::Heat(model) => run("DELETE FROM heats WHERE model = ?1", params![model]),
        Key::Successor {
            program,
            context: [first, second, third],
            next,
        } => run(
            "DELETE FROM successors WHERE program = ?1 AND first = ?2 AND second = ?3 AND third = ?4 AND next = ?5",
            params![program, first, second, third, next],
        ),
        Key::Order { model, program } => run(
            "DELETE FROM orders WHERE model = ?1 AND program = ?2",
            params![model, program],
        ),
        Key::Lead { layout, program } => run(
            "DELETE FROM leads WHERE layout = ?1 AND program = ?2",
            params![layout.name(), program],
        ),
        Key::Calibration(bucket) => run("DELETE FROM calibrations WHERE bucket = ?1", params![bucket]),
        Key::Device(identity) => run("DELETE FROM devices WHERE identity = ?1", params![identity]),
    }?;
    Ok(())
}

/// Removes everything.
///
/// # Errors
/// SQLite's.
pub fn clear(from: &Connection) -> rusqlite::Result<()> {
    SCHEMA
        .iter()
        .try_for_each(|(name, _)| from.execute_batch(&format!("DELETE FROM {name}")))
}

/// What is forgotten with a model.
pub const WITH_MODELS: &[&str] = &[
    "DELETE FROM models WHERE number IN temp.gone",
    "DELETE FROM heats WHERE model IN temp.gone",
    "DELETE FROM orders WHERE model IN temp.gone",
    "DELETE FROM successors WHERE next IN temp.gone OR first IN temp.gone OR second IN temp.gone OR third IN temp.gone",
];

/// What is forgotten with a program.
pub const WITH_PROGRAMS: &[&str] = &[
    "DELETE FROM programs WHERE number IN temp.gone",
    "DELETE FROM successors WHERE program IN temp.gone",
    "DELETE FROM orders WHERE program IN temp.gone",
    "DELETE FROM leads WHERE program IN temp.gone",
];

/// Removes models or programs and all that mentions them, however many, in one pass through each table.
///
/// # Errors
/// SQLite's.
pub fn forget(from: &Connection, numbers: impl Iterator<Item = Number>, with: &[&str]) -> rusqlite::Result<()> {
    let mut numbers = numbers.peekable();
    if numbers.peek().is_none() {
        return Ok(());
    }
    from.execute_batch(
        "CREATE TEMP TABLE IF NOT EXISTS gone(number INTEGER PRIMARY KEY) STRICT; DELETE FROM temp.gone",
    )?;
    let mut note = from.prepare_cached("INSERT OR IGNORE INTO temp.gone VALUES(?1)")?;
    for number in numbers {
        note.execute([number])?;
    }
    with.iter().try_for_each(|sql| from.execute_batch(sql))?;
    from.execute_batch("DELETE FROM temp.gone")
}

/// Reads everything. Of a table with more rows than it may have, as many as it may.
///
/// # Errors
/// SQLite's: damage, among others.
pub fn load(from: &Connection) -> rusqlite::Result<Loaded> {
    let mut loaded = Loaded::default();
    let mut known = Known::default();
    for (at, (name, _)) in SCHEMA.iter().enumerate() {
        let most = BOUNDS[at].rows;
        let mut list = from.prepare(&format!("SELECT * FROM {name} LIMIT {}", most + 1))?;
        let mut found = list.query(())?;
        while let Some(found) = found.next()? {
            loaded.tallies[at].rows += 1;
            let row = read(at, found).filter(is_plausible).filter(|row| {
                let key = Key::of(row);
                match &key {
                    Key::Model(number) => known.models.insert(*number),
                    Key::Program(number) => known.programs.insert(*number),
                    _ => known.has(&key),
                }
            });
            match row {
                Some(row) if loaded.tallies[at].rows <= most => {
                    loaded.tallies[at].bytes += width(&row);
                    loaded.rows.push(row);
                }
                _ => loaded.dropped += 1,
            }
        }
    }
    loaded.rows.shrink_to_fit();
    Ok(loaded)
}

/// A row of the table at `at` in [`SCHEMA`]; `None` for what none of its rows can be.
fn read(at: usize, found: &Found<'_>) -> Option<Row> {
    let row = match at {
        0 => Row::Model {
            number: number(found, 0)?,
            path: PathBuf::from(OsStr::from_bytes(value(found, 2)?.as_blob().ok()?)),
        },
        1 => Row::Program {
            number: number(found, 0)?,
            name: value(found, 2)?.as_str().ok()?.to_owned(),
        },
        2 => Row::Heat {
            model: number(found, 0)?,
            heat: value(found, 1)?.as_f64().ok()?,
            asked: number(found, 2)? != 0,
            at: seconds(found, 3)?,
        },
        3 => Row::Successor(Successor {
            program: number(found, 0)?,
            context: [number(found, 1)?, number(found, 2)?, number(found, 3)?],
            next: number(found, 4)?,
            weight: short(found, 5)?,
            at: seconds(found, 6)?,
            gap_log: short(found, 7)?,
            gap_spread: short(found, 8)?,
        }),
        4 => Row::Order(Order {
            model: number(found, 0)?,
            program: number(found, 1)?,
            bytes: seconds(found, 2)?,
            weight: short(found, 3)?,
            at: seconds(found, 4)?,
            runs: unpack(value(found, 5)?.as_blob().ok()?)?,
        }),
        5 => Row::Lead(Lead {
            layout: layout(value(found, 0)?.as_str().ok()?)?,
            program: number(found, 1)?,
            weight: short(found, 2)?,
            at: seconds(found, 3)?,
            log: short(found, 4)?,
            spread: short(found, 5)?,
        }),
        6 => Row::Calibration {
            bucket: u8::try_from(number(found, 0)?).ok()?,
            right: short(found, 1)?,
            all: short(found, 2)?,
        },
        _ => Row::Device {
            identity: value(found, 0)?.as_str().ok()?.to_owned(),
            at: seconds(found, 1)?,
            knowledge: serde_json::from_str::<Knowledge>(value(found, 2)?.as_str().ok()?)
                .ok()?
                .plausible(),
        },
    };
    Some(row)
}

fn value<'a>(found: &'a Found<'_>, column: usize) -> Option<ValueRef<'a>> {
    found.get_ref(column).ok()
}

fn number(found: &Found<'_>, column: usize) -> Option<Number> {
    value(found, column)?.as_i64().ok()?.try_into().ok()
}

fn seconds(found: &Found<'_>, column: usize) -> Option<u64> {
    value(found, column)?.as_i64().ok()?.try_into().ok()
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "it was written as one of these; what is larger is infinite, which no row can be"
)]
fn short(found: &Found<'_>, column: usize) -> Option<f32> {
    Some(value(found, column)?.as_f64().ok()? as f32)
}

fn layout(name: &str) -> Option<LayoutKind> {
    let name: serde::de::value::StrDeserializer<'_, serde::de::value::Error> = name.into_deserializer();
    LayoutKind::deserialize(name).ok()
}

/// Three numbers for each run, small ones in few bytes.
fn pack(runs: &[Run]) -> Vec<u8> {
    // Of numbers nothing can fail.
    postcard::to_stdvec(runs).unwrap_or_default()
}

fn unpack(bytes: &[u8]) -> Option<Vec<Run>> {
    // How many follow is in front: a lie is not believed.
    let (count, _) = postcard::take_from_bytes::<u64>(bytes).ok()?;
    if count > MOST_RUNS as u64 {
        return None;
    }
    let (runs, rest) = postcard::take_from_bytes(bytes).ok()?;
    rest.is_empty().then_some(runs)
}
