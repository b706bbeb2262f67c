//! What `nitro-agent doctor` says of the machine, of which everything is known here: states, values, and the exit code.

use std::{fs, process::Command};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{
    Told,
    bed::{AGENT, Bed, MIB},
};
use crate::limit::{IoLimit, Limit};

/// All modes there are.
const MODES: [&str; 4] = ["page-cache", "fentry", "syscalls", "fanotify"];

/// Limits of the group: less than half of the machine's memory, and less than its disk gives.
const HIGH: u64 = 96 * MIB;
const SLOW: Limit = Limit {
    bytes_per_second: 8 * MIB,
    operations_per_second: 50,
};

/// Runs all.
pub fn run(bed: &Bed, told: &mut Told) {
    told.say("doctor", machine(bed));
    told.say("doctor in a group with memory.high and io.max", limited(bed));
}

/// The whole machine, which has no limits.
fn machine(bed: &Bed) -> Result<String> {
    let (code, report) = doctor(bed, None)?;
    ensure!(report["mode"] == bed.auto(), "it takes {}", report["mode"]);
    for mode in MODES {
        let works = bed.modes.iter().any(|known| known == mode);
        has(&report, mode, if works { "ok" } else { "missing" }, "")?;
    }
    let models = bed.models.to_string_lossy();
    for (name, state, words) in [
        ("release", "ok", ""),
        ("BTF", "ok", ""),
        ("tracefs", "ok", ""),
        ("capabilities", "ok", "user 0"),
        ("auto", "ok", bed.auto()),
        ("memory", "ok", "MiB"),
        ("page reclaim", "info", "multi-generational"),
        ("areas", "info", "none"),
        ("version", "ok", "2"),
        ("memory limit", "ok", "none for /"),
        ("read limits", "ok", "none"),
        (&models, "ok", "ext4 from /dev/vda"),
        ("vda read_ahead_kb", "ok", "128 KiB"),
        ("loop devices", "missing", "no /dev/loop-control"),
    ] {
        has(&report, name, state, words)?;
    }
    let costly = costly(&report);
    ensure!(
        code == i32::from(!costly.is_empty()) && report["verdict"]["exit_code"] == code,
        "it ends with {code}: {costly:?}"
    );
    Ok(format!("ends with {code}; {}", report["verdict"]["words"]))
}

/// A group that lets its members have little memory and little of the disk.
fn limited(bed: &Bed) -> Result<String> {
    let group = IoLimit::new()?;
    group.set(bed.device, SLOW)?;
    let path = group.directory().join("memory.high");
    fs::write(&path, HIGH.to_string()).with_context(|| format!("write {}", path.display()))?;
    let (code, report) = doctor(bed, Some(&group))?;
    ensure!(code == 1, "it ends with {code}: {:?}", costly(&report));
    let rate = format!("rbps={}", SLOW.bytes_per_second);
    let memory = has(&report, "memory limit", "degraded", "MiB left to /")?;
    let reads = has(&report, "read limits", "degraded", &rate)?;
    Ok(format!("{}; {}", memory["value"], reads["value"]))
}

/// What it says of the models, and what it ends with.
fn doctor(bed: &Bed, group: Option<&IoLimit>) -> Result<(i32, Value)> {
    let mut command = Command::new(AGENT);
    command.args(["doctor", "--json", "--watch"]).arg(&bed.models);
    if let Some(group) = group {
        group.join(&mut command)?;
    }
    let output = command.output().context("start the doctor")?;
    let words = String::from_utf8_lossy(&output.stderr);
    ensure!(words.is_empty(), "it complains: {words}");
    let code = output.status.code().context("it was killed")?;
    Ok((
        code,
        serde_json::from_slice(&output.stdout).context("what it prints is no object")?,
    ))
}

/// The finding with this name, of which there is one, has this state, and these words in its value.
fn has<'a>(report: &'a Value, name: &str, state: &str, words: &str) -> Result<&'a Value> {
    let mut findings = report["findings"].as_array().context("findings")?.iter();
    let found = findings.find(|finding| finding["name"] == name);
    let found = found.with_context(|| format!("nothing is said of {name}"))?;
    let value = found["value"].as_str().unwrap_or_default();
    ensure!(
        found["state"] == state && value.contains(words),
        "not {state} with {words:?}: {found}"
    );
    Ok(found)
}

/// Names of what counts in the verdict.
fn costly(report: &Value) -> Vec<&str> {
    let findings = report["findings"].as_array().into_iter().flatten();
    let bad = findings
        .filter(|finding| finding["weight"] == "useful")
        .filter(|finding| finding["state"] == "degraded" || finding["state"] == "missing");
    bad.filter_map(|finding| finding["name"].as_str()).collect()
}
