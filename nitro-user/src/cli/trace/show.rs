//! `nitro-agent trace show`: what processes did in files, in a table.

use std::path::PathBuf;

use clap::Args;
use comfy_table::{CellAlignment, Table, presets};

use super::read_all;
use crate::{
    cli::{
        ask::print,
        text::{self, Look},
    },
    trace::{
        Opened, Tear,
        summary::{Row, Summary, Summing, Warmed},
    },
    units::printable,
};

/// Columns of a file's name where nothing limits them.
const NAME: usize = 48;

/// Columns of all that is no name.
const NUMBERS: usize = 104;

/// Flags of `trace show`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  nitro-agent trace show load.trace
  nitro-agent trace show load.trace --json | jq '.rows[] | select(.missed > 0)'

Columns:
  BYTES    accessed; repeated ones count again
  CALLS    reads, as the kernel counted them; FAULTS: touches of mappings
  MISSED   bytes that the process waited for
  BROUGHT  bytes it brought in itself, with the kernel's readahead for it; USED: the share of them that it accessed
  ORDER    sequential, strided, random or mixed, and the share of accesses that are in it
  REUSE    bytes accessed in between, where something is accessed again (the middle of all distances)
  FIRST    from the first sign of the process in the file to its first byte
  ~        concluded from events: the process was still reading when the recording ended")]
pub struct Options {
    /// A trace.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

/// Reads and prints.
///
/// # Errors
/// The file is no trace, or cannot be read.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let mut trace = Opened::open(&options.file)?;
    let mut summing = Summing::default();
    let tear = read_all(&mut trace, |record| summing.add(record));
    let summary = summing.end(trace.header());
    if options.json {
        let mut object = serde_json::to_value(&summary)?;
        if let (Some(tear), Some(fields)) = (&tear, object.as_object_mut()) {
            fields.insert("torn_at".into(), tear.at.into());
            fields.insert("torn".into(), tear.why.clone().into());
        }
        print(&object.to_string())?;
        return Ok(());
    }
    let look = Look::of(&std::io::stdout());
    for line in lines(&summary, tear.as_ref(), trace.path(), look) {
        if !print(&line)? {
            break;
        }
    }
    Ok(())
}

fn lines(summary: &Summary, tear: Option<&Tear>, path: &str, look: Look) -> Vec<String> {
    let header = &summary.header;
    let fold = |lead: &str, words: &str| text::fold(lead, &printable(words), look.columns);
    let mut lines = vec![fold(
        "",
        &format!(
            "{path}: {} records in {:.1} s, {} mode, Linux {}, nitro-agent {}{}",
            summary.records,
            summary.seconds,
            header.mode,
            header.kernel,
            header.agent,
            if header.dry_run { ", which warmed nothing" } else { "" },
        ),
    )];
    if !header.filter.is_empty() {
        lines.push(fold("only:    ", &header.filter.join(", ")));
    }
    if header.under_way > 0 {
        let words = format!("{} loads were under way when it began", header.under_way);
        lines.push(fold("note:    ", &words));
    }
    let loss = summary.loss;
    if loss.sum() > 0 {
        let words = format!(
            "{} records that the kernel had no room for, {} beyond the rate, {} not written in time",
            loss.ring, loss.rate, loss.slow
        );
        lines.push(fold("missing: ", &words));
    }
    if let Some(tear) = tear {
        let words = format!("{}, at byte {}: all before it is shown", tear.why, tear.at);
        lines.push(fold("torn:    ", &words));
    }
    lines.push(String::new());
    if summary.rows.is_empty() {
        lines.push("no process read a file".into());
    } else {
        lines.push(table(summary, look));
    }
    if !summary.warmed.is_empty() {
        lines.push(String::new());
        lines.push("Warmed by the agent:".into());
        lines.extend(
            summary
                .warmed
                .iter()
                .map(|warmed| warmed_line(warmed, &header.roots, look)),
        );
    }
    if !summary.receipts.is_empty() {
        lines.push(String::new());
        lines.push("Loads:".into());
        for receipt in &summary.receipts {
            let pid = receipt.pids.first().copied().unwrap_or_default();
            let program = text::program(receipt.program.as_deref(), pid, usize::MAX);
            let lead = format!("  {}  ", printable(&receipt.model));
            lines.push(text::fold(
                &lead,
                &format!("{program}, {}", receipt.summary()),
                look.columns,
            ));
        }
    }
    lines
}

fn warmed_line(warmed: &Warmed, roots: &[String], look: Look) -> String {
    let name = text::shorten(&below(&warmed.file, roots), name_width(look));
    format!("  {}  {} in {} steps", printable(&name), warmed.bytes, warmed.steps)
}

fn name_width(look: Look) -> usize {
    look.columns
        .map_or(NAME, |columns| columns.saturating_sub(NUMBERS).clamp(16, NAME))
}

/// A path below the watched directory that holds it.
fn below(path: &str, roots: &[String]) -> String {
    let inside = roots
        .iter()
        .filter_map(|root| path.strip_prefix(root.as_str())?.strip_prefix('/'));
    inside.min_by_key(|rest| rest.len()).unwrap_or(path).to_owned()
}

fn table(summary: &Summary, look: Look) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header([
        "PROCESS", "FILE", "BYTES", "CALLS", "FAULTS", "MISSED", "BROUGHT", "USED", "ORDER", "REUSE", "FIRST", "SECS",
    ]);
    let names = name_width(look);
    for row in &summary.rows {
        table.add_row(cells(row, &summary.header.roots, names));
    }
    for column in 2..12 {
        if column != 8
            && let Some(column) = table.column_mut(column)
        {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    if let Some(first) = table.column_mut(0) {
        first.set_padding((0, 1));
    }
    table
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect::<Vec<_>>()
        .join("\n")
}

fn cells(row: &Row, roots: &[String], names: usize) -> [String; 12] {
    let none = || "-".to_owned();
    let count = |count: u64| if count == 0 { none() } else { count.to_string() };
    let about = if row.estimated { "~" } else { "" };
    let order = match row.order.word() {
        "-" => none(),
        word => format!("{word} {:.0} %", row.order.share() * 100.0),
    };
    [
        text::program(row.program.as_deref(), row.process, 24),
        printable(&text::shorten(&below(&row.file, roots), names)),
        if row.direct && row.bytes.0 == 0 {
            "O_DIRECT".into()
        } else {
            format!("{about}{}", row.bytes)
        },
        count(row.calls),
        count(row.faults),
        row.missed.map_or_else(none, |missed| missed.to_string()),
        row.brought.to_string(),
        row.readahead_used
            .map_or_else(none, |used| format!("{:.0} %", used * 100.0)),
        order,
        row.reused.map_or_else(none, |reused| reused.median.to_string()),
        row.first_byte.map_or_else(none, span),
        format!("{:.2}", row.seconds),
    ]
}

/// Seconds in the unit that fits.
fn span(seconds: f64) -> String {
    match seconds {
        seconds if seconds < 1e-3 => format!("{:.0} µs", seconds * 1e6),
        seconds if seconds < 1.0 => format!("{:.1} ms", seconds * 1e3),
        seconds => format!("{seconds:.2} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_called_as_below_the_nearest_directory() {
        let roots = ["/models".to_owned(), "/models/deep".to_owned()];
        assert_eq!(below("/models/deep/a.gguf", &roots), "a.gguf");
        assert_eq!(below("/models/a.gguf", &roots), "a.gguf");
        assert_eq!(below("/modelsa.gguf", &roots), "/modelsa.gguf");
    }

    #[test]
    fn short_times_have_small_units() {
        assert_eq!(span(0.000_012), "12 µs");
        assert_eq!(span(0.0123), "12.3 ms");
        assert_eq!(span(2.5), "2.50 s");
    }
}
