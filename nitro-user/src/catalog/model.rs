//! What the catalog tells the engine: models, their parts and their order. Values only.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{
    sys::top::Top,
    units::{FileId, Moment},
};

/// Smallest file that the kernel filter is told of. Below it (manifests, tokenizers, configuration) a file is read in
/// one kernel readahead, so that warming it gains less than the event costs; in the catalog it still is.
pub const SMALLEST_WATCHED: u64 = 1 << 20;

/// A file that was written to less than so long ago may not be complete.
pub const AT_REST: Duration = Duration::from_secs(10);

/// The arrangement on disk that made a model of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LayoutKind {
    /// Ollama manifests and blobs.
    Ollama,
    /// A snapshot in a Hugging Face hub cache.
    HuggingFace,
    /// One GGUF file or its `-00001-of-0000N` splits.
    Gguf,
    /// safetensors shards, with or without an index.
    Safetensors,
    /// A diffusers pipeline: the components that `model_index.json` names.
    Diffusers,
    /// A store of chunks named by hashes: no order.
    Chunks,
    /// A zip archive of tensors, as `torch.save` writes it.
    TorchZip,
    /// Any `name-00001.ext` series.
    Numbered,
    /// Nothing but a directory and an extension in common: weak, taken up only after two reads in order.
    Siblings,
    /// A file by itself.
    Single,
}

impl LayoutKind {
    /// As in JSON, for people and as a key.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ollama => "ollama",
            Self::HuggingFace => "hugging-face",
            Self::Gguf => "gguf",
            Self::Safetensors => "safetensors",
            Self::Diffusers => "diffusers",
            Self::Chunks => "chunks",
            Self::TorchZip => "torch-zip",
            Self::Numbered => "numbered",
            Self::Siblings => "siblings",
            Self::Single => "single",
        }
    }
}

/// Where a file is: below which root, and by which name in it. Names need not be UTF-8.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// The canonical path of the watch root.
    pub root: Top,
    /// Path below the root, without `..`, without symbolic links.
    pub below: PathBuf,
}

/// One file of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Which file.
    pub file: FileId,
    /// Its size in bytes when the catalog last looked.
    pub size: u64,
    /// Bytes at its start that tools read just to list it; reading no further is weak evidence.
    /// 0 where the format is not known.
    pub header: u64,
    /// The inode's generation where its number is not the only one on the file system (btrfs: each subvolume counts for itself), else 0.
    pub generation: u32,
    /// Where it is.
    pub place: Place,
    /// Where the file is that the page cache belongs to, if that is another one: a layer's, on an overlay.
    pub layer: Option<Place>,
}

impl Part {
    /// Where the warmers find it.
    pub fn source(&self) -> &Place {
        self.layer.as_ref().unwrap_or(&self.place)
    }

    /// Whether anybody is told when it is used, or leaves the page cache.
    pub const fn is_watched(&self) -> bool {
        self.size >= SMALLEST_WATCHED
    }

    /// Whether it is the absolute path `path`, or below it.
    pub fn is_at(&self, path: &Path) -> bool {
        self.place.root.join(&self.place.below).starts_with(path)
    }
}

/// Files that are loaded together, in the order in which they are loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// For people: `llama3:8b`, `org/name`, a file name. Bytes that are not UTF-8 are replaced.
    pub name: String,
    /// What made it a model.
    pub layout: LayoutKind,
    /// Its files, never empty.
    pub parts: Vec<Part>,
    /// Reading costs money where they are: their loads are followed, and nothing is read for them.
    pub observe_only: bool,
    /// The agent may not open them: they are borrowed of whoever has them open.
    pub lent: bool,
    /// Others may change its files and nothing tells of it: what is known of it holds for one load.
    pub changes_unseen: bool,
}

/// The answer to "what is this file part of?".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// The file that was asked about.
    pub file: FileId,
    /// The model it belongs to.
    pub model: Arc<Model>,
    /// Its place in `model.parts`.
    pub position: usize,
    /// When it was last written to, if that was a short while ago and since the agent began.
    pub written: Option<Moment>,
}
