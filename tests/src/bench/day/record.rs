//! A day as a record: who loads what, when, how, in which order. It is drawn from a scenario and a seed, or read from a file that was written of one.

use std::path::PathBuf;

use anyhow::{Context, Result};
use nitro_user::catalog::model::LayoutKind;
use serde::{Deserialize, Serialize};

use super::definition::{DeviceDef, How};

/// A day.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Day {
    /// The scenario that it was drawn from …
    pub scenario: String,
    /// … and the seed.
    pub seed: u64,
    /// Bytes of memory.
    pub memory: u64,
    /// The device.
    pub device: DeviceDef,
    /// The files.
    pub files: Vec<FileDef>,
    /// The models.
    pub models: Vec<ModelDef>,
    /// The loads; each comes after the one that it follows.
    pub loads: Vec<Load>,
    /// Milliseconds after which the agent is started anew.
    pub restarts: Vec<u64>,
}

/// A file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileDef {
    /// Where.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Bytes of these that are its header.
    pub header: u64,
}

/// Files that belong together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelDef {
    /// Its name.
    pub name: String,
    /// What ties them together.
    pub layout: LayoutKind,
    /// Indexes of files.
    pub parts: Vec<usize>,
}

/// Bytes of a file: its index, the first, and the one after the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece(pub usize, pub u64, pub u64);

/// When a model was taken out of the page cache, so that a load is cold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cold {
    /// A second after the program's load before.
    Early,
    /// A second before this one.
    Late,
}

impl Cold {
    /// For people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Early => "early",
            Self::Late => "late",
        }
    }
}

/// One load.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Load {
    /// Whose.
    pub program: String,
    /// Index of the model.
    pub model: usize,
    /// The load after whose end it begins; without, the day's beginning.
    pub after: Option<usize>,
    /// Milliseconds from there.
    pub gap: u64,
    /// The load whose process this is too; without, it has one of its own.
    pub process: Option<usize>,
    /// How it reads.
    pub how: How,
    /// Its command line names the model.
    pub announced: bool,
    /// It keeps a copy.
    pub copies: bool,
    /// Microseconds of work for each MiB.
    pub think: u64,
    /// Microseconds of waiting for something else for each MiB.
    pub pause: u64,
    /// Milliseconds for which its process lives on.
    pub stays: u64,
    /// It is the second time that this program loads this model, in the same way; and it is cold.
    pub cold: Option<Cold>,
    /// It reads headers only.
    pub listing: bool,
    /// What it reads, in order.
    pub pieces: Vec<Piece>,
}

impl Day {
    /// Absolute paths of its files.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.files.iter().map(|file| file.path.clone().into()).collect()
    }

    /// For people.
    pub fn name(&self) -> String {
        format!("{} #{}", self.scenario, self.seed)
    }
}

/// The days of a file.
///
/// # Errors
/// When it is not what [`write()`] wrote.
pub fn parse(text: &str) -> Result<Vec<Day>> {
    text.lines()
        .map(|line| serde_json::from_str(line).context("a recorded day"))
        .collect()
}

/// Days as a file: one in each line.
///
/// # Errors
/// When a value has no form in JSON.
pub fn write(days: &[Day]) -> Result<String> {
    let lines = days
        .iter()
        .map(|day| serde_json::to_string(day).context("a day as JSON"));
    Ok(lines.collect::<Result<Vec<_>>>()?.join("\n") + "\n")
}
