//! `nitro-agent replay`: a recorded trace through the engine once more, as it was or in another world.

mod text;

use std::{collections::BTreeSet, path::PathBuf};

use anyhow::bail;
use clap::Args;
use serde_json::json;

use self::text::{Replayed, Row};
use super::ask::print;
use crate::{
    engine::Policy,
    replay::{
        compare::{Comparison, Help, World},
        demand::{Collecting, Demand},
        device::Choice,
        exact::{self, Replay},
        pace::Paced,
    },
    sys::memory,
    trace::{Header, Opened, Tear},
    units::{ByteCount, Size, SizeError},
};

/// Flags of `replay`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  nitro-agent replay load.trace
  nitro-agent replay load.trace --device nvme,gp3,500MB/3000 --policy none,cat,agent
  nitro-agent replay load.trace --memory 8GiB,16GiB --ceiling 4GiB --cold
  nitro-agent replay load.trace --exact

The readers of the trace read again in a simulator, with the pauses that they made; no file is read. What is not given is as it was recorded.
Devices: recorded; nvme (3 GB/s, 400 000 requests a second), gp3 (125 MB/s, 3000), hdd (one head, 150 MB/s, 8 ms a jump), nas (2 ms a request, eight at once, 280 MB/s);
or bytes a second, and requests a second after a slash. How fast the recorded device is, is taken from its best quarter of a second: say it with --recorded-on where you know.

Exit code: 0; 1 when the file is no trace, or an --exact replay came to something else.")]
pub struct Options {
    /// A trace.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Give the engine every input again, and compare what it decides with what it decided then.
    #[arg(long, conflicts_with_all = ["policy", "device", "memory", "ceiling", "cold", "recorded_on"])]
    exact: bool,
    /// Who helps: nobody, a `cat` of its models before each process, which takes its time, too; the agent.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        value_name = "POLICY",
        default_value = "none,agent"
    )]
    policy: Vec<Help>,
    /// Where the files are.
    #[arg(long, value_delimiter = ',', value_name = "DEVICE", default_value = "recorded")]
    device: Vec<Choice>,
    /// Page cache: what was used longest ago leaves it. Without it there is room for everything, and what left the recorded one leaves.
    #[arg(long, value_delimiter = ',', value_name = "SIZE", value_parser = page_cache)]
    memory: Vec<Size>,
    /// What the agent may have warmed that nobody used yet; by default as recorded.
    #[arg(long, value_delimiter = ',', value_name = "SIZE")]
    ceiling: Vec<Size>,
    /// Nothing is in the page cache at the beginning.
    #[arg(long)]
    cold: bool,
    /// The device that the trace was recorded on.
    #[arg(long, value_name = "DEVICE")]
    recorded_on: Option<Choice>,
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

/// With less no machine reads anything.
const LEAST_MEMORY: ByteCount = ByteCount(64 << 20);

fn page_cache(text: &str) -> Result<Size, String> {
    let size: Size = text.parse().map_err(|error: SizeError| error.to_string())?;
    if size.of(memory::total()) < LEAST_MEMORY {
        return Err(format!("{text} is less than {LEAST_MEMORY}"));
    }
    Ok(size)
}

/// Replays and prints.
///
/// # Errors
/// The file is no trace; nobody reads in it; the exact replay came to something else.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let mut trace = Opened::open(&options.file)?;
    if options.exact {
        return run_exact(&mut trace, options.json);
    }
    let mut collecting = Collecting::new(trace.header());
    for record in trace.by_ref() {
        collecting.add(&record);
    }
    let (path, tear) = (trace.path().to_owned(), trace.tear().cloned());
    let demand = collecting.end().map_err(|error| anyhow::anyhow!("{path}: {error}"))?;
    let replayed = compare(options, trace.header(), demand, tear);
    print(&if options.json {
        serde_json::to_string(&replayed)?
    } else {
        text::text(&replayed)
    })?;
    Ok(())
}

fn compare(options: &Options, header: &Header, demand: Demand, tear: Option<Tear>) -> Replayed {
    let recorded = World {
        device: options.recorded_on.unwrap_or(Choice::Recorded),
        memory: None,
        ceiling: usual_ceiling(header, None),
        cold: false,
    };
    let policy = Policy {
        ceiling: recorded.ceiling,
        ignored: header.ignored.clone(),
        ..Policy::default()
    };
    let was_helped = demand.was_helped;
    let device = recorded.device.spec(demand.rate);
    let paced = Paced::new(demand, device, was_helped.then(|| policy.clone()));
    let comparison = Comparison::new(paced, policy);
    let mut rows = Vec::new();
    for world in worlds(options, header) {
        let outcomes: Vec<_> = options.policy.iter().map(|help| comparison.run(world, *help)).collect();
        let none = options.policy.iter().position(|help| *help == Help::None);
        let alone = none.and_then(|none| outcomes.get(none)).map(|outcome| outcome.seconds);
        let helps = options.policy.iter().zip(outcomes);
        rows.extend(helps.map(|(help, outcome)| Row::new(world, *help, outcome, alone)));
    }
    let demand = comparison.paced().demand();
    let processes: BTreeSet<u32> = demand.readers.iter().map(|reader| reader.process).collect();
    Replayed {
        processes: processes.len(),
        files: demand.files.parts.len(),
        was_helped,
        recorded_seconds: comparison.paced().recorded_seconds(),
        simulated_seconds: comparison.check(recorded, was_helped),
        recorded_on: options.recorded_on.map(|device| device.to_string()),
        best_rate: demand.rate.map(|rate| rate.0),
        direct_left_out: demand.left_out.direct,
        lost: demand.left_out.lost,
        torn: tear.map(|tear| tear.why),
        rows,
    }
}

/// What the agent of the recording was allowed, or one would be allowed by default: half of the memory.
fn usual_ceiling(header: &Header, memory: Option<ByteCount>) -> ByteCount {
    match memory {
        None if header.ceiling.0 > 0 => header.ceiling,
        _ => ByteCount(memory.unwrap_or_else(memory::total).0 / 2),
    }
}

/// Every device with every size of the page cache and every ceiling.
fn worlds(options: &Options, header: &Header) -> Vec<World> {
    let sizes = |sizes: &[Size], whole: ByteCount| match sizes {
        [] => vec![None],
        sizes => sizes.iter().map(|size| Some(size.of(whole))).collect(),
    };
    let mut worlds = Vec::new();
    for device in &options.device {
        let device = match (device, options.recorded_on) {
            (Choice::Recorded, Some(known)) => known,
            (device, _) => *device,
        };
        for memory in sizes(&options.memory, memory::total()) {
            for ceiling in sizes(&options.ceiling, memory.unwrap_or_else(memory::total)) {
                worlds.push(World {
                    device,
                    memory,
                    ceiling: ceiling.unwrap_or_else(|| usual_ceiling(header, memory)),
                    cold: options.cold,
                });
            }
        }
    }
    worlds
}

fn run_exact(trace: &mut Opened, json: bool) -> anyhow::Result<()> {
    let mut replay = Replay::new(trace.header());
    for record in trace.by_ref() {
        replay.tell(record);
    }
    let outcome = replay.end();
    if json {
        print(&exact_as_json(&outcome).to_string())?;
    } else {
        print(&format!(
            "{} inputs, {} steps of {} wanted, {} receipts",
            outcome.inputs,
            outcome.steps,
            outcome.bytes,
            outcome.replayed.len()
        ))?;
    }
    if !outcome.is_same() {
        bail!(
            "the replay wrote {} receipts, {} were recorded, and they differ: inputs are missing, or it is another version",
            outcome.replayed.len(),
            outcome.recorded.len()
        );
    }
    Ok(())
}

fn exact_as_json(outcome: &exact::Outcome) -> serde_json::Value {
    json!({
        "inputs": outcome.inputs,
        "steps": outcome.steps,
        "bytes": outcome.bytes,
        "receipts": outcome.replayed.len(),
        "same": outcome.is_same(),
    })
}
