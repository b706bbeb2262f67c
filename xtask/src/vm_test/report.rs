//! What a machine prints, line by line, and what comes of it. A machine may print anything: what is not understood is no result, and what is missing is told.

use std::collections::VecDeque;

/// Begins the lines that the scenarios print; the same in `tests/src/guest`.
const MARK: &str = "vm-test:";

/// The scenario that the machine itself is.
const MACHINE: &str = "machine";

/// The last lines that are kept for a machine that ends badly.
const KEPT: usize = 30;
/// Characters of a name and of the words beside it: more is cut off.
const NAME: usize = 60;
const WORDS: usize = 600;
/// Scenarios of one machine; there are some thirty.
const MOST: usize = 500;

/// How a scenario ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It held.
    Ok,
    /// It did not.
    Failed,
}

impl Verdict {
    /// In the table, and in the lines.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "FAILED",
        }
    }

    fn of(name: &str) -> Option<Self> {
        [Self::Ok, Self::Failed]
            .into_iter()
            .find(|verdict| verdict.name() == name)
    }
}

/// A scenario.
#[derive(Debug, PartialEq, Eq)]
pub struct Scenario {
    /// Its name.
    pub name: String,
    /// How it ended.
    pub verdict: Verdict,
    /// What there is to say.
    pub words: String,
}

impl Scenario {
    /// There is no machine that could tell of any.
    pub fn without_machine(why: &str) -> Self {
        Self {
            name: MACHINE.into(),
            verdict: Verdict::Failed,
            words: printable(why, WORDS),
        }
    }
}

/// What was printed so far.
#[derive(Default)]
pub struct Report {
    scenarios: Vec<Scenario>,
    last: VecDeque<String>,
    /// How many scenarios it says there were.
    ended: Option<usize>,
}

impl Report {
    /// Takes a line.
    pub fn take(&mut self, line: &str) {
        let Some((_, said)) = line.split_once(MARK) else {
            if self.last.len() == KEPT {
                self.last.pop_front();
            }
            self.last.push_back(printable(line, WORDS));
            return;
        };
        if let Some(count) = said.trim().strip_prefix("end ") {
            self.ended = count.parse().ok();
        } else if self.scenarios.len() < MOST {
            self.scenarios.extend(parse(said.trim()));
        }
    }

    /// All scenarios. One more has failed unless the machine said that it was done, and how many there were.
    pub fn finish(mut self, in_time: bool) -> Vec<Scenario> {
        let count = self.scenarios.len();
        let trouble = match self.ended {
            Some(told) if told == count && count > 0 => return self.scenarios,
            Some(told) => format!("it told of {told} scenarios, and {count} were understood"),
            None if in_time => "it ended early".to_owned(),
            None => "it did not end in time".to_owned(),
        };
        let last: Vec<String> = self.last.into();
        self.scenarios.push(Scenario {
            name: MACHINE.into(),
            verdict: Verdict::Failed,
            words: format!("{trouble}; its last lines:\n{}", last.join("\n")),
        });
        self.scenarios
    }
}

/// `NAME | VERDICT | words`.
fn parse(line: &str) -> Option<Scenario> {
    let mut fields = line.splitn(3, " | ");
    let name = printable(fields.next()?, NAME);
    let verdict = Verdict::of(fields.next()?)?;
    let words = printable(fields.next().unwrap_or_default(), WORDS);
    (!name.is_empty()).then_some(Scenario { name, verdict, words })
}

/// What a terminal takes for commands becomes a dot.
fn printable(text: &str, most: usize) -> String {
    let plain = |character: char| if character.is_control() { '·' } else { character };
    text.chars().take(most).map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finished(lines: &[&str]) -> Vec<Scenario> {
        let mut report = Report::default();
        lines.iter().for_each(|line| report.take(line));
        report.finish(true)
    }

    fn is_machine(scenario: &Scenario, words: &str) -> bool {
        scenario.name == "machine" && scenario.verdict == Verdict::Failed && scenario.words.contains(words)
    }

    #[test]
    fn scenarios_are_taken_from_among_other_lines() {
        let all = finished(&[
            "[    0.1] a kernel",
            "vm-test: auto | ok | fentry: no tracepoints | really",
            "[    2.0] words vm-test: reads | FAILED | nothing was seen",
            "vm-test: MGLRU | FAILED | no lru_gen",
            "vm-test: end 3",
        ]);
        let told: Vec<_> = all.iter().map(|one| (one.name.as_str(), one.verdict)).collect();
        let expected = [
            ("auto", Verdict::Ok),
            ("reads", Verdict::Failed),
            ("MGLRU", Verdict::Failed),
        ];
        assert_eq!(told, expected);
        assert_eq!(all[0].words, "fentry: no tracepoints | really");
    }

    #[test]
    fn a_machine_that_does_not_say_that_it_is_done_has_failed() {
        let all = finished(&["vm-test: auto | ok | x", "Kernel panic"]);
        assert_eq!(all.len(), 2);
        assert!(
            is_machine(&all[1], "ended early") && is_machine(&all[1], "Kernel panic"),
            "{all:?}"
        );
        let mut late = Report::default();
        late.take("vm-test: auto | ok | x");
        assert!(is_machine(&late.finish(false)[1], "in time"));
        assert!(
            is_machine(&finished(&["vm-test: end 0"])[0], "0 were understood"),
            "none is no success"
        );
    }

    #[test]
    fn a_line_that_was_lost_or_garbled_is_missed() {
        for garbled in [
            "vm-test: reads",
            "vm-test: reads | fine | x",
            "vm-test:  | ok | x",
            "vm-tes[    3.1] x",
        ] {
            let all = finished(&["vm-test: auto | ok | x", garbled, "vm-test: end 2"]);
            assert!(
                is_machine(&all[1], "told of 2 scenarios, and 1 were"),
                "{garbled}: {all:?}"
            );
        }
        let end = finished(&["vm-test: auto | ok | x", "vm-test: end many"]);
        assert!(is_machine(&end[1], "ended early"));
    }

    #[test]
    fn nothing_reaches_the_terminal_but_text_and_not_without_a_bound() {
        let all = finished(&["vm-test: a\u{1b}[2Jb | ok | c\u{7}\rd\u{9b}e", "vm-test: end 1"]);
        assert_eq!((all[0].name.as_str(), all[0].words.as_str()), ("a·[2Jb", "c··d·e"));
        let long = format!("vm-test: x | ok | {}", "y".repeat(100_000));
        let mut report = Report::default();
        for _ in 0..2000 {
            report.take(&long);
            report.take(&"z".repeat(10_000));
        }
        assert_eq!(report.scenarios.len(), MOST);
        assert!(report.scenarios.iter().all(|one| one.words.len() == WORDS));
        assert_eq!(report.last.len(), KEPT);
        assert!(report.last.iter().all(|line| line.len() == WORDS));
    }
}
