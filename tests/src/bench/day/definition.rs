//! What a scenario is: which programs load what of which models on which machine. Data, in `tests/data/day/scenarios.json`; a day is drawn from one and a seed.
//!
//! A pair of numbers is a range that a day draws from, both ends included. Sizes are in MiB.

use anyhow::{Context, Result, ensure};
use nitro_user::catalog::model::LayoutKind;
use serde::{Deserialize, Serialize};

/// The scenarios as they are in the repository.
pub const SCENARIOS: &str = include_str!("../../../data/day/scenarios.json");

/// Whether a scenario may be looked at while the agent is being tuned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Set {
    /// It may.
    Tuning,
    /// It may not.
    HeldOut,
}

impl Set {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Tuning, Self::HeldOut];

    /// For people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tuning => "tuning",
            Self::HeldOut => "held out",
        }
    }
}

/// One scenario.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// Its name, for good: seeds count from it.
    pub name: String,
    /// In which set it is. Those that were written are for tuning; those that are drawn (`draw`) are held out.
    pub set: Set,
    /// In a sentence, for people.
    pub about: String,
    /// The machine's memory.
    pub memory: u64,
    /// The device.
    pub device: DeviceDef,
    /// How often the agent is started anew in a day.
    #[serde(default)]
    pub restarts: u32,
    /// What is on the device.
    pub stores: Vec<Store>,
    /// Who reads it.
    pub programs: Vec<Program>,
}

/// A device.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeviceDef {
    /// MB a second at most, kept as blk-throttle does; 0 without a limit.
    pub limit: f64,
    /// Requests a second at most, in the same way.
    pub requests: f64,
    /// Milliseconds that a request takes.
    pub latency: f64,
    /// MB a second of each request; 0 is no bound.
    pub rate: f64,
    /// Requests at once.
    pub parallel: usize,
    /// Milliseconds more where a request does not begin where the last one ended.
    pub seek: f64,
    /// KiB that the kernel reads ahead.
    pub read_ahead: u64,
    /// KiB of the largest request; 0 where there is no block device.
    pub request: u64,
}

impl Default for DeviceDef {
    fn default() -> Self {
        Self {
            limit: 0.0,
            requests: 0.0,
            latency: 0.0,
            rate: 0.0,
            parallel: 1,
            seek: 0.0,
            read_ahead: 128,
            request: 1280,
        }
    }
}

/// Models of one kind in one place.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Store {
    /// Its directory.
    pub name: String,
    /// What ties a model's files together.
    pub layout: LayoutKind,
    /// How many models programs load …
    pub models: [u64; 2],
    /// … and how many lie between them that nobody loads.
    #[serde(default)]
    pub idle: [u64; 2],
    /// Each model has a directory of its own.
    #[serde(default)]
    pub apart: bool,
    /// What a model is made of, in the order of names.
    pub parts: Vec<PartDef>,
}

/// Files of one role.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartDef {
    /// What they are: in their names, and for programs that read some of them.
    pub role: String,
    /// What their names end with.
    #[serde(default)]
    pub extension: String,
    /// How many.
    #[serde(default = "one")]
    pub count: [u64; 2],
    /// How large each is.
    pub size: [u64; 2],
    /// KiB of its header.
    #[serde(default)]
    pub header: u64,
    /// All models of the store have these files in common.
    #[serde(default)]
    pub common: bool,
}

const fn one() -> [u64; 2] {
    [1, 1]
}

/// A program, and how it spends the day.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Program {
    /// As `ps -o comm` shows it.
    pub name: String,
    /// Where its models are.
    pub store: String,
    /// How often it loads one.
    pub loads: [u64; 2],
    /// How it reads.
    pub how: How,
    /// Its command line names the model.
    #[serde(default)]
    pub announced: bool,
    /// One process for all its loads; else each has one of its own.
    #[serde(default)]
    pub stays_one: bool,
    /// It copies what it reads into memory of its own.
    #[serde(default)]
    pub copies: bool,
    /// How likely its next model is the one that mostly follows; else it is any of the others.
    #[serde(default)]
    pub habit: f64,
    /// What it reads of a model.
    #[serde(default)]
    pub reads: Reads,
    /// Microseconds of processor time for each MiB.
    #[serde(default)]
    pub think: [u64; 2],
    /// Microseconds that it waits for something else for each MiB: a graphics card, a network.
    #[serde(default)]
    pub pause: [u64; 2],
    /// Seconds for which its process lives on.
    #[serde(default)]
    pub stays: [u64; 2],
    /// Seconds from one load's end to the next one's beginning; short ones are as likely as long ones.
    pub gap: [u64; 2],
}

/// How files are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// A mapping is touched.
    Map,
    /// The same with `MADV_RANDOM`.
    MapRandom,
    /// A mapping is filled at once.
    Populate,
    /// `read` of a MiB.
    Read,
    /// `read` of 128 KiB.
    ReadSmall,
}

/// What is read of a model.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Reads {
    /// The headers of all models and nothing else.
    pub listing: bool,
    /// Files of these roles; of all, where none is named.
    pub roles: Vec<String>,
    /// In which order files come.
    pub files: Order,
    /// How many files are read; all of them without.
    pub some: Option<[u64; 2]>,
    /// In which order each is read.
    pub within: Order,
    /// The share of it that is read.
    pub share: Option<f64>,
}

/// An order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// As the names, or bytes, are.
    #[default]
    Listed,
    /// From the last one to the first.
    Reversed,
    /// The program's own, the same each time.
    Own,
    /// Another one each time.
    EachTime,
}

impl Reads {
    /// Whether the same program reads the same model in the same way each time.
    pub fn is_same_each_time(&self) -> bool {
        !self.listing && self.files != Order::EachTime && self.within != Order::EachTime
    }
}

/// All scenarios of a text.
///
/// # Errors
/// When it is not what this module describes, or names a store that is not there.
pub fn parse(text: &str) -> Result<Vec<Definition>> {
    let all: Vec<Definition> = serde_json::from_str(text).context("scenarios of days")?;
    for scenario in &all {
        for program in &scenario.programs {
            ensure!(
                scenario.stores.iter().any(|store| store.name == program.store),
                "scenario {}: {} reads {}, which is not among its stores",
                scenario.name,
                program.name,
                program.store
            );
        }
        let same = all.iter().filter(|other| other.name == scenario.name).count();
        ensure!(same == 1, "scenario {}: there are {same} of this name", scenario.name);
        ensure!(
            !scenario.about.is_empty(),
            "scenario {}: nothing is said about it",
            scenario.name
        );
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_needs_its_store() {
        let text = SCENARIOS.replacen("\"store\": \"", "\"store\": \"not-", 1);
        let error = parse(&text).unwrap_err().to_string();
        assert!(error.contains("not among its stores"), "{error}");
    }
}
