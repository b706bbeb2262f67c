//! Control groups of version 2: what an agent does within `memory.high`, within `io.max`, and on the account of its reader.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::{
    Told,
    bed::{
        Bed, LARGE, MIB, MODEL, cold_reader, demanded, in_words, log_of, number, pid_of, receipt, resident, settled,
        signal, until, warmed,
    },
};
use crate::{
    limit::{IoLimit, Limit},
    readers::Kind,
};

/// The agent's limit, a third of what it would take of a model that large.
const HIGH: u64 = 128 * MIB;
/// A reader's limit, less than its model; the agent leaves 32 MiB of it free.
const ROOM: u64 = 56 * MIB;
/// What the kernel may count beyond a limit: each processor has some of its own.
const SLACK: u64 = 4 * MIB;

/// The disk that `io.max` makes: bound by requests.
const FEW_REQUESTS: Limit = Limit {
    bytes_per_second: 32 * MIB,
    operations_per_second: 64,
};

/// Runs all, in the mode of `auto`.
pub fn run(bed: &Bed, told: &mut Told) {
    told.say("io.max: agent and reader in one group", requests(bed));
    told.say("memory.high: the agent's own", own_limit(bed));
    told.say("charge: the consumer's or the agent's", charge(bed));
    for limit in ["memory.max", "memory.high"] {
        told.say(&format!("charge: {limit} of the consumer"), little_room(bed, limit));
    }
}

/// A group with its account of memory. Whoever is in it must have ended before.
struct Account(IoLimit);

impl Account {
    fn new(limit: Option<(&str, u64)>) -> Result<Self> {
        let account = Self(IoLimit::new()?);
        if let Some((file, bytes)) = limit {
            let path = account.0.directory().join(file);
            fs::write(&path, bytes.to_string()).with_context(|| format!("write {}", path.display()))?;
        }
        Ok(account)
    }

    /// A file that is one number.
    fn number(&self, file: &str) -> Result<u64> {
        let path = self.0.directory().join(file);
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        text.trim()
            .parse()
            .with_context(|| format!("{}: {text:?}", path.display()))
    }

    /// A line of a file with a name and a number in each.
    fn line(&self, file: &str, name: &str) -> Result<u64> {
        let path = self.0.directory().join(file);
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let mut lines = text.lines().filter_map(|line| line.split_once(' '));
        let value = lines.find_map(|(key, value)| (key == name).then(|| value.parse().ok())?);
        value.with_context(|| format!("no {name} in {}", path.display()))
    }

    /// It never held more than `limit`, and nobody in it was killed. Gives the most that it held.
    fn within(&self, limit: u64) -> Result<u64> {
        let peak = self.number("memory.peak")?;
        ensure!(peak <= limit + SLACK, "it held {peak} of {limit}");
        for event in ["oom", "oom_kill"] {
            ensure!(self.line("memory.events", event)? == 0, "{event} in its group");
        }
        Ok(peak)
    }
}

/// On a disk that allows few requests agent and reader together need fewer than the reader alone, and they are on their group's account. It is told by counts alone:
/// how long it takes depends on whatever else the host of an emulated machine does.
fn requests(bed: &Bed) -> Result<String> {
    let (alone, both) = (IoLimit::new()?, IoLimit::new()?);
    for group in [&alone, &both] {
        group.set(bed.device, FEW_REQUESTS)?;
        ensure_limited(group, bed)?;
    }
    let without = bed.reader(Kind::Map, Some(&alone))?.wait()?;
    bed.ensure_truth(&without)?;
    let agent = bed.agent(bed.auto()).start(Some(&both))?;
    let before = bed.device_bytes()?;
    let reader = bed.reader(Kind::Map, Some(&both))?;
    let pid = pid_of(&reader)?;
    let with = reader.wait()?;
    bed.ensure_truth(&with)?;
    let receipt = receipt(&agent, pid)?;
    let seen = demanded(&receipt)?;
    let device = bed.device_bytes()? - before;
    let paid = bytes_of(&both, bed)?;
    let (many, few) = (alone.requests(bed.device)?, both.requests(bed.device)?);
    let words = format!(
        "{many} requests alone in {:.2} s, {few} with the agent in {:.2} s, {} MiB on the group's account; {}",
        without.seconds,
        with.seconds,
        paid / MIB,
        in_words(&receipt)?
    );
    ensure!(seen >= MODEL - MODEL / 10, "{words}");
    // Most of it was brought in by the agent, in requests that are larger than the reader's; each byte once; and within the limits of their group.
    ensure_used(&receipt, MODEL, MODEL / 2).with_context(|| log_of(&agent))?;
    ensure!(few * 4 <= many * 3, "{words}");
    ensure!(device <= MODEL + MODEL / 20, "{device} bytes read: {words}");
    ensure!(paid >= MODEL - MODEL / 20, "{words}");
    Ok(words)
}

/// The kernel has the limits that were set.
fn ensure_limited(group: &IoLimit, bed: &Bed) -> Result<()> {
    let path = group.directory().join("io.max");
    let line = of_device(&path, bed)?;
    let Limit {
        bytes_per_second,
        operations_per_second,
    } = FEW_REQUESTS;
    for wanted in [
        format!("rbps={bytes_per_second}"),
        format!("riops={operations_per_second}"),
    ] {
        let has = line.split_whitespace().any(|word| word == wanted);
        ensure!(has, "no {wanted} in {}: {line}", path.display());
    }
    Ok(())
}

/// Bytes that a group has read from the disk.
fn bytes_of(group: &IoLimit, bed: &Bed) -> Result<u64> {
    let line = of_device(&group.directory().join("io.stat"), bed)?;
    let mut words = line.split_whitespace();
    let bytes = words.find_map(|word| word.strip_prefix("rbytes=")?.parse().ok());
    bytes.with_context(|| format!("no rbytes in {line}"))
}

/// What a file of a group says of the disk.
fn of_device(path: &Path, bed: &Bed) -> Result<String> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let (major, minor) = bed.device;
    let device = format!("{major}:{minor} ");
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(&device));
    let line = lines.next();
    Ok(line
        .with_context(|| format!("nothing of {device}in {}: {text}", path.display()))?
        .to_owned())
}

/// An agent in a group with `memory.high` brings in no more at once than its group has room for, and helps to the end.
fn own_limit(bed: &Bed) -> Result<String> {
    let group = Account::new(Some(("memory.high", HIGH)))?;
    let agent = bed.agent_of_large().start(Some(&group.0))?;
    let status = agent.ask("status")?;
    let ceiling = number(&status, "ceiling")?;
    ensure!((HIGH / 2..HIGH).contains(&ceiling), "a ceiling of {ceiling}");
    let named = status["own_cgroup"].as_str().unwrap_or_default();
    ensure!(
        group.0.directory().ends_with(named.trim_start_matches('/')) && named.len() > 1,
        "it takes {named} for its group"
    );
    let before = bed.device_bytes()?;
    let reader = cold_reader(&bed.large.1, Kind::Map, None)?;
    let pid = pid_of(&reader)?;
    let report = reader.wait()?;
    let receipt = receipt(&agent, pid)?;
    demanded(&receipt)?;
    // Several times what the group holds: what was used had to go for it, and nothing else.
    ensure_used(&receipt, LARGE, LARGE / 2)?;
    let device = bed.device_bytes()? - before;
    ensure!(device <= LARGE + LARGE / 20, "{device} bytes read: {receipt}");

    // Who stops is not followed: the window ahead of him is filled, and stays.
    let reader = cold_reader(&bed.large.1, Kind::Map, None)?;
    until("it is warmed", || Ok(resident(&bed.large.1)? >= 64 * MIB))?;
    signal(pid_of(&reader)?, Signal::SIGSTOP)?;
    let held = settled(|| number(&agent.ask("status")?, "held"))?;
    let there = resident(&bed.large.1)?;
    ensure!((ceiling / 4..=ceiling).contains(&held), "{held} are held, of {ceiling}");
    ensure!(there >= held, "{held} are held, and {there} are there");
    drop(reader);
    let peak = group.within(HIGH)?;
    Ok(format!(
        "{:.2} s, {}; at most {} MiB in the group of {}, over it {} times; {} held ahead of one who stops, of {}",
        report.seconds,
        in_words(&receipt)?,
        peak / MIB,
        HIGH / MIB,
        group.line("memory.events", "high")?,
        held / MIB,
        ceiling / MIB,
    ))
}

/// At least so much of a model of `size` bytes was warmed, and what was warmed was used.
pub fn ensure_used(receipt: &Value, size: u64, least: u64) -> Result<()> {
    let (warmed, wasted) = (warmed(receipt)?, number(receipt, "wasted")?);
    ensure!(warmed >= least, "it brought in {warmed}: {receipt}");
    ensure!(wasted <= size / 20, "it wasted {wasted}: {receipt}");
    Ok(())
}

/// Pages are charged to the group of the reader if that was asked for, else to the agent's.
fn charge(bed: &Bed) -> Result<String> {
    let mut words = Vec::new();
    for who in ["consumer", "agent"] {
        let (ours, theirs) = (Account::new(None)?, Account::new(None)?);
        let agent = bed.agent(bed.auto()).arg("--charge").arg(who).start(Some(&ours.0))?;
        let reader = bed.reader(Kind::Read, Some(&theirs.0))?;
        let pid = pid_of(&reader)?;
        bed.ensure_truth(&reader.wait()?)?;
        let receipt = receipt(&agent, pid)?;
        demanded(&receipt)?;
        ensure_used(&receipt, MODEL, MODEL / 2).with_context(|| log_of(&agent))?;
        let paid = |account: &Account| account.line("memory.stat", "file");
        let (agent_paid, reader_paid) = (paid(&ours)?, paid(&theirs)?);
        let said = format!(
            "{who}: the agent pays {} MiB, the reader {}",
            agent_paid / MIB,
            reader_paid / MIB
        );
        if who == "consumer" {
            ensure!(
                reader_paid >= MODEL - MODEL / 20 && agent_paid <= 4 * MIB,
                "{said}: {receipt}"
            );
        } else {
            ensure!(agent_paid >= MODEL / 2, "{said}: {receipt}");
        }
        words.push(said);
    }
    Ok(words.join("; "))
}

/// A reader with less room than its model is helped up to what is left there, and lives.
fn little_room(bed: &Bed, limit: &str) -> Result<String> {
    let account = Account::new(Some((limit, ROOM)))?;
    let agent = bed.agent(bed.auto()).arg("--charge").arg("consumer").start(None)?;
    let reader = bed.reader(Kind::Read, Some(&account.0))?;
    let pid = pid_of(&reader)?;
    bed.ensure_truth(&reader.wait()?)?;
    let receipt = receipt(&agent, pid)?;
    demanded(&receipt)?;
    let peak = account.within(ROOM)?;
    let skipped = receipt["skipped"].as_array().context("reasons")?;
    ensure!(skipped.iter().any(|reason| reason == "no-room"), "{receipt}");
    let warmed = warmed(&receipt)?;
    ensure!((4 * MIB..=ROOM).contains(&warmed), "it brought in {warmed}: {receipt}");
    Ok(format!(
        "at most {} MiB of {}; {}",
        peak / MIB,
        ROOM / MIB,
        in_words(&receipt)?
    ))
}
