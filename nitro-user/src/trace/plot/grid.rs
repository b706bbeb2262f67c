//! What is in the axes, as cells: the second reading of a trace.

use std::collections::HashMap;

use super::{MOST_PROCESSES, extent::Plan};
use crate::{
    engine::input::Input,
    trace::Record,
    units::{ByteRange, FileId, Moment, STEP},
};

/// Columns of a picture: moments.
pub const COLUMNS: usize = 560;

/// Rows: places in the file.
pub const ROWS: usize = 150;

/// Whose cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Layer {
    /// Warmed by the agent.
    Warmed,
    /// Brought in for the reader itself.
    Missed,
    /// Accessed, by the process with this number in the plan; one more for all others.
    Accessed(usize),
}

/// Cells of one kind in one file.
#[derive(Clone, Debug)]
pub struct Grid {
    cells: Vec<bool>,
}

/// A cell, or several one above the other: column, and rows from the first to behind the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The first column.
    pub from: usize,
    /// The column behind the last.
    pub to: usize,
    /// The first row.
    pub bottom: usize,
    /// The row above the last.
    pub top: usize,
}

impl Grid {
    fn new() -> Self {
        Self {
            cells: vec![false; COLUMNS * ROWS],
        }
    }

    fn set(&mut self, columns: std::ops::RangeInclusive<usize>, rows: std::ops::RangeInclusive<usize>) {
        for column in columns {
            for row in rows.clone() {
                if let Some(cell) = self.cells.get_mut(column * ROWS + row) {
                    *cell = true;
                }
            }
        }
    }

    /// The cells that are set, in as few rectangles as cells side by side make.
    pub fn runs(&self) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        let mut before: HashMap<(usize, usize), usize> = HashMap::new();
        for (column, cells) in self.cells.chunks(ROWS).enumerate() {
            let mut here = HashMap::new();
            let mut row = 0;
            while row < cells.len() {
                let length = cells.iter().skip(row).take_while(|cell| **cell).count();
                if length == 0 {
                    row += 1;
                    continue;
                }
                let rows = (row, row + length);
                // The same rows as in the column before: the rectangle gets wider.
                let number = match before.get(&rows) {
                    Some(number) => *number,
                    None => {
                        runs.push(Run {
                            from: column,
                            to: column,
                            bottom: rows.0,
                            top: rows.1,
                        });
                        runs.len() - 1
                    }
                };
                if let Some(run) = runs.get_mut(number) {
                    run.to = column + 1;
                }
                here.insert(rows, number);
                row += length;
            }
            before = here;
        }
        runs
    }
}

/// All cells of a picture.
#[derive(Debug)]
pub struct Grids {
    plan: Plan,
    panels: HashMap<FileId, usize>,
    processes: HashMap<u32, usize>,
    /// By file.
    pub(super) layers: Vec<HashMap<Layer, Grid>>,
    /// By file and column: bytes that have come into the page cache since the beginning, less those that left.
    pub(super) there: Vec<Vec<f64>>,
    now: Vec<(i64, usize)>,
}

impl Grids {
    /// Empty axes.
    pub fn new(plan: Plan) -> Self {
        let panels = plan
            .panels
            .iter()
            .enumerate()
            .map(|(number, panel)| (panel.file, number))
            .collect();
        let processes = plan
            .processes
            .iter()
            .enumerate()
            .map(|(number, (process, _))| (*process, number))
            .collect();
        let count = plan.panels.len();
        Self {
            plan,
            panels,
            processes,
            layers: vec![HashMap::new(); count],
            there: vec![vec![0.0; COLUMNS]; count],
            now: vec![(0, 0); count],
        }
    }

    /// What is drawn.
    pub const fn plan(&self) -> &Plan {
        &self.plan
    }

    fn column(&self, at: Moment) -> usize {
        let all = self.plan.to.since(self.plan.from).as_secs_f64();
        let share = at.since(self.plan.from).as_secs_f64() / all;
        ((share * COLUMNS as f64) as usize).min(COLUMNS - 1)
    }

    fn cells(&mut self, file: FileId, layer: Layer, times: (Moment, Moment), range: ByteRange) {
        let Some(number) = self.panels.get(&file).copied() else {
            return;
        };
        let size = self.plan.panels.get(number).map_or(1, |panel| panel.size) as f64;
        let row = |byte: u64| ((byte as f64 / size * ROWS as f64) as usize).min(ROWS - 1);
        let rows = row(range.start)..=row(range.end.saturating_sub(1).max(range.start));
        let columns = self.column(times.0)..=self.column(times.1);
        if let Some(layers) = self.layers.get_mut(number) {
            layers.entry(layer).or_insert_with(Grid::new).set(columns, rows);
        }
    }

    fn change(&mut self, file: FileId, at: Moment, by: i64) {
        let (Some(number), column) = (self.panels.get(&file).copied(), self.column(at)) else {
            return;
        };
        let (Some(there), Some((bytes, done))) = (self.there.get_mut(number), self.now.get_mut(number)) else {
            return;
        };
        // Records of one moment come in any order: what lies behind is left as it was.
        for value in there.iter_mut().take(column.max(*done)).skip(*done) {
            *value = *bytes as f64;
        }
        *done = column.max(*done);
        *bytes = bytes.saturating_add(by).max(0);
        if let Some(value) = there.get_mut(*done) {
            *value = *bytes as f64;
        }
    }

    /// Takes a record.
    pub fn add(&mut self, record: &Record) {
        match record {
            Record::Input {
                input: Input::Access(access),
                ..
            } if access.kind.is_demand() => {
                let layer = self.layer_of(access.process);
                // Who walks is told of once in a step, and goes through all of it.
                let walked = match access.jump {
                    true => access.range.end,
                    false => access.range.end.max((access.range.start / STEP + 1) * STEP),
                };
                let range = ByteRange {
                    end: walked,
                    ..access.range
                };
                self.cells(access.file, layer, (access.at, access.at), range);
            }
            Record::Input {
                input: Input::Outcome(outcome),
                ..
            } if outcome.gained() > 0 => {
                let times = (outcome.submitted, outcome.completed);
                self.cells(outcome.file, Layer::Warmed, times, outcome.range);
            }
            Record::Input {
                input: Input::Removed { file, range },
                at,
            } => self.change(*file, *at, -range.len().cast_signed()),
            Record::Brought {
                at,
                process,
                file,
                range,
                ..
            } => {
                if *process != self.plan.agent {
                    self.cells(*file, Layer::Missed, (*at, *at), *range);
                }
                self.change(*file, *at, range.len().cast_signed());
            }
            Record::Call {
                at,
                process,
                file,
                range,
                ..
            } if !range.is_empty() => {
                let layer = self.layer_of(*process);
                self.cells(*file, layer, (*at, *at), *range);
            }
            _ => {}
        }
    }

    fn layer_of(&self, process: u32) -> Layer {
        Layer::Accessed(self.processes.get(&process).copied().unwrap_or(MOST_PROCESSES))
    }

    /// Nothing more comes: what is there stays there.
    pub fn finish(&mut self) {
        for (there, (bytes, done)) in self.there.iter_mut().zip(&self.now) {
            for value in there.iter_mut().skip(*done) {
                *value = *bytes as f64;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_side_by_side_are_one_rectangle() {
        let mut grid = Grid::new();
        grid.set(3..=5, 10..=12);
        grid.set(7..=7, 0..=0);
        let run = |from, to, bottom, top| Run { from, to, bottom, top };
        assert_eq!(grid.runs(), [run(3, 6, 10, 13), run(7, 8, 0, 1)]);
    }

    #[test]
    fn every_cell_is_in_one_rectangle() {
        let mut grid = Grid::new();
        for number in 0..5000usize {
            let (column, row) = (number * 7919 % COLUMNS, number * 104_729 % ROWS);
            grid.set(column..=column, row..=row);
        }
        let mut again = Grid::new();
        for run in grid.runs() {
            again.set(run.from..=run.to - 1, run.bottom..=run.top - 1);
        }
        assert!(again.cells == grid.cells);
    }
}
