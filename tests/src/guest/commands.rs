//! `pause`, `resume` and `unwatch` in the middle of a load, and the end of the agent there.

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

use super::{
    Told,
    bed::{Bed, MIB, demanded, held, in_words, number, pid_of, receipt, resident, settled, signal, until, warmed},
    loads::load,
};
use crate::{
    agent::AgentProcess,
    limit::{IoLimit, Limit},
    readers::{Kind, RunningReader},
};

/// Runs all, in the mode of `auto`.
pub fn run(bed: &Bed, told: &mut Told) {
    told.say("pause and resume", pause(bed));
    told.say("unwatch", unwatch(bed));
    told.say("the agent is killed", killed(bed));
}

/// A load in its middle: its reader at rest, a good deal of what is ahead warmed already, and a little still under way.
struct Half {
    // Ended in this order, before their group is removed.
    reader: RunningReader,
    agent: AgentProcess,
    group: IoLimit,
}

impl Half {
    fn new(bed: &Bed) -> Result<Self> {
        let group = IoLimit::new()?;
        // What takes four seconds leaves time to stop the reader on its way.
        group.set(
            bed.device,
            Limit {
                bytes_per_second: 16 * MIB,
                operations_per_second: 0,
            },
        )?;
        let agent = bed.agent(bed.auto()).start(Some(&group))?;
        let reader = bed.reader(Kind::Read, Some(&group))?;
        until("it is warmed", || Ok(resident(&bed.weights)? >= 12 * MIB))?;
        signal(pid_of(&reader)?, Signal::SIGSTOP)?;
        Ok(Self { reader, agent, group })
    }

    /// Lets the reader go on, on a disk that is as fast as it can be.
    fn go_on(&self, bed: &Bed) -> Result<()> {
        self.group.set(bed.device, Limit::NONE)?;
        signal(pid_of(&self.reader)?, Signal::SIGCONT)
    }
}

/// A pause closes all files, and nothing is read until it is over.
fn pause(bed: &Bed) -> Result<String> {
    let half = Half::new(bed)?;
    let agent = &half.agent;
    let process = agent.pid()?;
    agent.tell(&["pause"])?;
    until("everything is closed", || Ok(held(process, &bed.models)? == 0))?;
    // What was asked for cannot be recalled.
    settled(|| bed.device_bytes())?;
    ensure!(
        agent.ask("status")?["paused"] == true,
        "it does not say that it is paused"
    );
    let pid = pid_of(&half.reader)?;
    let paused_at = resident(&bed.weights)?;
    agent.tell(&["resume"])?;
    ensure!(
        agent.ask("status")?["paused"] == false,
        "it does not say that it goes on"
    );
    half.go_on(bed)?;
    let Half { reader, agent, .. } = half;
    bed.ensure_truth(&reader.wait()?)?;
    let receipt = receipt(&agent, pid)?;
    demanded(&receipt)?;
    let skipped = &receipt["skipped"][0];
    ensure!(skipped == "paused", "skipped for {skipped}: {receipt}");
    let all = warmed(&receipt)?;
    ensure!(
        all >= paused_at + 8 * MIB,
        "not helped after the pause: {all} warmed, {paused_at} there at it: {receipt}"
    );
    Ok(format!(
        "{} MiB there at the pause; {}",
        paused_at / MIB,
        in_words(&receipt)?
    ))
}

/// A directory is let go in the middle of a load, whose reader goes on by itself.
fn unwatch(bed: &Bed) -> Result<String> {
    let half = Half::new(bed)?;
    let agent = &half.agent;
    let said = agent.tell(&["unwatch", bed.models.to_str().context("a path of ours")?])?;
    let process = agent.pid()?;
    until("everything is closed", || Ok(held(process, &bed.models)? == 0))?;
    let status = agent.ask("status")?;
    ensure!(number(&status, "watched")? == 0, "{} are watched", status["watched"]);
    settled(|| bed.device_bytes())?;
    let pid = pid_of(&half.reader)?;
    half.go_on(bed)?;
    let Half { reader, agent, .. } = half;
    bed.ensure_truth(&reader.wait()?)?;
    let receipt = receipt(&agent, pid)?;
    demanded(&receipt)?;
    let skipped = &receipt["skipped"][0];
    ensure!(skipped == "gone", "skipped for {skipped}: {receipt}");
    Ok(said)
}

/// A reader whose agent is killed reads on as if there had been none, and the next agent helps.
fn killed(bed: &Bed) -> Result<String> {
    let half = Half::new(bed)?;
    signal(half.agent.pid()?, Signal::SIGKILL)?;
    half.go_on(bed)?;
    let Half { reader, agent, group } = half;
    bed.ensure_truth(&reader.wait()?)?;
    drop((agent, group));
    let next = load(bed, bed.auto(), Kind::Read)?;
    Ok(format!("then: {next}"))
}
