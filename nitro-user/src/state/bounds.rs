//! How much is kept, and what goes first when it is more.
//!
//! The file stays below 300 MB with all tables full. Of rows with a weight that decays the one goes first that weighs least by now; which that is does not depend on when one
//! looks, as long as all decay alike.

use rusqlite::{Connection, Transaction, types::Value};

use super::tables::{self, SCHEMA, WITH_MODELS, WITH_PROGRAMS};
use crate::engine::learn::row::{Number, Row};

/// In so many seconds a weight halves, when rows are compared: a month without use costs as much as half of the uses before.
const HALF_LIFE: f64 = 30.0 * 86_400.0;

/// So much more than is needed goes at once, as a part of the whole: looking for the least takes a pass through the table.
const SPARE: u64 = 64;

/// What one table may hold.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    /// Rows.
    pub rows: u64,
    /// Bytes of its wide column together, as they lie on disk.
    pub bytes: u64,
    /// That column's width.
    wide: &'static str,
    /// Weight and time of each row, and where they are.
    weights: (&'static str, &'static str),
    /// Columns of the key.
    key: &'static [&'static str],
}

/// What is in one table: at most so much.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Rows.
    pub rows: u64,
    /// Bytes of its wide column together.
    pub bytes: u64,
}

/// A row that is wider does not fit into its page, and begins another.
const OVERFLOWS: u64 = 900;
const PAGE: u64 = 4096;

/// Nothing wide in it.
const NARROW: u64 = u64::MAX;

/// Those of the tables, in the order of [`SCHEMA`].
pub const BOUNDS: [Bound; SCHEMA.len()] = [
    Bound {
        rows: 65_536,
        bytes: 32 << 20,
        wide: "length(path)",
        weights: (
            "coalesce(heat, 1.0), coalesce(heats.at, models.at)",
            "models LEFT JOIN heats ON model = number",
        ),
        key: &["number"],
    },
    Bound {
        rows: 4096,
        bytes: NARROW,
        wide: "0",
        // The last time that it did anything.
        weights: (
            "1.0, max(programs.at, coalesce(last, 0))",
            "programs LEFT JOIN (SELECT program, max(at) AS last FROM (SELECT program, at FROM successors UNION ALL SELECT program, at FROM orders \
             UNION ALL SELECT program, at FROM leads) GROUP BY program) ON program = number",
        ),
        key: &["number"],
    },
    narrow(65_536, ("heat, at", "heats"), &["model"]),
    narrow(
        1_000_000,
        ("weight, at", "successors"),
        &["program", "first", "second", "third", "next"],
    ),
    Bound {
        rows: 65_536,
        bytes: 64 << 20,
        wide: "length(runs) + 4096 * (length(runs) > 900)",
        weights: ("weight, at", "orders"),
        key: &["model", "program"],
    },
    narrow(65_536, ("weight, at", "leads"), &["layout", "program"]),
    narrow(256, ("\"all\", 0", "calibrations"), &["bucket"]),
    narrow(256, ("1.0, at", "devices"), &["identity"]),
];

const fn narrow(rows: u64, weights: (&'static str, &'static str), key: &'static [&'static str]) -> Bound {
    Bound {
        rows,
        bytes: NARROW,
        wide: "0",
        weights,
        key,
    }
}

/// Bytes that `row` takes in the wide column of its table, at most.
pub fn width(row: &Row) -> u64 {
    match row {
        Row::Model { path, .. } => path.as_os_str().len() as u64,
        Row::Order(order) => {
            let most = order.runs.len() as u64 * tables::MOST_RUN;
            if most > OVERFLOWS { most + PAGE } else { most }
        }
        _ => 0,
    }
}

/// The table of a row, as its place in [`SCHEMA`].
pub const fn table(row: &Row) -> usize {
    match row {
        Row::Model { .. } => 0,
        Row::Program { .. } => 1,
        Row::Heat { .. } => 2,
        Row::Successor(_) => 3,
        Row::Order(_) => 4,
        Row::Lead(_) => 5,
        Row::Calibration { .. } => 6,
        Row::Device { .. } => 7,
    }
}

/// Removes the least of every table that has more than it may. `tallies` is what it has at most, and what it has when it was counted.
///
/// # Errors
/// SQLite's.
pub fn keep(
    within: &Transaction<'_>,
    bounds: &[Bound; SCHEMA.len()],
    tallies: &mut [Tally; SCHEMA.len()],
) -> rusqlite::Result<()> {
    let is_more = |tally: &Tally, bound: &Bound| tally.rows > bound.rows || tally.bytes > bound.bytes;
    for (at, bound) in bounds.iter().enumerate() {
        if !is_more(&tallies[at], bound) {
            continue;
        }
        tallies[at] = count(within, at, bound)?;
        if is_more(&tallies[at], bound) {
            tallies[at] = reduce(within, at, bound)?;
        }
    }
    Ok(())
}

fn count(within: &Connection, at: usize, bound: &Bound) -> rusqlite::Result<Tally> {
    let sql = format!(
        "SELECT count(*), coalesce(sum({}), 0) FROM {}",
        bound.wide, SCHEMA[at].0
    );
    within.query_row(&sql, (), |row| {
        Ok(Tally {
            rows: row.get::<_, i64>(0)?.unsigned_abs(),
            bytes: row.get::<_, i64>(1)?.unsigned_abs(),
        })
    })
}

/// How much of a weight is left, as a number that is only compared.
fn score(weight: f64, at: i64) -> f64 {
    weight.max(1e-9).log2() + at as f64 / HALF_LIFE
}

fn reduce(within: &Transaction<'_>, at: usize, bound: &Bound) -> rusqlite::Result<Tally> {
    let (weights, from) = bound.weights;
    let sql = format!("SELECT {weights}, {}, {} FROM {from}", bound.wide, bound.key.join(", "));
    let mut list = within.prepare(&sql)?;
    let mut all: Vec<(f64, u64)> = Vec::new();
    let mut found = list.query(())?;
    while let Some(row) = found.next()? {
        all.push((score(row.get(0)?, row.get(1)?), row.get::<_, i64>(2)?.unsigned_abs()));
    }
    drop(found);
    all.sort_unstable_by(|one, other| other.0.total_cmp(&one.0));
    let (rows, bytes) = (bound.rows - bound.rows / SPARE, bound.bytes - bound.bytes / SPARE);
    let mut left = Tally::default();
    for (_, width) in &all {
        if left.rows == rows || left.bytes + width > bytes {
            break;
        }
        left.rows += 1;
        left.bytes += width;
    }
    // What weighs as much as the first that goes may stay, as long as it is not too many.
    let Some((least, _)) = all.get(usize::try_from(left.rows).unwrap_or(usize::MAX)).copied() else {
        return Ok(left);
    };
    let mut equals = all[..left.rows as usize]
        .iter()
        .rev()
        .take_while(|one| one.0 == least)
        .count();
    drop(all);
    let mut gone: Vec<Vec<Value>> = Vec::new();
    let mut found = list.query(())?;
    while let Some(row) = found.next()? {
        let score = score(row.get(0)?, row.get(1)?);
        if score == least && equals > 0 {
            equals -= 1;
        } else if score <= least {
            gone.push(
                (0..bound.key.len())
                    .map(|column| row.get(3 + column))
                    .collect::<Result<_, _>>()?,
            );
        }
    }
    drop(found);
    let numbers = || {
        gone.iter().filter_map(|key| match key.first() {
            Some(Value::Integer(number)) => Number::try_from(*number).ok(),
            _ => None,
        })
    };
    let name = SCHEMA[at].0;
    match name {
        "models" => tables::forget(within, numbers(), WITH_MODELS)?,
        "programs" => tables::forget(within, numbers(), WITH_PROGRAMS)?,
        _ => {
            let equal: Vec<_> = bound.key.iter().map(|column| format!("{column} = ?")).collect();
            let mut remove = within.prepare(&format!("DELETE FROM {name} WHERE {}", equal.join(" AND ")))?;
            for key in &gone {
                remove.execute(rusqlite::params_from_iter(key))?;
            }
        }
    }
    Ok(left)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{
        engine::learn::row::Order,
        state::tests::{device, heat, lead, model, order, program, successor},
    };

    /// A database with `rows`, reduced to `bounds`: what is left of them.
    fn left(rows: &[Row], bounds: [Bound; SCHEMA.len()]) -> Vec<Row> {
        let mut connection = Connection::open_in_memory().unwrap();
        for (_, how) in SCHEMA {
            connection.execute_batch(how).unwrap();
        }
        let mut tallies = <[Tally; SCHEMA.len()]>::default();
        let within = connection.transaction().unwrap();
        for row in rows {
            tables::put(&within, row, 0).unwrap();
            tallies[table(row)].rows += 1;
            tallies[table(row)].bytes += width(row);
        }
        keep(&within, &bounds, &mut tallies).unwrap();
        within.commit().unwrap();
        let loaded = tables::load(&connection).unwrap();
        assert_eq!(loaded.dropped, 0, "nothing that is left names what is gone");
        for (is, counted) in loaded.tallies.iter().zip(tallies) {
            assert!(is.rows <= counted.rows, "{is:?} {counted:?}");
        }
        loaded.rows
    }

    fn of(rows: u64, name: &str) -> [Bound; SCHEMA.len()] {
        let mut bounds = BOUNDS;
        let at = SCHEMA.iter().position(|(table, _)| *table == name).unwrap();
        bounds[at].rows = rows;
        bounds
    }

    #[test]
    fn what_fits_stays() {
        let rows: Vec<_> = (1..=10).map(model).collect();
        assert_eq!(left(&rows, of(10, "models")).len(), 10);
    }

    #[test]
    fn the_successors_that_weigh_least_by_now_go() {
        let at = |next: Number, weight: f32, months: u64| match successor(1, [0; 3], next, weight) {
            Row::Successor(row) => Row::Successor(crate::engine::learn::row::Successor {
                at: 1_700_000_000 + months * HALF_LIFE as u64,
                ..row
            }),
            row => row,
        };
        let mut rows: Vec<_> = (1..=6).map(model).collect();
        rows.push(program(1));
        // The first has been used eight times, three months before the second was used twice.
        rows.extend([
            at(1, 8.0, 0),
            at(2, 2.0, 3),
            at(3, 1.0, 3),
            at(4, 0.0, 9),
            at(5, 16.0, 0),
            at(6, 3.0, 3),
        ]);
        let left = left(&rows, of(3, "successors"));
        let next = |row: &Row| match row {
            Row::Successor(row) => Some(row.next),
            _ => None,
        };
        assert_eq!(left.iter().filter_map(next).collect::<Vec<_>>(), [2, 5, 6]);
    }

    #[test]
    fn a_model_goes_with_all_that_mentions_it_the_coldest_first() {
        let mut rows: Vec<_> = (1..=4).map(model).collect();
        rows.extend((1..=4).map(|model| heat(model, 10.0 - f64::from(model))));
        rows.extend([
            order(4, 0, &[]),
            successor(0, [1, 4, 0], 2, 1.0),
            successor(0, [1, 0, 0], 2, 1.0),
        ]);
        let left: BTreeSet<_> = left(&rows, of(3, "models"))
            .iter()
            .map(|row| format!("{row:?}"))
            .collect();
        let kept = rows.iter().map(|row| format!("{row:?}"));
        let gone: Vec<_> = kept.filter(|row| !left.contains(row)).collect();
        assert_eq!(gone.len(), 4, "{gone:?}");
    }

    #[test]
    fn a_program_goes_that_has_done_nothing_for_longest() {
        let later = |program: Number, at: u64| match order(1, program, &[]) {
            Row::Order(row) => Row::Order(Order { at, ..row }),
            row => row,
        };
        let mut rows = vec![model(1)];
        rows.extend((1..=3).map(program));
        rows.extend([later(1, 300), later(2, 100), later(3, 200)]);
        rows.push(lead(crate::catalog::model::LayoutKind::Gguf, 1));
        let left = left(&rows, of(2, "programs"));
        let programs: Vec<_> = left
            .iter()
            .filter(|row| matches!(row, Row::Program { .. }))
            .cloned()
            .collect();
        assert_eq!(programs, [program(1), program(3)]);
        assert_eq!(left.len(), 6);
    }

    #[test]
    fn as_many_go_as_must_where_all_weigh_the_same() {
        let rows: Vec<_> = (0..500).map(|number| device(&number.to_string(), 1.0)).collect();
        let left = left(&rows, of(256, "devices"));
        assert_eq!(left.len(), 252, "and a few more, so that the next ones find room");
    }

    #[test]
    fn what_is_wide_is_bounded_in_bytes() {
        let mut rows: Vec<_> = (1..=100).map(model).collect();
        rows.extend((1..=100).map(|number| order(number, 0, &[(0, 0, 1); 100])));
        let mut bounds = BOUNDS;
        bounds[4].bytes = 10_000;
        let wide = left(&rows, bounds)
            .iter()
            .filter(|row| matches!(row, Row::Order(_)))
            .count();
        // Three bytes for each run.
        assert!((25..=33).contains(&wide), "{wide}");
    }
}
