//! What the agent keeps over a restart, as the state directory does: rows by their keys, and what is known of devices.

use std::collections::BTreeMap;

use crate::engine::{
    learn::row::{Change, Number, Row},
    plan::device::Knowledge,
};

/// What was kept.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    rows: Vec<Row>,
    devices: BTreeMap<u32, Knowledge>,
}

impl Rows {
    /// All rows, as they are told when the agent starts.
    pub fn all(&self) -> Vec<Row> {
        self.rows.clone()
    }

    /// What is known of a device.
    pub fn device(&self, number: u32) -> Option<Knowledge> {
        self.devices.get(&number).cloned()
    }

    /// Keeps what is known of a device.
    pub fn keep(&mut self, number: u32, knowledge: Knowledge) {
        self.devices.insert(number, knowledge);
    }

    /// Keeps a change.
    pub fn change(&mut self, change: Change) {
        match change {
            Change::Put(row) => match self.rows.iter_mut().find(|kept| is_same(kept, &row)) {
                Some(kept) => *kept = row,
                None => self.rows.push(row),
            },
            Change::ForgetModel(number) => self.rows.retain(|row| !mentions_model(row, number)),
            Change::ForgetProgram(number) => self.rows.retain(|row| !mentions_program(row, number)),
            Change::ForgetOrder { model, program } => {
                let is_it =
                    |row: &Row| matches!(row, Row::Order(order) if (order.model, order.program) == (model, program));
                self.rows.retain(|row| !is_it(row));
            }
            Change::Fade { program, context, next } => {
                let key = (program, context, next);
                let is_it =
                    |row: &Row| matches!(row, Row::Successor(one) if (one.program, one.context, one.next) == key);
                self.rows.retain(|row| !is_it(row));
            }
            Change::ForgetAll => self.rows.clear(),
        }
    }
}

/// Whether two rows have one key.
fn is_same(one: &Row, other: &Row) -> bool {
    match (one, other) {
        (Row::Model { number: one, .. }, Row::Model { number: other, .. })
        | (Row::Program { number: one, .. }, Row::Program { number: other, .. })
        | (Row::Heat { model: one, .. }, Row::Heat { model: other, .. }) => one == other,
        (Row::Successor(one), Row::Successor(other)) => {
            (one.program, one.context, one.next) == (other.program, other.context, other.next)
        }
        (Row::Order(one), Row::Order(other)) => (one.model, one.program) == (other.model, other.program),
        (Row::Lead(one), Row::Lead(other)) => (one.layout, one.program) == (other.layout, other.program),
        (Row::Calibration { bucket: one, .. }, Row::Calibration { bucket: other, .. }) => one == other,
        (Row::Device { identity: one, .. }, Row::Device { identity: other, .. }) => one == other,
        _ => false,
    }
}

fn mentions_model(row: &Row, number: Number) -> bool {
    match row {
        Row::Model { number: model, .. } | Row::Heat { model, .. } => *model == number,
        Row::Successor(row) => row.next == number || row.context.contains(&number),
        Row::Order(order) => order.model == number,
        Row::Program { .. } | Row::Lead(_) | Row::Calibration { .. } | Row::Device { .. } => false,
    }
}

fn mentions_program(row: &Row, number: Number) -> bool {
    match row {
        Row::Program { number: program, .. } => *program == number,
        Row::Successor(row) => row.program == number,
        Row::Order(order) => order.program == number,
        Row::Lead(lead) => lead.program == number,
        Row::Model { .. } | Row::Heat { .. } | Row::Calibration { .. } | Row::Device { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heat(model: Number, heat: f64) -> Row {
        let (asked, at) = (false, 0);
        Row::Heat { model, heat, asked, at }
    }

    #[test]
    fn a_row_replaces_the_one_with_its_key_and_goes_with_its_model() {
        let mut rows = Rows::default();
        for row in [heat(1, 1.0), heat(2, 1.0), heat(1, 2.0)] {
            rows.change(Change::Put(row));
        }
        assert_eq!(rows.all(), [heat(1, 2.0), heat(2, 1.0)]);
        rows.change(Change::ForgetModel(1));
        assert_eq!(rows.all(), [heat(2, 1.0)]);
        rows.change(Change::ForgetAll);
        assert!(rows.all().is_empty());
    }
}
