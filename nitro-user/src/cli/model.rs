//! What the user means by FILE, DIR or MODEL: a path, or the name of a model as the catalog tells it.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::bail;

use crate::{
    catalog::{
        Catalog, SMALLEST_WATCHED, WatchRoot,
        exclude::Exclude,
        model::{Model, Place},
        open_roots,
    },
    config::resolve_home,
    discover::finder::Finder,
    units::printable,
};

/// Names that are told when the right one was not found.
const MOST_TOLD: usize = 12;

/// What was meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meant {
    /// Files, or directories with everything below them.
    pub paths: Vec<PathBuf>,
    /// Directories to be watched for it.
    pub watch: Vec<PathBuf>,
}

/// Finds what `what` is; a name is looked for below `watch`, or, without, where models usually are.
///
/// # Errors
/// There is no such file and no such model, or several.
pub fn find(what: &Path, watch: &[PathBuf]) -> anyhow::Result<Meant> {
    let path = resolve_home(what);
    let watch: Vec<PathBuf> = watch.iter().map(|dir| resolve_home(dir)).collect();
    if path.exists() {
        return Ok(Meant {
            paths: vec![path],
            watch,
        });
    }
    let name = what.to_string_lossy();
    let roots = if watch.is_empty() {
        let found = Finder::default().look();
        let root = |one: &crate::discover::Suggestion| WatchRoot::suggested(one.top.clone(), one.identity, &one.why);
        found.watch.iter().map(root).collect()
    } else {
        open_roots(&watch, false)?
    };
    let models = models(&roots);
    let meant: Vec<&Arc<Model>> = models.iter().filter(|model| is_meant(&model.name, &name)).collect();
    match meant.as_slice() {
        [model] => {
            let roots = model.parts.iter().map(|part| part.place.root.to_path_buf());
            let mut watch: Vec<PathBuf> = watch.into_iter().chain(roots).collect();
            watch.sort();
            watch.dedup();
            let paths = model.parts.iter().map(|part| part.place.root.join(&part.place.below));
            Ok(Meant {
                paths: paths.collect(),
                watch,
            })
        }
        [] => {
            let mut names: Vec<String> = models.iter().map(|model| printable(&model.name)).collect();
            names.sort();
            names.dedup();
            let known = match names.len() {
                0 => "no model is known here: say where they are with --watch DIR".to_owned(),
                1..=MOST_TOLD => format!("known here: {}", names.join(", ")),
                more => format!(
                    "known here: {} and {} more",
                    names[..MOST_TOLD].join(", "),
                    more - MOST_TOLD
                ),
            };
            bail!("there is no file and no model {}; {known}", printable(&name))
        }
        [one, other, ..] => bail!(
            "{} is the name of several models, in {} and in {}: say which with --watch DIR, or by its path",
            printable(&name),
            printable(
                &one.parts
                    .first()
                    .map_or_else(Default::default, |part| part.place.root.to_string_lossy())
            ),
            printable(
                &other
                    .parts
                    .first()
                    .map_or_else(Default::default, |part| part.place.root.to_string_lossy())
            )
        ),
    }
}

/// What an agent that watches these directories calls the models that these files are of, and the files by themselves.
///
/// # Errors
/// A directory cannot be looked at.
pub fn names<'a>(watched: &[PathBuf], files: impl Iterator<Item = &'a Path>) -> anyhow::Result<HashSet<String>> {
    let wanted: HashSet<&Path> = files.collect();
    let roots = open_roots(watched, false)?;
    let (mut catalog, _) = Catalog::scan(&roots, Arc::default(), Exclude::default());
    let mut names: HashSet<String> = wanted
        .iter()
        .filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
        .collect();
    let files: Vec<_> = catalog.files().filter(|(_, size)| *size >= SMALLEST_WATCHED).collect();
    for (file, _) in files {
        let is_wanted = |place: Place| wanted.contains(place.root.join(&place.below).as_path());
        if catalog.place(file).is_some_and(is_wanted)
            && let Some(described) = catalog.describe(file)
        {
            names.insert(described.model.name.clone());
        }
    }
    Ok(names)
}

/// All models below the roots.
fn models(roots: &[WatchRoot]) -> Vec<Arc<Model>> {
    let (mut catalog, _) = Catalog::scan(roots, Arc::default(), Exclude::default());
    let mut files: Vec<_> = catalog.files().filter(|(_, size)| *size >= SMALLEST_WATCHED).collect();
    // Each model is told once, by its first file.
    files.sort_unstable();
    let mut known = HashSet::new();
    let mut models: Vec<Arc<Model>> = Vec::new();
    for (file, _) in files {
        if let Some(described) = catalog.describe(file)
            && known.insert(Arc::as_ptr(&described.model))
        {
            models.push(described.model);
        }
    }
    models
}

/// A model without a tag is its latest one, as Ollama has it.
fn is_meant(model: &str, name: &str) -> bool {
    model == name || model.strip_suffix(":latest") == Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::tree::{gguf, ollama};

    #[test]
    fn a_model_is_found_by_its_name_and_told_where_there_is_no_such() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let store = ollama::model(&root, "llama", "8b", 1, 4 << 20).unwrap();
        ollama::model(&root, "other", "latest", 2, 4 << 20).unwrap();
        let watch = [root.clone()];
        let meant = find(Path::new("llama:8b"), &watch).unwrap();
        assert!(meant.paths.contains(store.files.last().unwrap()), "{meant:?}");
        assert_eq!(meant.watch, watch);
        assert!(!find(Path::new("other"), &watch).unwrap().paths.is_empty());
        let error = find(Path::new("lama"), &watch).unwrap_err().to_string();
        assert!(error.contains("llama:8b") && error.contains("other"), "{error}");
    }

    #[test]
    fn files_are_of_the_models_that_the_agent_names() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let store = ollama::model(&root, "llama", "8b", 1, 4 << 20).unwrap();
        ollama::model(&root, "other", "latest", 2, 4 << 20).unwrap();
        let names = names(&[root], store.files.iter().map(PathBuf::as_path)).unwrap();
        assert!(
            names.contains("llama:8b") && !names.iter().any(|name| name.contains("other")),
            "{names:?}"
        );
    }

    #[test]
    fn a_path_goes_before_a_name() {
        let dir = tempfile::tempdir().unwrap();
        let tree = gguf::single(dir.path(), "m", 1, 2 << 20).unwrap();
        let meant = find(&tree.files[0], &[]).unwrap();
        assert_eq!(meant.paths, tree.files);
        assert!(meant.watch.is_empty());
    }
}
