//! Known arrangements on disk: which files are loaded together, in which order.
//!
//! In: a [`View`] of what is below the watch roots, and a file. Out: the [`Group`] it belongs to. One layout per file.
//! All they see is other people's: names, manifests, headers. So they are pure functions over the view, which bounds every read
//! and knows nothing outside the roots; what a manifest names and the view does not know does not exist.
//!
//! They open nothing, and keep nothing.

pub mod chunks;
pub mod diffusers;
pub mod gguf;
#[cfg(test)]
mod hostile;
pub mod hugging_face;
pub mod numbered;
pub mod ollama;
pub mod safetensors;
pub mod siblings;
pub mod split;
pub mod torch_zip;
#[cfg(any(test, feature = "trial"))]
pub mod trial;
pub mod view;

use std::path::{Path, PathBuf};

pub use view::{Content, Listed, MemoryView, Refusal, Seen, View, read_small};

use super::model::LayoutKind;

/// Most files in a group. Of longer series (a data set of a million frames) a group holds the files from a little
/// before the one that was asked about; the next question, further on, gets the next ones.
pub const MOST_PARTS: usize = 4096;

/// Files before the one that was asked about which a group of a long series still holds.
pub const PARTS_BEFORE: usize = 64;

/// Headers read for one group, from the file that was asked about: each is a seek on a cold disk.
pub const MOST_HEADERS: usize = 16;

/// One file of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// What the view knows of it.
    pub seen: Seen,
    /// Bytes before its first tensor; 0 where not known.
    pub header: u64,
}

/// Files that are loaded together, in the order in which they are loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// For people.
    pub name: String,
    /// The files, each once; among them the one that was asked about.
    pub members: Vec<Member>,
}

/// One known arrangement.
pub trait Layout: Sync {
    /// Which one.
    fn kind(&self) -> LayoutKind;

    /// The group of the file that is called `named` (absolute, below a root; may be a link), or `None` when this layout
    /// does not apply to it.
    fn group_of(&self, view: &dyn View, named: &Path) -> Option<Group>;
}

/// All layouts, the surest first.
pub const LAYOUTS: [&dyn Layout; 9] = [
    &ollama::Ollama,
    &hugging_face::HuggingFace,
    &diffusers::Diffusers,
    &chunks::Chunks,
    &gguf::Gguf,
    &safetensors::Safetensors,
    &numbered::Numbered,
    &torch_zip::TorchZip,
    &siblings::Siblings,
];

/// The first layout that knows the file, and its group.
pub fn group_of(view: &dyn View, named: &Path) -> Option<(LayoutKind, Group)> {
    LAYOUTS
        .iter()
        .find_map(|layout| Some((layout.kind(), layout.group_of(view, named)?)))
}

/// The group of the files called `paths`, those that exist, each once; `None` when the file called `named` is not
/// among them. `header` reads the header of the few around it.
fn group(
    view: &dyn View,
    named: &Path,
    name: String,
    paths: impl IntoIterator<Item = PathBuf>,
    header: &dyn Fn(&Seen) -> u64,
) -> Option<Group> {
    let asked = view.file(named)?.file;
    let mut known = std::collections::HashSet::new();
    let mut members: Vec<Member> = paths
        .into_iter()
        .take(MOST_PARTS)
        .filter_map(|path| view.file(&path))
        .filter(|seen| known.insert(seen.file))
        .map(|seen| Member { seen, header: 0 })
        .collect();
    let position = members.iter().position(|member| member.seen.file == asked)?;
    for member in members.iter_mut().skip(position).take(MOST_HEADERS) {
        // A header that claims to be longer than its file is no header.
        member.header = Some(header(&member.seen))
            .filter(|header| *header <= member.seen.size)
            .unwrap_or(0);
    }
    Some(Group { name, members })
}

/// A file name for people.
fn printable(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// `name` as the name of one file in a directory: not empty, no slash, no `..`, no longer than names can be.
fn plain_name(name: &str) -> Option<&str> {
    let plain = !name.is_empty() && name.len() <= 255 && name != "." && name != ".." && !name.contains(['/', '\0']);
    plain.then_some(name)
}
