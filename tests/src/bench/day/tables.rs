//! The tables of the day, and its targets.

use comfy_table::{CellAlignment, Table};
use nitro_user::units::ByteCount;

use super::{
    super::{Check, verdict},
    definition::{Definition, Set},
    record::Cold,
    score::{Range, SPARED, Score, Seconds, Total},
    world::Contender,
};

/// A second identical load is covered so far.
const COVERAGE: f64 = 0.95;
/// So much of what is brought in for it may be wasted.
const SECOND_WASTE: f64 = 0.05;
/// The same of all that is brought in.
pub const WASTE: f64 = 0.10;

/// Those who are to be surpassed.
const SIMPLE: [Contender; 3] = [Contender::Siblings, Contender::Sequence, Contender::WholeFile];

/// How to read the tables.
pub fn notes(scores: &[Score], scenarios: &[Definition]) -> Vec<String> {
    let days = |set: Set| {
        let of_set = scores
            .iter()
            .filter(|score| score.set == set && score.contender == Contender::None);
        of_set.count()
    };
    let names = |set: Set| {
        let of_set = scenarios.iter().filter(|scenario| scenario.set == set);
        of_set
            .map(|scenario| scenario.name.as_str())
            .collect::<Vec<_>>()
            .join(", ")
    };
    vec![
        format!(
            "Simulated: {} days of {} (tuning), {} days of {} (held out).",
            days(Set::Tuning),
            names(Set::Tuning),
            days(Set::HeldOut),
            names(Set::HeldOut)
        ),
        "saved: time that readers took less than without help. wasted: bytes brought in that nobody read before they were evicted or the day ended. Brackets: median of the days, and where \
         90 of 100 lie. s/MiB: seconds saved for each MiB wasted."
            .into(),
        format!(
            "A ratio to nothing is none: {} count as wasted in each day beside those that were.",
            ByteCount(SPARED as u64)
        ),
        "second: the second time that a program loads a model in the same way, from cold. there: the share of what it read that was resident before, or had been brought in when it came to \
         its 2 MiB step; covered: that, and what was on its way when it came; wasted: of what was brought in for it. Slowest load: of each day the one that help made slowest, and of 100 days \
         the fifth worst."
            .into(),
    ]
}

/// What is checked, and the tables.
pub fn of(scores: &[Score]) -> (Vec<Check>, Vec<Table>) {
    let (mut checks, mut tables) = (Vec::new(), Vec::new());
    for set in Set::ALL {
        let of_set: Vec<&Score> = scores.iter().filter(|score| score.set == set).collect();
        if of_set.is_empty() {
            continue;
        }
        let totals: Vec<(Contender, Total)> = Contender::ALL
            .into_iter()
            .map(|contender| (contender, total(&of_set, contender)))
            .collect();
        checks.extend(judge(set, &totals));
        tables.push(by_contender(set, &totals));
        tables.push(of_seconds(set, &of_set, &totals));
        tables.push(by_scenario(set, &of_set));
    }
    tables.push(checked(&checks));
    (checks, tables)
}

fn total(scores: &[&Score], contender: Contender) -> Total {
    let of_it: Vec<&Score> = scores
        .iter()
        .filter(|score| score.contender == contender)
        .copied()
        .collect();
    Total::of(&of_it)
}

fn judge(set: Set, totals: &[(Contender, Total)]) -> Vec<Check> {
    let of = |contender: Contender| {
        totals
            .iter()
            .find(|(other, _)| *other == contender)
            .map(|(_, total)| total)
    };
    let Some(agent) = of(Contender::Agent) else {
        return Vec::new();
    };
    let what = |what: &str| format!("{}: {what}", set.name());
    let second = agent.second;
    let at_least = |name: &str, share: f64, target: f64| {
        Check::new(
            what(name),
            percent(share),
            format!(">= {}", percent(target)),
            share >= target,
        )
    };
    let at_most = |name: &str, share: f64, target: f64| {
        Check::new(
            what(name),
            percent(share),
            format!("<= {}", percent(target)),
            share <= target,
        )
    };
    let mut checks = Vec::new();
    if second.count > 0 {
        checks.push(at_least("second load, there in time", second.in_time, COVERAGE));
        checks.push(at_least("second load, covered", second.covered, COVERAGE));
        checks.push(at_most("second load, wasted", second.wasted, SECOND_WASTE));
    }
    checks.push(at_most("wasted", agent.waste(), WASTE));
    for contender in SIMPLE {
        let Some(other) = of(contender) else { continue };
        checks.push(Check::new(
            what(&format!("s/MiB against {}", contender.name())),
            format!("{:.3}", agent.worth()),
            format!("> {:.3}", other.worth()),
            agent.worth() > other.worth(),
        ));
    }
    checks
}

fn checked(checks: &[Check]) -> Table {
    let mut table = Table::new();
    table.set_header(["target", "measured", "to be", "verdict"]);
    align(&mut table, 1);
    for check in checks {
        table.add_row([check.what.as_str(), &check.measured, &check.target, verdict(check.ok)]);
    }
    table
}

/// Time and bytes.
fn by_contender(set: Set, totals: &[(Contender, Total)]) -> Table {
    let mut table = Table::new();
    table.set_header([
        set.name(),
        "waiting",
        "saved",
        "of it",
        "of each day",
        "slowest load",
        "brought in",
        "wasted",
        "of it",
        "of each day",
        "s/MiB",
        "of each day",
    ]);
    align(&mut table, 1);
    for (contender, total) in totals {
        let or_dash = |text: String| {
            if *contender == Contender::None {
                "-".into()
            } else {
                text
            }
        };
        table.add_row([
            contender.name().to_owned(),
            format!("{:.0} s", total.seconds),
            or_dash(format!("{:.0} s", total.saved)),
            or_dash(percent(total.saved / (total.seconds + total.saved))),
            or_dash(range(total.each_saved, percent)),
            or_dash(format!("{:.2} x", total.each_worst.high)),
            or_dash(ByteCount(total.warmed).to_string()),
            or_dash(ByteCount(total.wasted).to_string()),
            or_dash(percent(total.waste())),
            or_dash(range(total.each_wasted, percent)),
            or_dash(format!("{:.3}", total.worth())),
            or_dash(range(total.each_worth, |value| format!("{value:.2}"))),
        ]);
    }
    table
}

const SECOND: [&str; 8] = [
    "second loads",
    "resident",
    "there",
    "of each",
    "covered",
    "of each",
    "wasted",
    "of each",
];

fn second(seconds: Seconds) -> [String; 8] {
    [
        seconds.count.to_string(),
        percent(seconds.resident),
        percent(seconds.in_time),
        range(seconds.each_in_time, percent),
        percent(seconds.covered),
        range(seconds.each_covered, percent),
        percent(seconds.wasted),
        range(seconds.each_wasted, percent),
    ]
}

/// Second loads by contender; the agent's also by when they were made cold.
fn of_seconds(set: Set, scores: &[&Score], totals: &[(Contender, Total)]) -> Table {
    let mut table = Table::new();
    table.set_header([set.name()].into_iter().chain(SECOND));
    align(&mut table, 1);
    for (contender, total) in totals {
        table.add_row([contender.name().to_owned()].into_iter().chain(second(total.second)));
        if *contender == Contender::Agent {
            for cold in [Cold::Early, Cold::Late] {
                let of_agent = scores.iter().filter(|score| score.contender == Contender::Agent);
                let seconds = of_agent.flat_map(|score| &score.seconds_loads);
                let name = format!("  cold {}", cold.name());
                let of_it = Seconds::of(seconds.filter(|one| one.cold == cold));
                table.add_row([name].into_iter().chain(second(of_it)));
            }
        }
    }
    table
}

/// The agent in each scenario.
fn by_scenario(set: Set, scores: &[&Score]) -> Table {
    let mut table = Table::new();
    table.set_header([
        &format!("agent, {}", set.name()),
        "days",
        "saved",
        "of each day",
        "slowest load",
        "wasted",
        "of each day",
        "s/MiB",
        "best of the simple",
        "second loads",
        "there",
        "covered",
        "wasted",
    ]);
    align(&mut table, 1);
    let mut names: Vec<&str> = scores.iter().map(|score| score.scenario.as_str()).collect();
    names.dedup();
    for name in names {
        let of_it: Vec<&Score> = scores.iter().filter(|score| score.scenario == name).copied().collect();
        let agent = total(&of_it, Contender::Agent);
        let best = SIMPLE
            .into_iter()
            .map(|contender| (total(&of_it, contender).worth(), contender.name()))
            .max_by(|one, other| one.0.total_cmp(&other.0));
        let second = agent.second;
        let or_dash = |text: String| if second.count > 0 { text } else { "-".into() };
        table.add_row([
            name.to_owned(),
            agent.days.to_string(),
            percent(agent.saved / (agent.seconds + agent.saved)),
            range(agent.each_saved, percent),
            format!("{:.2} x", agent.each_worst.high),
            percent(agent.waste()),
            range(agent.each_wasted, percent),
            format!("{:.3}", agent.worth()),
            best.map_or_else(String::new, |(worth, name)| format!("{worth:.3} ({name})")),
            second.count.to_string(),
            or_dash(percent(second.in_time)),
            or_dash(percent(second.covered)),
            or_dash(percent(second.wasted)),
        ]);
    }
    table
}

/// Figures to the right, from a column on.
pub fn align(table: &mut Table, from: usize) {
    for column in table.column_iter_mut().skip(from) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}

/// For people.
pub fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

fn range(range: Range, text: impl Fn(f64) -> String) -> String {
    format!("{} [{} .. {}]", text(range.middle), text(range.low), text(range.high))
}
