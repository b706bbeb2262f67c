//! Receipts as a table: which columns, how wide, what is left out where there is no room.
//!
//! In: receipts and how wide the terminal is. Out: lines. Each row can be printed by itself, since those of `--follow` come one by one; why something
//! was skipped stands below its row, being longer than any column.

use comfy_table::{CellAlignment, ColumnConstraint, Table, Width, presets};

use super::text::{self, Look};
use crate::{
    engine::receipt::{ReaderKind, Receipt},
    observe::history::Kept,
    sys::clock,
    units::{ByteCount, printable},
};

/// Columns of model and program together, where nothing is known of what is to come: those that leave the table 100 wide.
const NAMES: usize = 34;

/// The least that a model's or a program's column is narrowed to.
const LEAST_NAME: usize = 12;

/// What is shown of a receipt.
pub struct Row {
    cells: [String; COLUMNS],
    note: Option<String>,
}

const COLUMNS: usize = 12;

/// Titles, and the columns they take; 0 for the names, which take what is left. The widest percentage is 100, the widest size `1000 KiB`.
const TITLES: [(&str, usize); COLUMNS] = [
    ("TIME", 8),
    ("MODEL", 0),
    ("PROGRAM", 0),
    ("READER", 8),
    ("DEMANDED", 8),
    ("BEF", 3),
    ("RA", 3),
    ("OK", 3),
    ("LATE", 4),
    ("MISS", 4),
    ("WASTED", 8),
    ("SECS", 6),
];

/// The first column of numbers.
const NUMBERS: usize = 4;

/// Left out where the terminal has less than [`WIDE`] columns: how it was read, and what was wasted.
const FIRST_TO_GO: [usize; 2] = [3, 10];

/// Columns that the whole table needs, with names that can still be told apart.
const WIDE: usize = 92;

impl Row {
    /// In words and numbers.
    pub fn of(kept: &Kept) -> Self {
        let Kept { time, receipt } = kept;
        let share = |part: ByteCount| match receipt.demanded.0 {
            0 => "-".to_owned(),
            all => format!("{:.0}", 100.0 * part.0 as f64 / all as f64),
        };
        let pid = receipt.pids.first().copied().unwrap_or_default();
        let cells = [
            when(*time),
            printable(&receipt.model),
            text::program(receipt.program.as_deref(), pid, usize::MAX),
            reader(receipt.reader).to_owned(),
            receipt.demanded.to_string(),
            share(receipt.resident_before),
            share(receipt.kernel_readahead),
            share(receipt.warmed_in_time),
            share(receipt.warmed_late),
            share(receipt.missed),
            receipt.wasted.to_string(),
            // Six columns, until a load takes days.
            if receipt.seconds < 999.995 {
                format!("{:.2}", receipt.seconds)
            } else {
                format!("{:.0}", receipt.seconds)
            },
        ];
        Self {
            cells,
            note: note(receipt),
        }
    }

    /// The row, and below it why something was left out.
    pub fn line(&self, widths: Widths) -> String {
        let mut cells = self.cells.clone();
        if let Some((model, program)) = widths.most {
            cells[1] = text::shorten(&cells[1], model);
            cells[2] = match cells[2].rfind('[') {
                Some(at) => {
                    let (name, pid) = cells[2].split_at(at);
                    format!("{}{pid}", text::shorten(name, program.saturating_sub(pid.len()).max(2)))
                }
                None => text::shorten(&cells[2], program),
            };
        }
        let line = table(&cells, widths);
        match &self.note {
            Some(note) => format!("{line}\n{:9}{note}", ""),
            None => line,
        }
    }
}

/// Columns of model and program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Widths {
    model: usize,
    program: usize,
    /// The same, where longer names are to be shortened.
    most: Option<(usize, usize)>,
    /// Columns are left out.
    narrow: bool,
}

impl Widths {
    /// For rows that are all known: as wide as they need, on a terminal no wider than it is.
    pub fn fitting(rows: &[Row], look: Look) -> Self {
        let widest = |column: usize| {
            rows.iter()
                .map(|row| text::width(&row.cells[column]))
                .max()
                .unwrap_or(0)
        };
        let (model, program) = (widest(1).max(LEAST_NAME), widest(2).max(LEAST_NAME));
        let Some(names) = names(look) else {
            return Self {
                model,
                program,
                most: None,
                narrow: false,
            };
        };
        // The program's column gives way first, down to half of what there is.
        let program = program.min(names.saturating_sub(model).max(names / 2));
        Self::limited(model.min(names - program), program, look)
    }

    /// For rows that are still to come.
    pub fn open(look: Look) -> Self {
        let all = names(look).unwrap_or(NAMES);
        let program = (all / 2).min(22);
        match look.columns {
            Some(_) => Self::limited((all - program).min(48), program, look),
            None => Self {
                model: all - program,
                program,
                most: None,
                narrow: false,
            },
        }
    }

    fn limited(model: usize, program: usize, look: Look) -> Self {
        Self {
            model,
            program,
            most: Some((model, program)),
            narrow: is_narrow(look),
        }
    }

    /// The columns that are shown.
    fn shown(self) -> impl Iterator<Item = usize> {
        (0..COLUMNS).filter(move |number| !self.narrow || !FIRST_TO_GO.contains(number))
    }

    fn column(self, number: usize) -> usize {
        match number {
            1 => self.model,
            2 => self.program,
            _ => TITLES[number].1,
        }
    }
}

fn is_narrow(look: Look) -> bool {
    look.columns.is_some_and(|columns| columns < WIDE)
}

/// What a terminal leaves for the names.
fn names(look: Look) -> Option<usize> {
    let shown = |number: &usize| !is_narrow(look) || !FIRST_TO_GO.contains(number);
    let others: usize = (0..COLUMNS).filter(shown).map(|number| TITLES[number].1 + 1).sum();
    let left = (look.columns? + 1).saturating_sub(others);
    Some(left.max(2 * LEAST_NAME))
}

/// The titles.
pub fn header(widths: Widths) -> String {
    table(&TITLES.map(|(title, _)| title.to_owned()), widths)
}

/// One line of the table; cells that are wider than their column push the rest to the right.
fn table(cells: &[String; COLUMNS], widths: Widths) -> String {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .add_row(widths.shown().map(|number| &cells[number]));
    for (column, number) in table.column_iter_mut().zip(widths.shown()) {
        let columns = widths.column(number).max(text::width(&cells[number]));
        // The blank that separates it from the next.
        column.set_padding((0, 1));
        column.set_constraint(ColumnConstraint::Absolute(Width::Fixed(columns as u16 + 1)));
        if number >= NUMBERS {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.to_string().trim_end().to_owned()
}

/// Time of day; the date of what was not today.
fn when(time: f64) -> String {
    let (then, now) = (time.max(0.0) as u64, clock::unix_now() as u64);
    let date = clock::local_date(then);
    if date == clock::local_date(now) {
        clock::local_time_of_day(then)
    } else {
        // `31-04-29`: the century is known.
        date.chars().skip(2).collect()
    }
}

/// In eight columns.
const fn reader(kind: ReaderKind) -> &'static str {
    match kind {
        ReaderKind::SequentialMap => "map",
        ReaderKind::Populate => "populate",
        ReaderKind::RandomHintMap => "rand map",
        ReaderKind::Buffered => "buffered",
        ReaderKind::ODirect => "O_DIRECT",
        ReaderKind::Unknown => "unknown",
    }
}

/// Why something was left out.
fn note(receipt: &Receipt) -> Option<String> {
    let reasons: Vec<&str> = receipt.skipped.iter().map(|skip| skip.reason()).collect();
    let skipped = (!reasons.is_empty()).then(|| format!("skipped: {}", reasons.join(", ")));
    let pattern = receipt.pattern.map(|pattern| pattern.name().to_owned());
    let before = receipt.brought_before;
    let before = (before.0 > 0).then(|| format!("{before} brought in before"));
    let saved = receipt.saved.map(|saved| saved.to_string());
    let words: Vec<String> = pattern.into_iter().chain(before).chain(saved).chain(skipped).collect();
    (!words.is_empty()).then(|| words.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{engine::happening::Skip, observe::history::tests::receipt};

    const PIPE: Look = Look {
        columns: None,
        color: false,
    };
    fn long() -> Kept {
        let mut kept = receipt(4_194_303, Some(0));
        kept.receipt.model = "organisation/a-model-with-a-long-name-and-more-Q4_K_M.gguf".into();
        kept.receipt.program = Some("fifteen-letters".into());
        kept.receipt.seconds = 1234.56;
        kept.receipt.skipped = vec![Skip::Unverified];
        kept
    }

    #[test]
    fn a_table_fits_its_terminal_and_is_aligned() {
        let rows = [Row::of(&receipt(7, None)), Row::of(&long())];
        for columns in [80, 91, 92, 100, 160] {
            let look = Look {
                columns: Some(columns),
                color: false,
            };
            for widths in [Widths::fitting(&rows, look), Widths::open(look)] {
                let lines: Vec<String> = rows.iter().map(|row| row.line(widths)).collect();
                let ends: Vec<usize> = lines
                    .iter()
                    .map(|line| text::width(line.lines().next().unwrap()))
                    .collect();
                assert_eq!(ends[0], ends[1], "{lines:#?}");
                assert_eq!(ends[0], text::width(&header(widths)), "{lines:#?}");
                let widest = lines.iter().flat_map(|line| line.lines()).map(text::width).max();
                assert!(widest.unwrap() <= columns, "{columns}: {lines:#?}");
                assert!(lines[1].contains("[4194303]"), "{lines:#?}");
                assert!(lines[1].contains("skipped: nothing stays"), "{lines:#?}");
            }
        }
    }

    #[test]
    fn a_pipe_gets_whole_names() {
        let rows = [Row::of(&receipt(7, None)), Row::of(&long())];
        let widths = Widths::fitting(&rows, PIPE);
        assert!(
            rows[1]
                .line(widths)
                .contains("organisation/a-model-with-a-long-name-and-more-Q4_K_M.gguf")
        );
        assert!(rows[1].line(Widths::open(PIPE)).contains("fifteen-letters[4194303]"));
    }

    #[test]
    fn the_five_parts_are_percentages() {
        let row = Row::of(&receipt(7, None));
        assert_eq!(row.cells[5..10], ["0", "25", "50", "25", "0"].map(str::to_owned));
        let mut nothing = receipt(7, None);
        nothing.receipt.demanded = ByteCount(0);
        assert_eq!(Row::of(&nothing).cells[5], "-");
    }
}
