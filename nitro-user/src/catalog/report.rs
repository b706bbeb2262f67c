//! What a scan found, as values for the start-up lines: "12 models, 80 GB, outside: add --watch /data".

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    Catalog,
    layout::split,
    links::{Target, resolve},
    model::LayoutKind,
    table::{DirNumber, NONE},
};
use crate::units::ByteCount;

/// The result of looking through all roots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScanReport {
    /// Which part of the catalog has found it: see `parts`.
    pub part: usize,
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
    /// The roots, in their order, without those that were unwatched.
    pub roots: Vec<RootReport>,
    /// Paths that were unwatched.
    pub unwatched: Vec<PathBuf>,
    /// What was left out and why, one line each.
    pub warnings: Vec<String>,
}

/// One root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootReport {
    /// Its canonical path; as it was given while it does not exist.
    pub path: PathBuf,
    /// Whether it is there, and may be looked at.
    pub present: bool,
    /// Not even root may look at it: its files are known once somebody reads them.
    pub refused: bool,
    /// Why it was suggested; `None` for one that the administrator named.
    pub why: Option<Arc<str>>,
    /// What is in it; `None` for a root that lies in another one, which holds its files.
    pub holds: Option<Holds>,
}

/// What is in one root.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holds {
    /// Models, counted as in [`ScanReport::models`].
    pub models: u64,
    /// Distinct files that have their first name in it.
    pub files: u64,
    /// Their bytes.
    pub bytes: ByteCount,
}

impl ScanReport {
    /// What several parts have found, as one.
    pub fn joined<'a>(reports: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut all = Self::default();
        for report in reports {
            all.files += report.files;
            all.bytes.0 = all.bytes.0.saturating_add(report.bytes.0);
            all.directories += report.directories;
            for (kind, count) in &report.models {
                *all.models.entry(*kind).or_default() += count;
            }
            all.outside.extend(report.outside.iter().cloned());
            all.roots.extend(report.roots.iter().cloned());
            for path in &report.unwatched {
                if !all.unwatched.contains(path) {
                    all.unwatched.push(path.clone());
                }
            }
        }
        all.outside.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        all
    }

    /// All models of all layouts.
    pub fn all_models(&self) -> u64 {
        self.models.values().sum()
    }
}

/// Directories that links lead to which are listed; the rest is counted under the last.
const MOST_OUTSIDE: usize = 16;

impl Catalog {
    /// What is in the catalog now.
    pub(super) fn report(&mut self) -> ScanReport {
        let mut report = ScanReport {
            part: self.part,
            files: self.table.file_count() as u64,
            bytes: ByteCount(self.table.bytes()),
            directories: self.table.dir_count() as u64,
            outside: self.outside(),
            ..ScanReport::default()
        };
        let mut holds = vec![Holds::default(); self.anchors.len()];
        self.count_models(|root, kind| {
            *report.models.entry(kind).or_default() += 1;
            if let Some(holds) = holds.get_mut(root as usize) {
                holds.models += 1;
            }
        });
        for node in self.table.file_nodes() {
            let root = self.table.dir(self.table.parent(node)).map_or(NONE, |dir| dir.root);
            let size = self.table.as_file(node).map_or(0, |(_, size)| size);
            if let Some(holds) = holds.get_mut(root as usize) {
                holds.files += 1;
                holds.bytes.0 = holds.bytes.0.saturating_add(size);
            }
        }
        let roots = self.anchors.iter().zip(holds).filter(|(anchor, _)| !anchor.dropped);
        report.roots = roots
            .map(|(anchor, holds)| RootReport {
                path: anchor.root.path.to_path_buf(),
                present: anchor.root.present,
                refused: self.is_refused(&anchor.root.path),
                why: anchor.root.suggested.as_ref().map(|suggested| suggested.why.clone()),
                holds: (anchor.dir.is_some() || !anchor.root.present).then_some(holds),
            })
            .collect();
        report.unwatched = self.exclude.unwatched().to_vec();
        report.warnings = self.take_warnings();
        report
    }

    /// Where links lead that leave the roots.
    fn outside(&self) -> Vec<(PathBuf, u64)> {
        let mut places: HashMap<PathBuf, u64> = HashMap::new();
        for link in self.table.links() {
            let Some(text) = self.table.as_link(link) else { continue };
            // What it names is a path of another namespace.
            let dir = self.table.dir(self.table.parent(link));
            let root = dir.and_then(|dir| self.anchors.get(dir.root as usize));
            if root.is_some_and(|anchor| anchor.root.path.process().is_some()) {
                continue;
            }
            if let Target::Outside(path) = resolve(&self.table, &self.anchors, Some(self.table.parent(link)), text) {
                let place = path.parent().map_or_else(|| path.clone(), Path::to_owned);
                *places.entry(place).or_default() += 1;
            }
        }
        let mut places: Vec<_> = places.into_iter().collect();
        places.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        places.truncate(MOST_OUTSIDE);
        places
    }

    /// Counts models by the names of files and directories alone: `count` gets the number of the root and what made it a model.
    fn count_models(&self, mut count: impl FnMut(u32, LayoutKind)) {
        let mut pipelines = HashSet::new();
        for dir in self.table.dirs() {
            let child = |name: &[u8]| self.table.child(dir, name).and_then(|node| self.table.as_dir(node));
            let (root, node) = self.table.dir(dir).map_or((NONE, NONE), |dir| (dir.root, dir.node));
            if let (Some(manifests), Some(_)) = (child(b"manifests"), child(b"blobs")) {
                (0..self.files_at(manifests, 3)).for_each(|_| count(root, LayoutKind::Ollama));
            }
            if node != NONE && self.table.name(node).starts_with(b"models--") && child(b"snapshots").is_some() {
                count(root, LayoutKind::HuggingFace);
            }
            let index = self.table.child(dir, b"model_index.json");
            if index.is_some_and(|node| self.table.as_file(node).is_some()) {
                count(root, LayoutKind::Diffusers);
                pipelines.insert(dir);
            }
        }
        let mut series = HashSet::new();
        for node in self.table.file_nodes() {
            let name = self.table.name(node);
            let kind = if name.ends_with(b".gguf") {
                LayoutKind::Gguf
            } else if name.ends_with(b".safetensors") {
                LayoutKind::Safetensors
            } else {
                continue;
            };
            let parent = self.table.dir(self.table.parent(node));
            let (root, component) = parent.map_or((NONE, NONE), |dir| (dir.root, dir.node));
            if component != NONE && pipelines.contains(&self.table.parent(component)) {
                continue;
            }
            // All parts of a series are one model. Only parts are remembered: names alone are different anyway.
            let part = split::parse(name).is_some();
            if !part || series.insert((self.table.parent(node), split::series_of(name).to_owned())) {
                count(root, kind);
            }
        }
    }

    /// Files exactly `levels` directories below `dir`.
    fn files_at(&self, dir: DirNumber, levels: u32) -> u64 {
        let mut count = 0;
        let mut open = vec![(dir, levels)];
        while let Some((dir, levels)) = open.pop() {
            for node in self.table.children(dir) {
                match self.table.as_dir(node) {
                    Some(below) if levels > 0 => open.push((below, levels - 1)),
                    None if levels == 0 && self.table.as_file(node).is_some() => count += 1,
                    _ => {}
                }
            }
        }
        count
    }
}
