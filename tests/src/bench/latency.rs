//! From the first evidence of a load to the first byte asked for on its behalf, as the agent's receipts tell.

use std::{
    collections::BTreeMap,
    fs::File,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde_json::{Value, json};

use super::{Check, Common, Outcome};
use crate::{
    agent::{Agent, AgentProcess},
    disk::TestDisk,
    limit::{IoLimit, Limit},
    readers::{self, Kind, Reader},
    stats, sys,
    tree::{ModelTree, ollama},
};

/// The receipts' field.
const FIELD: &str = "evidence_to_first_warm_us";
/// The agent may keep only its last receipts, so it is asked after so many loads.
const ASK_EVERY: usize = 10;
/// How long a receipt may take after its load.
const RECEIPT_DEADLINE: Duration = Duration::from_secs(10);

/// Options of `nitro-bench latency`.
#[derive(Clone, Debug, Args)]
pub struct LatencyArgs {
    #[command(flatten)]
    common: Common,
    /// Loads, each of a cold model.
    #[arg(long, default_value_t = 200)]
    loads: usize,
    /// Models of 8 to 16 MiB in the store, loaded in turn.
    #[arg(long, default_value_t = 20)]
    models: usize,
    /// How they read.
    #[arg(long, default_value = "map")]
    reader: Kind,
}

/// Loads cold models one after the other and reads the receipts.
///
/// # Errors
/// When the rig or the agent fails, or no receipt has the field.
pub fn run(args: &LatencyArgs) -> Result<ExitCode> {
    let agent = args.common.prepare()?;
    let program = readers::program()?;
    let disk = TestDisk::new(&args.common.dir, args.models as u64 * (17 << 20) + (256 << 20))?;
    let group = IoLimit::new()?;
    // A device that takes a while for each request, so that there is something to do at all.
    disk.limit(
        &group,
        Limit {
            bytes_per_second: 1_000_000_000,
            operations_per_second: 1000,
        },
    )?;
    ensure!(args.models > 0, "a store without models");
    eprintln!("writing {} models", args.models);
    let mut sizes = fastrand::Rng::with_seed(1);
    let models: Vec<ModelTree> = (0..args.models)
        .map(|index| {
            ollama::model(
                disk.path(),
                &format!("model{index:03}"),
                "latest",
                index as u64,
                sizes.u64((8 << 20)..(16 << 20)),
            )
        })
        .collect::<Result<_>>()?;
    let agent = Agent::new(&agent, disk.path()).start(Some(&group))?;
    disk.drop_caches()?;

    let mut receipts = BTreeMap::new();
    for (index, model) in models.iter().cycle().take(args.loads).enumerate() {
        for path in &model.files {
            let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
            sys::drop_pages(&file).with_context(|| format!("make {} cold", path.display()))?;
        }
        // The weights come last in an Ollama store.
        Reader::new(&program, args.reader, &model.files[model.files.len() - 1..]).run(Some(&group))?;
        if index % ASK_EVERY == ASK_EVERY - 1 {
            collect(&agent, &mut receipts)?;
            eprintln!("{} loads, {} receipts", index + 1, receipts.len());
        }
    }
    let deadline = Instant::now() + RECEIPT_DEADLINE;
    while receipts.len() < args.loads && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(200));
        collect(&agent, &mut receipts)?;
    }
    agent.stop()?;

    let times: Vec<f64> = receipts.values().copied().collect();
    ensure!(!times.is_empty(), "no receipt of {} loads has {FIELD}", args.loads);
    let (p50, p99) = (stats::quantile(&times, 0.5) / 1e3, stats::quantile(&times, 0.99) / 1e3);
    // A load that ended before there was anything to warm has no figure; most must have one, or the figures mean nothing.
    let enough = args.loads * 9 / 10;
    let checks = [
        Check::new(
            "receipts with a figure",
            times.len().to_string(),
            format!("≥ {enough} of {}", args.loads),
            times.len() >= enough,
        ),
        Check::new(
            "evidence to first readahead, p50",
            format!("{p50:.3} ms"),
            "≤ 1 ms",
            p50 <= 1.0,
        ),
        Check::new(
            "evidence to first readahead, p99",
            format!("{p99:.3} ms"),
            "≤ 5 ms",
            p99 <= 5.0,
        ),
    ];
    let notes = vec![format!(
        "{} loads by the reader {}, one after the other, of {} models in turn, 1000 requests/s",
        args.loads,
        args.reader.name(),
        args.models
    )];
    Outcome::of_checks("latency", notes, &checks, json!({ "microseconds": times })).publish(&args.common)
}

/// Adds the receipts that are not known yet.
fn collect(agent: &AgentProcess, receipts: &mut BTreeMap<String, f64>) -> Result<()> {
    for receipt in &agent.ask_lines("loads")? {
        if let Some(time) = receipt[FIELD].as_f64() {
            receipts.insert(identity(receipt), time);
        }
    }
    Ok(())
}

/// What tells one receipt from another: its id, or else all of it.
fn identity(receipt: &Value) -> String {
    ["id", "load", "load_id"]
        .iter()
        .find_map(|name| receipt.get(name))
        .filter(|id| !id.is_null())
        .unwrap_or(receipt)
        .to_string()
}
