//! `nitro-agent status`: what the running agent does now.

use anyhow::bail;
use clap::Args;
use comfy_table::{CellAlignment, Table, presets};

use super::{
    ask::{self, Socket, print},
    directories,
    print::{found, labelled},
    text::{self, Look},
};
use crate::{
    control::{
        client::Client,
        protocol::{Reply, Request},
    },
    observe::status::{DeviceStatus, KeptStatus, LoadStatus, RightsStatus, Status},
    units::{ByteCount, printable},
};

/// Columns of a model's name on a terminal.
const MODEL: usize = 32;

/// Models of which it is said how much of them is held.
const HOLDINGS: usize = 8;

/// Columns of a program's name on a terminal.
const PROGRAM: usize = 20;

/// Flags of `status`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sudo nitro-agent status
  sudo nitro-agent status --json | jq .counters
  nitro-agent status --socket /run/user/1000/nitro-agent.sock")]
pub struct Options {
    /// One JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    socket: Socket,
}

/// Asks and prints.
///
/// # Errors
/// No agent, no permission.
pub fn run(options: &Options) -> anyhow::Result<()> {
    ask::run(async {
        let mut client = Client::connect(&options.socket.socket).await?;
        client.ask(&Request::Status).await?;
        let Reply::Status(status) = client.next().await? else {
            bail!("the agent stopped before it answered");
        };
        if options.json {
            print(&serde_json::to_string(&*status)?)?;
            return Ok(());
        }
        for line in lines(&status, Look::of(&std::io::stdout())) {
            if !print(&line)? {
                break;
            }
        }
        Ok(())
    })
}

fn lines(status: &Status, look: Look) -> Vec<String> {
    let mut lines = vec![format!(
        "nitro-agent {} on Linux {}, pid {}, up {}",
        printable(&status.version),
        printable(&status.kernel),
        status.pid,
        text::duration(status.uptime_seconds)
    )];
    let mut say = |label: &str, what: &str| lines.push(labelled(label, what, look.columns));
    say("events", &format!("{}: {}", status.mode, status.mode_reason));
    for program in &status.programs {
        let attached = match (&program.refused, program.recursion_misses) {
            (Some(reason), _) => format!("{} not attached: {reason}", program.program),
            (None, Some(misses)) if misses > 0 => format!("{} attached, {misses} recursion misses", program.program),
            (None, _) => format!("{} attached", program.program),
        };
        say("", &attached);
    }
    for (label, line) in directories::lines(&status.roots, &status.directories, status.auto.as_ref()) {
        say(label, &line);
    }
    say("", &found(&status.models, status.files, status.bytes));
    say(
        "",
        &format!(
            "{} of at most {} files watched",
            status.watched, status.watched_capacity
        ),
    );
    for (number, path) in status.unwatched.iter().enumerate() {
        say(if number == 0 { "unwatched" } else { "" }, path);
    }
    say(
        "memory",
        &format!(
            "{} held, {} % of the ceiling of {}",
            status.held, status.held_percent, status.ceiling
        ),
    );
    for (number, holding) in status.holdings.iter().take(HOLDINGS).enumerate() {
        let mut what = format!(
            "{} of {} for {}",
            holding.bytes,
            printable(&holding.model),
            text::program(holding.program.as_deref(), holding.pid, usize::MAX)
        );
        if let Some(group) = &holding.charged_to {
            what.push_str(&format!(", charged to {}", printable(group)));
        }
        say(if number == 0 { "held" } else { "" }, &what);
    }
    if status.holdings.len() > HOLDINGS {
        say(
            "",
            &format!("and of {} more: see --json", status.holdings.len() - HOLDINGS),
        );
    }
    if status.pin > ByteCount(0) {
        say("pinned", &format!("{} of at most {}", status.pinned, status.pin));
    }
    for (number, kept) in status.kept.iter().take(HOLDINGS).enumerate() {
        say(if number == 0 { "used" } else { "" }, &used(kept));
    }
    if status.kept.len() > HOLDINGS {
        say(
            "",
            &format!("and {} more models: see --json", status.kept.len() - HOLDINGS),
        );
    }
    let ahead = &status.foresight;
    if ahead.warmed > ByteCount(0) {
        let came = format!("{} brought in ahead, {} met by a load", ahead.warmed, ahead.met);
        say("expected", &format!("{came}, {} in vain", ahead.in_vain));
    }
    if let Some(pressure) = &status.pressure {
        say("pressure", pressure);
    }
    if status.on_battery {
        say("battery", "only readers that were seen to read are helped");
    }
    if status.dry_run {
        say("dry run", "nothing is warmed");
    }
    if status.paused {
        let left = status.paused_seconds.map_or_else(
            || "until `nitro-agent resume`".to_owned(),
            |seconds| format!("for {} more", text::duration(seconds)),
        );
        say("paused", &left);
    }
    say("rights", &rights(&status.rights));
    let counters = &status.counters;
    say(
        "accesses",
        &format!(
            "{} seen: {} filtered, {} coalesced, {} delivered, {} dropped",
            counters.seen, counters.filtered, counters.coalesced, counters.delivered, counters.dropped
        ),
    );
    say("", &format!("{} events received", status.ring_received));
    if let Some(misses) = status.recursion_misses {
        say("", &format!("{misses} recursion misses"));
    }
    for full in &status.full_maps {
        say("full map", &format!("{} had no room {} times", full.map, full.refused));
    }
    if status.devices.is_empty() {
        say("devices", "nothing warmed yet");
    } else {
        lines.push(String::new());
        lines.extend(devices(&status.devices));
    }
    lines.push(String::new());
    if status.loads.is_empty() {
        lines.push(labelled("loads", "none", None));
    } else {
        lines.extend(loads(&status.loads, look));
    }
    lines
}

/// `llama3:8b, 4.3 GiB: 1.84 uses, pinned, mapped by 812`.
fn used(kept: &KeptStatus) -> String {
    let mut words = format!("{}, {}: {:.2} uses", printable(&kept.model), kept.bytes, kept.heat);
    if kept.pinned >= kept.bytes && kept.pinned > ByteCount(0) {
        words.push_str(", pinned");
    } else if kept.pinned > ByteCount(0) {
        words.push_str(&format!(", {} of it pinned", kept.pinned));
    }
    if kept.asked {
        words.push_str(" by hand");
    }
    match kept.mapped_by.as_slice() {
        [] => {}
        [one] => words.push_str(&format!(", mapped by {one}")),
        [one, others @ ..] => words.push_str(&format!(", mapped by {one} and {} others", others.len())),
    }
    if kept.elsewhere {
        words.push_str(", in memory of its readers' own");
    } else if kept.evicted > ByteCount(0) {
        words.push_str(&format!(", {} evicted", kept.evicted));
    }
    words
}

/// `CAP_DAC_READ_SEARCH CAP_FOWNER; no new ones; system calls filtered`.
fn rights(rights: &RightsStatus) -> String {
    let mut words = match rights.capabilities.as_slice() {
        [] => "no capabilities".to_owned(),
        capabilities => capabilities.join(" "),
    };
    if rights.no_new_privileges {
        words.push_str("; no new ones");
    }
    if rights.system_calls_filtered {
        words.push_str("; system calls filtered");
    }
    words
}

fn devices(devices: &[DeviceStatus]) -> Vec<String> {
    let rows = devices.iter().map(|device| {
        let (major, minor) = device.number;
        vec![
            printable(device.name.as_deref().unwrap_or("-")),
            format!("{major}:{minor}"),
            device.rate.map_or("not measured".into(), |rate| rate.to_string()),
            device.in_flight.to_string(),
        ]
    });
    table(&["DEVICE", "NUMBER", "RATE", "IN FLIGHT"], 2, rows)
}

fn loads(loads: &[LoadStatus], look: Look) -> Vec<String> {
    let most = |columns| if look.columns.is_some() { columns } else { usize::MAX };
    let rows = loads.iter().map(|load| {
        vec![
            text::shorten(&printable(&load.model), most(MODEL)),
            text::program(load.program.as_deref(), load.pid, most(PROGRAM)),
            load.bytes.to_string(),
            load.window.to_string(),
            load.in_flight.to_string(),
            printable(&load.stage),
        ]
    });
    let mut lines = table(&["MODEL", "PROGRAM", "SIZE", "WINDOW", "IN FLIGHT", "STAGE"], 2, rows);
    // Below its row: a reason is longer than any column.
    for (line, load) in lines.iter_mut().skip(1).zip(loads) {
        if let Some(reason) = &load.skipped {
            line.push_str(&format!("\n  skipped: {}", printable(reason)));
        }
    }
    lines
}

/// A table without lines; the columns from `numbers` on that hold numbers are aligned to the right.
fn table(titles: &[&str], numbers: usize, rows: impl Iterator<Item = Vec<String>>) -> Vec<String> {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(titles).add_rows(rows);
    for (number, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if number >= numbers && titles.get(number).is_some_and(|title| *title != "STAGE") {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        observe::status::{CounterStatus, FullMap, ProgramStatus},
        units::{ByteCount, Rate},
    };

    fn busy() -> Status {
        let program = |refused: Option<&str>, misses| ProgramStatus {
            program: "filemap_add".into(),
            hook: "mm_filemap_add_to_page_cache".into(),
            refused: refused.map(Into::into),
            recursion_misses: misses,
        };
        Status {
            version: "0.1.0".into(),
            pid: 4711,
            mode: "page-cache".into(),
            mode_reason: "nothing is paid by other system calls".into(),
            programs: vec![program(None, Some(0)), program(Some("no such tracepoint"), None)],
            roots: vec!["/models".into(), "/evil\u{1b}[2J\nroot".into()],
            models: [("gguf".to_owned(), 2)].into(),
            files: 2,
            bytes: ByteCount(4 << 30),
            loads: vec![LoadStatus {
                model: "a-model-with-a-name-that-is-longer-than-the-column.gguf".into(),
                program: Some("llama-server".into()),
                pid: 12,
                stage: "skipped".into(),
                skipped: Some("reads here and there".into()),
                ..LoadStatus::default()
            }],
            devices: vec![DeviceStatus {
                number: (8, 16),
                name: Some("sdb".into()),
                rate: Some(Rate(125e6)),
                in_flight: ByteCount(8 << 20),
            }],
            counters: CounterStatus {
                seen: 10,
                filtered: 4,
                coalesced: 3,
                delivered: 3,
                ..CounterStatus::default()
            },
            full_maps: vec![FullMap {
                map: "CURSORS".into(),
                refused: 3,
            }],
            ..Status::default()
        }
    }

    #[test]
    fn a_status_fits_a_hundred_columns_and_controls_no_terminal() {
        let look = Look {
            columns: Some(100),
            color: false,
        };
        let lines = lines(&busy(), look);
        for line in lines.iter().flat_map(|line| line.lines()) {
            assert!(text::width(line) <= 100, "{line:?}");
            assert!(!line.chars().any(char::is_control), "{line:?}");
        }
        assert!(lines.len() > 10);
        let text = lines.join("\n");
        for part in [
            "not attached: no such",
            "119 MiB/s",
            "CURSORS had no room 3 times",
            "[12]",
            "2 gguf",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn the_names_that_benches_rely_on_are_there() {
        let value = serde_json::to_value(busy()).unwrap();
        for name in ["seen", "filtered", "coalesced", "delivered", "dropped", "cursors_full"] {
            assert!(value["counters"][name].is_u64(), "{name}");
        }
        assert!(value["ring_received"].is_u64());
    }
}
