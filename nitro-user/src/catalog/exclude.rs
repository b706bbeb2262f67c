//! What below the watch roots is left out: `--exclude`, and what was unwatched since.
//!
//! A pattern without a slash is matched with names, one with a slash with paths below a root. A directory that is left out is not entered. A file
//! with several names stays as long as one of them does. What is unwatched is named by absolute paths.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    sync::Arc,
};

use globset::{Glob, GlobBuilder, GlobSet, GlobSetBuilder};

/// Paths that may be unwatched: each name below the roots is compared with all of them.
const MOST_UNWATCHED: usize = 256;

/// A pattern, checked.
#[derive(Clone, Debug)]
pub struct Pattern {
    glob: Glob,
    of_paths: bool,
}

impl std::str::FromStr for Pattern {
    type Err = globset::Error;

    /// `*` and `?` stop at slashes, `**` does not.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let of_paths = text.trim_end_matches('/').contains('/');
        let text = text.trim_end_matches('/').trim_start_matches('/');
        let glob = GlobBuilder::new(text).literal_separator(true).build()?;
        Ok(Self { glob, of_paths })
    }
}

/// All that is left out; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Exclude {
    patterns: Option<Arc<Sets>>,
    /// Absolute; none below another.
    unwatched: Arc<[PathBuf]>,
}

#[derive(Debug)]
struct Sets {
    names: GlobSet,
    paths: GlobSet,
}

impl Exclude {
    /// Leaves out what any of `patterns` matches.
    ///
    /// # Errors
    /// When the patterns together are too large to be compiled.
    pub fn new(patterns: &[Pattern]) -> Result<Self, globset::Error> {
        if patterns.is_empty() {
            return Ok(Self::default());
        }
        let (mut names, mut paths) = (GlobSetBuilder::new(), GlobSetBuilder::new());
        for pattern in patterns {
            let set = if pattern.of_paths { &mut paths } else { &mut names };
            set.add(pattern.glob.clone());
        }
        let sets = Sets {
            names: names.build()?,
            paths: paths.build()?,
        };
        Ok(Self {
            patterns: Some(Arc::new(sets)),
            ..Self::default()
        })
    }

    /// The same, and what is at or below the absolute path `path`; `None` when that would be more paths than are kept.
    pub fn without(&self, path: &Path) -> Option<Self> {
        if self.is_unwatched(path) {
            return Some(self.clone());
        }
        let others = self.unwatched.iter().filter(|other| !other.starts_with(path));
        let unwatched: Vec<PathBuf> = others.cloned().chain([path.to_owned()]).collect();
        (unwatched.len() <= MOST_UNWATCHED).then(|| Self {
            patterns: self.patterns.clone(),
            unwatched: unwatched.into(),
        })
    }

    /// Whether the absolute path `path` is one that was unwatched, or below one.
    pub fn is_unwatched(&self, path: &Path) -> bool {
        self.unwatched.iter().any(|unwatched| path.starts_with(unwatched))
    }

    /// What was unwatched.
    pub fn unwatched(&self) -> &[PathBuf] {
        &self.unwatched
    }

    /// Whether `name` in the directory `below` the root at `root` is left out.
    pub fn covers(&self, root: &Path, below: &Path, name: &OsStr) -> bool {
        let by_pattern = self.patterns.as_ref().is_some_and(|sets| {
            sets.names.is_match(Path::new(name)) || !sets.paths.is_empty() && sets.paths.is_match(below.join(name))
        });
        by_pattern || !self.unwatched.is_empty() && self.is_unwatched(&root.join(below).join(name))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    fn exclude(patterns: &[&str]) -> Exclude {
        let patterns: Vec<Pattern> = patterns.iter().map(|text| text.parse().unwrap()).collect();
        Exclude::new(&patterns).unwrap()
    }

    fn covers(exclude: &Exclude, below: &Path, name: &OsStr) -> bool {
        exclude.covers(Path::new("/models"), below, name)
    }

    #[test]
    fn a_pattern_without_a_slash_is_one_of_names() {
        let exclude = exclude(&["*.tmp", "cache/"]);
        let below = Path::new("a/b");
        assert!(covers(&exclude, below, "x.tmp".as_ref()));
        assert!(covers(&exclude, below, "cache".as_ref()));
        assert!(!covers(&exclude, below, "x.tmp.gguf".as_ref()));
        assert!(
            !covers(&exclude, Path::new("x.tmp"), "model.gguf".as_ref()),
            "its directory is not entered"
        );
        assert!(covers(&exclude, below, OsStr::from_bytes(b"\xff\xfe.tmp")));
    }

    #[test]
    fn a_pattern_with_a_slash_is_one_of_paths_below_a_root() {
        let exclude = exclude(&["old/*.gguf", "/archive/**", "**/tmp/*"]);
        assert!(covers(&exclude, Path::new("old"), "a.gguf".as_ref()));
        assert!(!covers(&exclude, Path::new("old/older"), "a.gguf".as_ref()));
        assert!(!covers(&exclude, Path::new(""), "a.gguf".as_ref()));
        assert!(covers(&exclude, Path::new("archive/x"), "a.gguf".as_ref()));
        assert!(covers(&exclude, Path::new("x/y/tmp"), "a.gguf".as_ref()));
    }

    #[test]
    fn nothing_is_left_out_unless_it_is_said() {
        assert!(!covers(&Exclude::default(), Path::new(""), "a".as_ref()));
        assert!(Exclude::new(&[]).unwrap().patterns.is_none());
        assert!("a{b".parse::<Pattern>().is_err());
    }

    #[test]
    fn what_is_unwatched_is_left_out_with_all_below_it_and_nothing_beside_it() {
        let exclude = Exclude::default().without(Path::new("/models/a/b")).unwrap();
        assert!(covers(&exclude, Path::new("a"), "b".as_ref()));
        assert!(covers(&exclude, Path::new("a/b/c"), "d".as_ref()));
        assert!(!covers(&exclude, Path::new("a"), "bc".as_ref()));
        assert!(!covers(&exclude, Path::new(""), "a".as_ref()));
        assert!(!exclude.covers(Path::new("/other"), Path::new("a"), "b".as_ref()));
        let wider = exclude.without(Path::new("/models")).unwrap();
        assert_eq!(wider.unwatched(), [PathBuf::from("/models")]);
        let same = wider.without(Path::new("/models/a")).unwrap();
        assert_eq!(same.unwatched(), [PathBuf::from("/models")]);
    }

    #[test]
    fn no_more_paths_are_unwatched_than_each_name_can_be_compared_with() {
        let path = |number: usize| PathBuf::from(format!("/models/{number}"));
        let mut exclude = Exclude::default();
        for number in 0..MOST_UNWATCHED {
            exclude = exclude.without(&path(number)).unwrap();
        }
        assert!(exclude.without(&path(MOST_UNWATCHED)).is_none());
        assert!(
            exclude.without(Path::new("/models")).is_some(),
            "it takes the place of all others"
        );
    }
}
