//! A Hugging Face hub cache: `models--org--name/{refs,blobs,snapshots/<revision>/…}`, snapshots being links to blobs.
//!
//! In: names, links, `refs/main`. Out: the group that a blob belongs to, by the names that a snapshot gives it: those
//! names say what the other layouts need (shard numbers, an index beside them). The revision in `refs/main` goes first.
//!
//! It follows no link itself: the view does, and only below the roots.

use std::path::{Path, PathBuf};

use super::{
    Group, Layout, Listed, Member, View, diffusers::Diffusers, gguf::Gguf, numbered::Numbered, plain_name,
    safetensors::Safetensors,
};
use crate::{catalog::model::LayoutKind, units::FileId};

/// Most names that are looked at in the snapshots of one repository.
const MOST_NAMES: usize = 20_000;
/// Directories below a snapshot: `unet/`, `text_encoder/` …
const MOST_DEPTH: usize = 4;
/// A revision is 40 hex digits; a branch name is short, too.
const MOST_REVISION: u64 = 256;

/// The layout.
#[derive(Debug)]
pub struct HuggingFace;

impl Layout for HuggingFace {
    fn kind(&self) -> LayoutKind {
        LayoutKind::HuggingFace
    }

    fn group_of(&self, view: &dyn View, named: &Path) -> Option<Group> {
        let (repository, name) = repository_of(named)?;
        let asked = view.file(named)?;
        let found = name_in_snapshots(view, repository, asked.file, named)?;
        let inner: [&dyn Layout; 4] = [&Diffusers, &Gguf, &Safetensors, &Numbered];
        let group = inner.iter().find_map(|layout| layout.group_of(view, &found));
        let members = group.map_or_else(|| vec![Member { seen: asked, header: 0 }], |group| group.members);
        Some(Group { name, members })
    }
}

/// The repository's directory above `path`, and its name for people: `org/name`.
fn repository_of(path: &Path) -> Option<(&Path, String)> {
    path.ancestors().skip(2).find_map(|directory| {
        let name = directory.file_name()?.to_string_lossy();
        let rest = ["models--", "datasets--", "spaces--"]
            .iter()
            .find_map(|kind| name.strip_prefix(kind))?;
        let inside = path.strip_prefix(directory).ok()?;
        let known = inside.starts_with("blobs") || inside.starts_with("snapshots");
        known.then(|| (directory, rest.replacen("--", "/", 1)))
    })
}

/// A name of `file` in a snapshot, the preferred revision's first; `named` itself when it is one already.
fn name_in_snapshots(view: &dyn View, repository: &Path, file: FileId, named: &Path) -> Option<PathBuf> {
    let snapshots = repository.join("snapshots");
    if named.starts_with(&snapshots) {
        return Some(named.to_owned());
    }
    let mut budget = MOST_NAMES;
    let main = preferred_revision(view, repository).map(|revision| snapshots.join(revision));
    if let Some(found) = main
        .as_ref()
        .and_then(|main| name_below(view, main, file, MOST_DEPTH, &mut budget))
    {
        return Some(found);
    }
    let mut others = Vec::new();
    view.list(&snapshots, &mut |name, listed| {
        if listed == Listed::Directory {
            others.push(snapshots.join(name));
        }
        others.len() < MOST_NAMES
    });
    // In a defined order, so that the answer does not waver.
    others.sort_unstable();
    others
        .iter()
        .find_map(|snapshot| name_below(view, snapshot, file, MOST_DEPTH, &mut budget))
}

/// The revision that `refs/main` names.
fn preferred_revision(view: &dyn View, repository: &Path) -> Option<String> {
    let path = repository.join("refs/main");
    let text = view.read(&path, MOST_REVISION)?.bytes;
    let revision = std::str::from_utf8(&text).ok().map(str::trim).and_then(plain_name);
    if revision.is_none() {
        view.refuse(&path, "it does not name a revision");
    }
    revision.map(str::to_owned)
}

/// The path below `directory` that leads to `file`.
fn name_below(view: &dyn View, directory: &Path, file: FileId, depth: usize, budget: &mut usize) -> Option<PathBuf> {
    let (mut names, mut below) = (Vec::new(), Vec::new());
    view.list(directory, &mut |name, listed| {
        match listed {
            Listed::Directory => below.push(directory.join(name)),
            Listed::File(_) | Listed::Link => names.push(directory.join(name)),
        }
        *budget = budget.saturating_sub(1);
        *budget > 0
    });
    names.sort_unstable();
    below.sort_unstable();
    let here = names
        .into_iter()
        .find(|name| view.file(name).is_some_and(|seen| seen.file == file));
    here.or_else(|| {
        let deeper = depth.checked_sub(1)?;
        below
            .iter()
            .find_map(|below| name_below(view, below, file, deeper, budget))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::layout::MemoryView;

    const REPOSITORY: &str = "/hub/models--org--name--with--dashes";

    fn repository() -> MemoryView {
        let mut view = MemoryView::default();
        for blob in ["one", "two", "lone"] {
            view.add_file(format!("{REPOSITORY}/blobs/{blob}"), 1 << 30, []);
        }
        view.add_link(
            format!("{REPOSITORY}/snapshots/new/model-00001-of-00002.safetensors"),
            "../../blobs/two",
        );
        view.add_link(
            format!("{REPOSITORY}/snapshots/new/model-00002-of-00002.safetensors"),
            "../../blobs/one",
        );
        view.add_link(
            format!("{REPOSITORY}/snapshots/a-old/model-00001-of-00002.safetensors"),
            "../../blobs/one",
        );
        view.add_link(
            format!("{REPOSITORY}/snapshots/new/vae/weights.xyz"),
            "../../../blobs/lone",
        );
        view
    }

    fn blobs(view: &MemoryView, asked: &str) -> Vec<PathBuf> {
        let group = HuggingFace.group_of(view, &Path::new(REPOSITORY).join(asked)).unwrap();
        assert_eq!(group.name, "org/name--with--dashes");
        group.members.into_iter().map(|member| member.seen.path).collect()
    }

    #[test]
    fn the_revision_in_refs_main_gives_the_order() {
        let mut view = repository();
        let blob = |name: &str| Path::new(REPOSITORY).join("blobs").join(name);
        // Without a reference the first revision by name that has the file.
        assert_eq!(blobs(&view, "blobs/one"), [blob("one")]);
        view.add_file(format!("{REPOSITORY}/refs/main"), 0, "new\n");
        assert_eq!(blobs(&view, "blobs/one"), [blob("two"), blob("one")]);
        assert_eq!(
            blobs(&view, "snapshots/new/model-00002-of-00002.safetensors"),
            [blob("two"), blob("one")]
        );
    }

    #[test]
    fn a_file_that_no_other_layout_knows_is_a_model_by_itself() {
        assert_eq!(
            blobs(&repository(), "blobs/lone"),
            [Path::new(REPOSITORY).join("blobs/lone")]
        );
    }

    #[test]
    fn a_reference_that_climbs_is_refused() {
        let mut view = repository();
        view.add_file(format!("{REPOSITORY}/refs/main"), 0, "../../../etc");
        assert_eq!(blobs(&view, "blobs/two").len(), 2);
        assert_eq!(view.refusals().len(), 1);
    }

    #[test]
    fn only_blobs_and_snapshots_of_a_repository_are_meant() {
        let mut view = repository();
        view.add_file("/hub/other/blobs/one", 1 << 30, [])
            .add_file(format!("{REPOSITORY}/notes/x"), 1 << 30, []);
        for path in ["/hub/other/blobs/one".into(), format!("{REPOSITORY}/notes/x")] {
            assert!(HuggingFace.group_of(&view, Path::new(&path)).is_none(), "{path}");
        }
    }
}
