//! What a scan found, as values for the start-up lines: "12 models, 80 GB, outside: add --watch /data".

use std::{collections::BTreeMap, path::PathBuf};

use super::model::LayoutKind;
use crate::units::ByteCount;

/// The result of looking through all roots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScanReport {
    /// Distinct regular files; a file with several names counts once.
    pub files: u64,
    /// Their sizes together.
    pub bytes: ByteCount,
    /// Directories.
    pub directories: u64,
    /// Models found, by what made them models. Only layouts that mean a model are counted (Ollama, Hugging Face, GGUF,
    /// safetensors), and only from names and small manifests: a damaged file still counts.
    pub models: BTreeMap<LayoutKind, u64>,
    /// Symbolic links that lead out of the roots: the directory that holds their target, and how many lead there; the
    /// most frequent first.
    pub outside: Vec<(PathBuf, u64)>,
    /// What was left out and why, one line each.
    pub warnings: Vec<String>,
}

impl ScanReport {
    /// All models of all layouts.
    pub fn all_models(&self) -> u64 {
        self.models.values().sum()
    }
}

impl ScanReport {
    /// The start-up lines: `12 models, 80 GiB in 96 files`, and where links lead outside.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "{} models, {} in {} files",
            self.models.values().sum::<u64>(),
            self.bytes,
            self.files
        )];
        for (folder, count) in &self.outside {
            lines.push(format!("{count} links lead outside: add --watch {}", folder.display()));
        }
        lines
    }
}
