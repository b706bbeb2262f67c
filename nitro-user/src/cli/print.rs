//! Lines for people, or one JSON object per line.

use std::io::{IsTerminal, Write};

use serde_json::json;

use crate::{
    daemon::{Audience, Started},
    engine::happening::{Happening, What},
    units::ByteCount,
};

/// Prints to standard output; a closed pipe ends nothing.
#[derive(Debug)]
pub struct Printer {
    json: bool,
    quiet: bool,
    color: bool,
}

impl Printer {
    /// A printer; colour only on a terminal, and not where NO_COLOR is set.
    pub fn new(json: bool, quiet: bool) -> Self {
        let color = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { json, quiet, color }
    }

    fn line(&self, line: &str) {
        if self.quiet {
            return;
        }
        let mut out = std::io::stdout().lock();
        // Nobody reads: the agent's work goes on.
        let _ = writeln!(out, "{line}").and_then(|()| out.flush());
    }
}

impl Audience for Printer {
    fn started(&mut self, started: &Started) {
        if self.json {
            return self.line(&json!({ "event": "ready", "started": started }).to_string());
        }
        let modes = &started.attachment;
        self.line(&format!("nitro-agent {} on Linux {}", started.version, started.kernel));
        self.line(&format!("events    {}: {}", modes.mode, modes.why));
        for program in modes.programs.iter().filter(|program| program.refused.is_some()) {
            self.line(&format!(
                "          without {}: {}",
                program.program,
                program.refused.as_deref().unwrap_or_default()
            ));
        }
        for root in &started.roots {
            self.line(&format!("watching  {}", root.display()));
        }
        for line in &started.scan {
            self.line(&format!("          {line}"));
        }
        let dry = if started.dry_run {
            ", dry run: nothing is warmed"
        } else {
            ""
        };
        self.line(&format!("ceiling   {}{dry}", started.ceiling));
        self.line(&format!("ready     in {:.2} s", started.seconds));
    }

    fn happening(&mut self, happening: &Happening) {
        if self.json {
            let time = std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .map_or(0.0, |since| since.as_secs_f64());
            return self.line(&json!({ "event": "happening", "time": time, "happening": happening }).to_string());
        }
        let (bold, plain) = if self.color {
            let code = match happening.what {
                What::Load => "\u{1b}[1;36m",
                What::Warm => "\u{1b}[1;33m",
                What::Skip => "\u{1b}[1;35m",
                What::Done => "\u{1b}[1;32m",
            };
            (code, "\u{1b}[0m")
        } else {
            ("", "")
        };
        let program = happening.program.as_deref().unwrap_or("?");
        self.line(&format!(
            "{} {bold}{}{plain} {:<32} {:>9}  {:>3} %  {program}[{}]  {}",
            clock(),
            happening.what.name(),
            printable(&happening.model),
            ByteCount(happening.bytes.0).to_string(),
            happening.ceiling_percent,
            happening.process,
            happening.note,
        ));
    }
}

/// Names come from the disk: control characters would reach the terminal.
pub fn printable(name: &str) -> String {
    name.chars()
        .map(|letter| if letter.is_control() { '?' } else { letter })
        .collect()
}

/// Local time of day.
fn clock() -> String {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    crate::sys::clock::local_time_of_day(now)
}
