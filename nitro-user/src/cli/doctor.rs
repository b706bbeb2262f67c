//! `nitro-agent doctor`: what this machine has for the agent and what it lacks.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use clap::Args;

use super::{
    ask::{Socket, print},
    text::{self, Look},
    watch::is_auto,
};
use crate::{
    config::resolve_home,
    control::{
        client::{Client, ClientError},
        protocol::{Reply, Request},
    },
    doctor::{
        self, Outcome, Question, Report, Running,
        finding::{Finding, State},
    },
    observe::status::Status,
};

/// Columns of the state, and of a name, before what was found.
const STATE: usize = 10;
const NAME: usize = 26;

/// Directories of a running agent that are looked at.
const MOST_DIRECTORIES: usize = 256;

/// Columns of `lost` and `remedy`.
const LABEL: usize = 8;

/// Flags of `doctor`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sudo nitro-agent doctor
  sudo nitro-agent doctor --watch ~/.ollama/models
  sudo nitro-agent doctor --json | jq '.findings[] | select(.state == \"missing\")'

Exit code: 0 when nothing is lost, 1 when the agent works with less than there could be, 2 when it cannot work.")]
pub struct Options {
    /// One JSON object.
    #[arg(long)]
    json: bool,
    /// Directory whose file system and device are looked at; repeatable. `auto` looks for those with models. Without it, those of the agent that runs, or else those
    /// that `auto` finds.
    #[arg(long, value_name = "DIR")]
    watch: Vec<PathBuf>,
    #[command(flatten)]
    socket: Socket,
}

/// Looks and prints.
///
/// # Errors
/// Standard output cannot be written to.
pub fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let named = options.watch.iter().filter(|path| !is_auto(path));
    let question = Question {
        watch: named.map(|path| absolute(&resolve_home(path))).collect(),
        auto: options.watch.iter().any(|path| is_auto(path)),
        // Before rights are given up: the socket may be another user's.
        agent: Some(agent(&options.socket)?),
    };
    let report = doctor::examine(question);
    if options.json {
        print(&serde_json::to_string(&report)?)?;
    } else {
        for line in lines(&report, Look::of(&std::io::stdout())) {
            if !print(&line)? {
                break;
            }
        }
    }
    Ok(ExitCode::from(report.verdict.exit_code))
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// What an agent that runs says of itself, or why none answers. That is no error: most machines are looked at before there is one.
fn agent(socket: &Socket) -> anyhow::Result<Result<Running, String>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot start the event loop")?;
    let asked: Result<Option<Box<Status>>, ClientError> = runtime.block_on(async {
        let mut client = Client::connect(&socket.socket).await?;
        client.ask(&Request::Status).await?;
        Ok(match client.next().await? {
            Reply::Status(status) => Some(status),
            _ => None,
        })
    });
    Ok(match asked {
        Ok(Some(status)) => Ok(running(*status)),
        Ok(None) => Err("it stops right now".to_owned()),
        Err(ClientError::NoAgent { path, .. }) => Err(format!("no agent answers at {path}")),
        Err(error) => Err(error.to_string()),
    })
}

fn running(status: Status) -> Running {
    Running {
        version: status.version,
        pid: status.pid,
        mode: status.mode,
        directories: status
            .directories
            .into_iter()
            .map(|directory| directory.path.into())
            .take(MOST_DIRECTORIES)
            .collect(),
    }
}

/// Subject by subject; the verdict comes last.
fn lines(report: &Report, look: Look) -> Vec<String> {
    let mut lines = vec![format!("nitro-agent {} on Linux {}", report.version, report.kernel)];
    let mut subject = None;
    for finding in &report.findings {
        if subject != Some(finding.subject) {
            subject = Some(finding.subject);
            lines.push(String::new());
            lines.push(look.paint(&finding.subject.to_string(), "1"));
        }
        lines.extend(rows(finding, look));
    }
    let (word, color) = match report.verdict.outcome {
        Outcome::Ok => ("ok", color_of(State::Ok)),
        Outcome::Degraded => ("degraded", color_of(State::Degraded)),
        Outcome::CannotWork => ("cannot work", color_of(State::Missing)),
    };
    lines.push(String::new());
    let verdict = text::fold(&format!("{word}: "), &report.verdict.words, look.columns);
    lines.push(verdict.replacen(word, &look.paint(word, color), 1));
    lines
}

const fn color_of(state: State) -> &'static str {
    match state {
        State::Ok => "32",
        State::Degraded => "1;33",
        State::Missing => "1;31",
        State::Info => "36",
    }
}

/// A finding: state, name, what was found; below it, what is lost and what to do.
fn rows(finding: &Finding, look: Look) -> Vec<String> {
    let state = finding.state.to_string();
    // A path has no bound: what is longer has its line for itself.
    let below = format!("  {}", " ".repeat(STATE + NAME));
    let lead = format!("  {}{}", text::pad(&state, STATE), text::pad(&finding.name, NAME));
    let mut rows = if text::width(&finding.name) < NAME {
        vec![text::fold(&lead, &finding.value, look.columns)]
    } else {
        vec![
            lead.trim_end().to_owned(),
            text::fold(&below, &finding.value, look.columns),
        ]
    };
    if let Some(first) = rows.first_mut() {
        *first = first.replacen(&state, &look.paint(&state, color_of(finding.state)), 1);
    }
    let indent = " ".repeat(2 + STATE);
    for (label, text) in [("lost", &finding.lost), ("remedy", &finding.remedy)] {
        if let Some(text) = text {
            let lead = format!("{indent}  {}", text::pad(label, LABEL));
            rows.push(text::fold(&lead, text, look.columns));
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{Verdict, finding::Subject};

    fn report() -> Report {
        let findings = vec![
            Subject::Kernel.ok("release", "6.18.44"),
            Subject::Devices.degraded(
                "vda read_ahead_kb",
                "8192 KiB, more than 1024 KiB",
                "what is warmed comes in as single pages, and takes more requests",
                "echo 1024 > /sys/dev/block/254:0/queue/read_ahead_kb",
            ),
            Subject::Devices.info("/a/path/that/is/longer/than/its/column\u{1b}[2J", "ext4"),
        ];
        Report {
            version: "0.1.0",
            kernel: "6.18.44".into(),
            mode: None,
            verdict: Verdict {
                outcome: Outcome::Degraded,
                words: "the agent works here, with less than there could be: vda read_ahead_kb (devices)".into(),
                exit_code: 1,
            },
            findings,
        }
    }

    #[test]
    fn a_report_is_told_subject_by_subject() {
        let look = Look {
            columns: Some(80),
            color: false,
        };
        let text = lines(&report(), look).join("\n");
        for line in text.lines() {
            assert!(text::width(line) <= 80, "{line:?}");
            assert!(!line.chars().any(char::is_control), "{line:?}");
        }
        assert!(
            text.contains("\n\ndevices\n  degraded  vda read_ahead_kb         8192 KiB"),
            "{text}"
        );
        assert!(text.contains("\n              lost    what is warmed"), "{text}");
        assert!(text.contains("\n              remedy  echo 1024"), "{text}");
        assert!(
            text.lines().last().unwrap().starts_with("          "),
            "folded below itself: {text}"
        );
        assert!(text.contains("\ndegraded: the agent works here"), "{text}");
    }

    #[test]
    fn colour_changes_no_letter() {
        let look = |color| Look { columns: None, color };
        let plain = lines(&report(), look(false)).join("\n");
        let painted = lines(&report(), look(true)).join("\n");
        assert_ne!(plain, painted);
        let mut bare = painted.replace("\u{1b}[0m", "");
        for color in ["1", "32", "1;33", "1;31", "36"] {
            bare = bare.replace(&format!("\u{1b}[{color}m"), "");
        }
        assert_eq!(bare, plain);
    }
}
