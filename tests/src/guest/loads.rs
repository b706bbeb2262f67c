//! Which mode the agent finds, what each mode sees of one reader and of several, what it leaves alone, and what others pay.

use std::{fs::File, os::unix::fs::FileExt, time::Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::{
    Told,
    bed::{
        Bed, MIB, MODEL, cold_reader, demanded, in_words, log_of, number, pid_of, receipt, receipts, resident, settled,
        until, warmed,
    },
};
use crate::readers::Kind;

/// Reads of one batch, and batches of one figure.
const READS: u32 = 2000;
const BATCHES: usize = 15;

/// Runs all.
pub fn run(bed: &Bed, told: &mut Told) {
    told.say("auto", chosen(bed));
    if !bed.modes.iter().any(|mode| mode == "page-cache") {
        told.say("page-cache is refused", refused(bed));
    }
    for mode in &bed.modes {
        for kind in [Kind::Map, Kind::Read] {
            told.say(&format!("{mode}: {}", kind.name()), load(bed, mode, kind));
        }
        told.say(&format!("{mode}: O_DIRECT is left alone"), direct(bed, mode));
        told.say(&format!("{mode}: not watched"), cost(bed, mode));
    }
    for (kind, processes) in [(Kind::Threads, 1), (Kind::Ranks, 8)] {
        let name = format!("{}: {} are one load", bed.auto(), kind.name());
        told.say(&name, together(bed, kind, processes));
    }
}

/// The mode that the agent finds by itself, and why; and that it gives up the rights that it does not need.
fn chosen(bed: &Bed) -> Result<String> {
    let agent = bed.agent("auto").start(None)?;
    let status = agent.ask("status")?;
    let mode = status["mode"].as_str().unwrap_or_default();
    let why = status["mode_reason"].as_str().unwrap_or_default();
    ensure!(mode == bed.auto(), "{mode} instead of {}: {why}", bed.auto());
    let rights = &status["rights"];
    ensure!(
        rights["no_new_privileges"] == true && rights["system_calls_filtered"] == true,
        "not confined: {rights}"
    );
    let left = rights["capabilities"].as_array().context("capabilities")?;
    ensure!(left.len() <= 5, "it keeps {rights}");
    let seconds = agent.time_to_ready().as_secs_f64();
    Ok(format!("{mode} in {seconds:.1} s: {why}"))
}

/// The page-cache mode of Linux 6.12 does not start, and says what it lacks.
fn refused(bed: &Bed) -> Result<String> {
    let Err(error) = bed.agent("page-cache").start(None) else {
        bail!("it started")
    };
    let words = format!("{error:#}");
    let reason = words.lines().find(|line| line.contains("6.12"));
    Ok(reason.context(words.clone())?.to_owned())
}

/// A cold load is seen, helped and accounted for, and its reader gets what is in the file.
pub fn load(bed: &Bed, mode: &str, kind: Kind) -> Result<String> {
    let agent = bed.agent(mode).start(None)?;
    let reader = bed.reader(kind, None)?;
    let pid = pid_of(&reader)?;
    let report = reader.wait()?;
    bed.ensure_truth(&report)?;
    let receipt = receipt(&agent, pid)?;
    let demanded = demanded(&receipt)?;
    // Looking at a reader takes long where it is emulated: the first look may find it far on.
    let helped = MODEL / if mode == "fanotify" { 8 } else { 2 };
    ensure!(
        warmed(&receipt)? >= helped,
        "it brought in too little: {receipt} {}",
        log_of(&agent)
    );
    let (map, seen) = (kind == Kind::Map, demanded as f64 / MODEL as f64);
    // How much is seen of a mapping depends in syscalls mode on how often its reader has to wait, so that one who is well helped is hardly seen, and in fanotify mode on when
    // it was looked at last, which is long ago where looking is emulated: that it was seen at all is what can be said.
    let least = match mode {
        "syscalls" | "fanotify" if map => f64::MIN_POSITIVE,
        "fanotify" => 0.3,
        _ => 0.9,
    };
    ensure!(seen >= least, "only {:.0} % were seen: {receipt}", seen * 100.0);
    let counters = agent.ask("status")?["counters"].clone();
    ensure!(counters["dropped"] == 0, "events were dropped: {counters}");
    Ok(format!("{:.2} s, {}", report.seconds, in_words(&receipt)?))
}

/// Nothing is warmed for one who goes past the page cache.
fn direct(bed: &Bed, mode: &str) -> Result<String> {
    let agent = bed.agent(mode).start(None)?;
    // By this name the command line announces nothing.
    let reader = cold_reader(&bed.alias, Kind::Direct, None)?;
    bed.ensure_truth(&reader.wait()?)?;
    let cached = settled(|| resident(&bed.weights))?;
    // Where opens are seen, the agent looks at the header.
    ensure!(cached <= MIB, "{} KiB were brought in", cached >> 10);
    for receipt in receipts(&agent) {
        ensure!(warmed(&receipt)? == 0, "it was helped: {receipt}");
    }
    Ok(format!("{} KiB were brought in", cached >> 10))
}

/// Threads or processes that read one model have one receipt.
fn together(bed: &Bed, kind: Kind, processes: usize) -> Result<String> {
    let before = bed.device_bytes()?;
    let agent = bed.agent(bed.auto()).start(None)?;
    let report = bed.reader(kind, None)?.wait()?;
    bed.ensure_truth(&report)?;
    until("a receipt", || Ok(!receipts(&agent).is_empty()))?;
    settled(|| Ok(receipts(&agent).len()))?;
    let mut all = receipts(&agent);
    all.sort_by_key(|receipt| receipt["began"].as_u64());
    // Whoever begins when the others have ended, which emulated processors make of one of eight now and then, has a load of his own; nobody else has.
    let are_apart = all
        .windows(2)
        .all(|two| two[0]["ended"].as_u64() <= two[1]["began"].as_u64());
    ensure!(are_apart, "{} receipts: {}", all.len(), brief(&all));
    let pids: usize = all
        .iter()
        .map(|receipt| receipt["pids"].as_array().map_or(0, Vec::len))
        .sum();
    ensure!(pids == processes, "{pids} processes: {}", brief(&all));
    let receipt = all.remove(0);
    let demanded = demanded(&receipt)?;
    ensure!(demanded.abs_diff(MODEL) <= MODEL / 20, "{demanded} demanded: {receipt}");
    // Eight processes on two processors that are emulated are slower than any disk, with help and without.
    ensure!(warmed(&receipt)? >= MODEL / 8, "it brought in too little: {receipt}");
    let device = bed.device_bytes()? - before;
    ensure!(device <= MODEL + MODEL / 20, "{device} bytes read: {receipt}");
    Ok(format!("{pids} in {:.2} s, {}", report.seconds, in_words(&receipt)?))
}

/// Who reads in which load, how much, and when.
fn brief(receipts: &[Value]) -> String {
    let of_one = |receipt: &Value| {
        let told = ["pids", "demanded", "began", "ended", "evidence"].map(|name| format!("{name} {}", receipt[name]));
        told.join(" ")
    };
    receipts.iter().map(of_one).collect::<Vec<_>>().join("; ")
}

/// What a cached read of a file that is not watched costs, which is no load. The machine is emulated beside whatever else its host does, so that no bound is set.
fn cost(bed: &Bed, mode: &str) -> Result<String> {
    let file = File::open(&bed.other)?;
    let before = read_cost(&file)?;
    let agent = bed.agent(mode).start(None)?;
    let with = read_cost(&file)?;
    let status = agent.ask("status")?;
    let loads = &status["loads"];
    ensure!(
        loads.as_array().is_some_and(Vec::is_empty),
        "it was taken for a load: {loads}"
    );
    ensure!(number(&status, "watched")? == 1, "{} watched", status["watched"]);
    drop(agent);
    let without = before.min(read_cost(&file)?);
    Ok(format!(
        "a cached 4 KiB pread takes {without:.0} ns without, {with:.0} ns with the agent"
    ))
}

/// Nanoseconds of a read, by the best batch: the others share the host's processors.
fn read_cost(file: &File) -> Result<f64> {
    let mut buffer = [0; 4096];
    let mut best = f64::MAX;
    for _ in 0..BATCHES {
        let begun = Instant::now();
        for index in 0..READS {
            file.read_exact_at(&mut buffer, u64::from(index % 256) * 4096)?;
        }
        best = best.min(begun.elapsed().as_secs_f64() * 1e9 / f64::from(READS));
    }
    Ok(best)
}
