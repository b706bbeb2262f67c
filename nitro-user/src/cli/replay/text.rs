//! What a replay came to, as a table and as JSON.

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use crate::{
    replay::compare::{Help, Outcome, World},
    units::{ByteCount, Rate, printable},
};

/// A replay.
#[derive(Debug, Serialize)]
pub struct Replayed {
    /// Processes that read.
    pub processes: usize,
    /// Files of the models that they read.
    pub files: usize,
    /// The agent warmed something in the recording.
    pub was_helped: bool,
    /// Seconds between the first and the last access that were told of, summed over processes.
    pub recorded_seconds: f64,
    /// The same of the recorded world in the simulator.
    pub simulated_seconds: f64,
    /// The device of the recording, where it was named.
    pub recorded_on: Option<String>,
    /// Bytes a second that it gave in its best moment.
    pub best_rate: Option<f64>,
    /// Files that were read past the page cache and are left out.
    pub direct_left_out: usize,
    /// Records that are missing.
    pub lost: u64,
    /// Why the trace ends before its end.
    pub torn: Option<String>,
    /// World by world, policy by policy.
    pub rows: Vec<Row>,
}

/// One world under one policy.
#[derive(Debug, Serialize)]
pub struct Row {
    /// Where the files are.
    pub device: String,
    /// Page cache; without it everything fits.
    pub memory: Option<ByteCount>,
    /// The agent's ceiling, where there is one.
    pub ceiling: Option<ByteCount>,
    /// Who helps.
    pub policy: Help,
    /// Seconds saved against nobody's help, where that was asked for.
    pub saved: Option<f64>,
    /// The share of what was needed that help had brought in, 0–1.
    pub coverage: Option<f64>,
    /// What came of it.
    #[serde(flatten)]
    pub outcome: Outcome,
}

impl Row {
    /// `alone` are the seconds without help.
    pub fn new(world: World, policy: Help, outcome: Outcome, alone: Option<f64>) -> Self {
        Self {
            device: world.device.to_string(),
            memory: world.memory,
            ceiling: (policy == Help::Agent).then_some(world.ceiling),
            policy,
            saved: alone
                .filter(|_| policy != Help::None)
                .map(|alone| alone - outcome.seconds),
            coverage: outcome.coverage().filter(|_| policy != Help::None),
            outcome,
        }
    }
}

/// For people.
pub fn text(replayed: &Replayed) -> String {
    let mut lines = vec![
        recorded(replayed),
        device(replayed),
        String::new(),
        table(&replayed.rows),
    ];
    lines.extend(notes(replayed));
    lines.join("\n")
}

fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

fn recorded(replayed: &Replayed) -> String {
    let simulated = if replayed.recorded_seconds > 0.0 {
        let off = 100.0 * (replayed.simulated_seconds / replayed.recorded_seconds - 1.0);
        format!("; in the simulator {:.2} s ({off:+.1} %)", replayed.simulated_seconds)
    } else {
        String::new()
    };
    format!(
        "recorded: {} read {} {} in {:.2} s{simulated}",
        count(replayed.processes, "process", "processes"),
        count(replayed.files, "file", "files"),
        if replayed.was_helped {
            "with the agent"
        } else {
            "without help"
        },
        replayed.recorded_seconds,
    )
}

fn device(replayed: &Replayed) -> String {
    match (&replayed.recorded_on, replayed.best_rate) {
        (Some(device), _) => format!("recorded device: {device}, as told"),
        (None, Some(rate)) => format!(
            "recorded device: {}, its best quarter of a second; if it can do more, or fewer requests, say so with --recorded-on",
            Rate(rate)
        ),
        (None, None) => {
            "recorded device: hardly anything was read from it; nobody is believed to have waited for it".into()
        }
    }
}

fn table(rows: &[Row]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED).set_header([
        "device", "memory", "ceiling", "policy", "time", "saved", "coverage", "wasted", "read", "requests",
    ]);
    for column in table.column_iter_mut().skip(4) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut before = None;
    for row in rows {
        let world = (&row.device, row.memory);
        let is_same = before.replace(world) == Some(world);
        let once = |text: String| if is_same { String::new() } else { text };
        let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".into());
        table.add_row([
            once(row.device.clone()),
            once(
                row.memory
                    .map_or_else(|| "all fits".into(), |memory| memory.to_string()),
            ),
            or_none(row.ceiling.map(|ceiling| ceiling.to_string())),
            row.policy.name().to_owned(),
            format!("{:.2} s", row.outcome.seconds),
            or_none(row.saved.map(|saved| saved_text(saved, row.outcome.seconds))),
            or_none(row.coverage.map(|share| format!("{:.1} %", 100.0 * share))),
            or_none((row.policy != Help::None).then(|| row.outcome.wasted.to_string())),
            row.outcome.read.to_string(),
            row.outcome.requests.to_string(),
        ]);
    }
    table.to_string()
}

/// `14.20 s, 7.70×`.
fn saved_text(saved: f64, seconds: f64) -> String {
    if seconds > 0.0 {
        format!("{saved:.2} s, {:.2}×", (saved + seconds) / seconds)
    } else {
        format!("{saved:.2} s")
    }
}

fn notes(replayed: &Replayed) -> Vec<String> {
    let mut notes = Vec::new();
    if replayed.direct_left_out > 0 {
        notes.push(format!(
            "{} read past the page cache (O_DIRECT), and how is not in the trace: record with --syscalls",
            count(replayed.direct_left_out, "file was", "files were")
        ));
    }
    if replayed.lost > 0 {
        notes.push(format!("{} records are missing from the trace", replayed.lost));
    }
    if let Some(why) = &replayed.torn {
        notes.push(format!(
            "the trace is torn ({}): what came after that is left out",
            printable(why)
        ));
    }
    let broken = replayed.rows.iter().flat_map(|row| &row.outcome.broken);
    notes.extend(broken.map(|rule| format!("a fault in the agent, please report it: {rule}")));
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_saved_is_told_in_seconds_and_times() {
        assert_eq!(saved_text(14.0, 2.0), "14.00 s, 8.00×");
        assert_eq!(saved_text(0.0, 0.0), "0.00 s");
    }
}
