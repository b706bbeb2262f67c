//! The disk with the files of a day.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use nitro_user::sim::baseline::Baseline;

use super::{
    super::record::{Day, ModelDef},
    warmer::Warmer,
};
use crate::{
    disk::TestDisk,
    limit::{IoLimit, Limit},
    scratch::ScratchDir,
    sys,
    tree::{gguf, safetensors, series},
};

/// Tensors of a file of them.
const TENSORS: u64 = 32;

/// What a day is played on.
pub struct Stage {
    /// The agent.
    pub agent: PathBuf,
    /// This program.
    pub program: PathBuf,
    /// Where each file of the day is.
    pub paths: Vec<PathBuf>,
    // Members before their disk, which cannot be unmounted under them.
    pub group: IoLimit,
    pub disk: TestDisk,
    sockets: ScratchDir,
}

impl Stage {
    /// Makes the disk and writes the files.
    pub fn new(base: &Path, day: &Day, agent: PathBuf, program: PathBuf) -> Result<Self> {
        let bytes: u64 = day.files.iter().map(|file| file.size).sum();
        let disk = TestDisk::new(base, bytes + bytes / 8 + (256 << 20))?;
        let group = IoLimit::new()?;
        let mut paths = Vec::new();
        for (seed, file) in day.files.iter().enumerate() {
            let path = disk.path().join(file.path.trim_start_matches('/'));
            write(&path, seed as u64 + 1, file.size).with_context(|| format!("write {}", path.display()))?;
            paths.push(path);
        }
        let limit = Limit {
            bytes_per_second: (day.device.limit * 1e6) as u64,
            operations_per_second: day.device.requests as u64,
        };
        disk.limit(&group, limit)?;
        let sockets = ScratchDir::new(&std::env::temp_dir())?;
        Ok(Self {
            agent,
            program,
            paths,
            group,
            disk,
            sockets,
        })
    }

    /// A prefetcher that is told, at work.
    pub fn warmer(&self, kind: Baseline) -> Result<Warmer> {
        Warmer::start(
            &self.program,
            kind,
            &self.sockets.path().join("warmer"),
            &self.paths,
            &self.group,
        )
    }

    /// Takes a model out of the page cache.
    pub fn evict(&self, model: &ModelDef) -> Result<()> {
        for path in model.parts.iter().filter_map(|part| self.paths.get(*part)) {
            let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
            sys::drop_pages(&file).with_context(|| format!("drop {} from the page cache", path.display()))?;
        }
        Ok(())
    }
}

/// A file of about so many bytes, of the format that its name says.
fn write(path: &Path, seed: u64, bytes: u64) -> Result<()> {
    let parent = path.parent().context("a file without a directory")?;
    fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("gguf") => gguf::write(path, seed, bytes, None),
        Some("safetensors") => safetensors::write(path, seed, bytes, "model.layers", TENSORS).map(drop),
        _ => {
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .context("a file without a name")?;
            series::named(parent, &[name], seed, bytes).map(drop)
        }
    }
}
