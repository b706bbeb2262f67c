//! A load larger than half of the machine's memory, which makes the kernel reclaim pages while it goes on: with MGLRU and without.

use std::fs;

use anyhow::{Context, Result, ensure};

use super::{
    Told,
    bed::{Bed, LARGE, MIB, cold_reader, demanded, here, in_words, pid_of, receipt},
    groups::ensure_used,
};
use crate::readers::Kind;

/// Where the kernel says whether it has MGLRU, and takes whether it is to be used.
const MGLRU: &str = "/sys/kernel/mm/lru_gen/enabled";

/// Runs all, in the mode of `auto`. All kernels that are tried have MGLRU: where it is missing, the scenarios have failed.
pub fn run(bed: &Bed, told: &mut Told) {
    for (name, on, kind) in [
        ("MGLRU", true, Kind::Map),
        ("MGLRU", true, Kind::Read),
        ("LRU lists", false, Kind::Read),
    ] {
        let scenario = format!("{name}: {} of most of the memory", kind.name());
        told.say(&scenario, use_of(on).and_then(|()| load(bed, kind)));
    }
}

/// Turns MGLRU on or off.
fn use_of(on: bool) -> Result<()> {
    // Nothing else is created there: without MGLRU this fails.
    fs::write(MGLRU, if on { "y" } else { "n" }).with_context(|| format!("write {MGLRU}"))?;
    let says = fs::read_to_string(MGLRU)?;
    let is_on = says.trim().trim_start_matches("0x").bytes().any(|digit| digit != b'0');
    ensure!(is_on == on, "{MGLRU} says {}", says.trim());
    Ok(())
}

/// The large model, beside other pages that fill the memory.
fn load(bed: &Bed, kind: Kind) -> Result<String> {
    let total = of_table("/proc/meminfo", "MemTotal:")? << 10;
    ensure!(LARGE > total / 2, "the machine has {} MiB", total / MIB);
    here(Kind::Read, &bed.weights)?;
    let agent = bed.agent_of_large().start(None)?;
    let (device, reclaimed) = (bed.device_bytes()?, taken()?);
    let reader = cold_reader(&bed.large.1, kind, None)?;
    let pid = pid_of(&reader)?;
    let report = reader.wait()?;
    let receipt = receipt(&agent, pid)?;
    demanded(&receipt)?;
    // Who reads a megabyte at once gets all that the disk gives by himself: where the agent finds that out, he is left alone.
    let least = if kind == Kind::Map { LARGE / 2 } else { LARGE / 8 };
    ensure_used(&receipt, LARGE, least)?;
    let device = bed.device_bytes()? - device;
    ensure!(device <= LARGE + LARGE / 20, "{device} bytes read: {receipt}");
    let reclaimed = taken()? - reclaimed;
    ensure!(reclaimed > 0, "nothing had to be reclaimed, of {} MiB", total / MIB);
    Ok(format!(
        "{:.2} s, {}; {} MiB reclaimed meanwhile, of {}",
        report.seconds,
        in_words(&receipt)?,
        reclaimed * 4096 / MIB,
        total / MIB
    ))
}

/// Pages that were reclaimed since the start of the machine.
fn taken() -> Result<u64> {
    Ok(of_table("/proc/vmstat", "pgsteal_kswapd")? + of_table("/proc/vmstat", "pgsteal_direct")?)
}

/// The number behind a name.
fn of_table(path: &str, name: &str) -> Result<u64> {
    let text = fs::read_to_string(path).with_context(|| format!("read {path}"))?;
    let mut lines = text.lines().map(str::split_whitespace);
    let value = lines.find_map(|mut words| (words.next() == Some(name)).then(|| words.next()?.parse().ok())?);
    value.with_context(|| format!("no {name} in {path}"))
}
