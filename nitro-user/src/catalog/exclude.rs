//! What below the watch roots is left out: `--exclude`.
//!
//! A pattern without a slash is matched with names, one with a slash with paths below a root. A directory that is left out is not entered. A file
//! with several names stays as long as one of them does.

use std::{ffi::OsStr, path::Path, sync::Arc};

use globset::{Glob, GlobBuilder, GlobSet, GlobSetBuilder};

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

/// All patterns; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Exclude(Option<Arc<Sets>>);

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
        Ok(Self(Some(Arc::new(Sets {
            names: names.build()?,
            paths: paths.build()?,
        }))))
    }

    /// Whether `name` in the directory `below` a root is left out.
    pub fn covers(&self, below: &Path, name: &OsStr) -> bool {
        self.0.as_ref().is_some_and(|sets| {
            sets.names.is_match(Path::new(name)) || !sets.paths.is_empty() && sets.paths.is_match(below.join(name))
        })
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

    #[test]
    fn a_pattern_without_a_slash_is_one_of_names() {
        let exclude = exclude(&["*.tmp", "cache/"]);
        let below = Path::new("a/b");
        assert!(exclude.covers(below, "x.tmp".as_ref()));
        assert!(exclude.covers(below, "cache".as_ref()));
        assert!(!exclude.covers(below, "x.tmp.gguf".as_ref()));
        assert!(
            !exclude.covers(Path::new("x.tmp"), "model.gguf".as_ref()),
            "its directory is not entered"
        );
        assert!(exclude.covers(below, OsStr::from_bytes(b"\xff\xfe.tmp")));
    }

    #[test]
    fn a_pattern_with_a_slash_is_one_of_paths_below_a_root() {
        let exclude = exclude(&["old/*.gguf", "/archive/**", "**/tmp/*"]);
        assert!(exclude.covers(Path::new("old"), "a.gguf".as_ref()));
        assert!(!exclude.covers(Path::new("old/older"), "a.gguf".as_ref()));
        assert!(!exclude.covers(Path::new(""), "a.gguf".as_ref()));
        assert!(exclude.covers(Path::new("archive/x"), "a.gguf".as_ref()));
        assert!(exclude.covers(Path::new("x/y/tmp"), "a.gguf".as_ref()));
    }

    #[test]
    fn nothing_is_left_out_unless_it_is_said() {
        assert!(!Exclude::default().covers(Path::new(""), "a".as_ref()));
        assert!(Exclude::new(&[]).unwrap().0.is_none());
        assert!("a{b".parse::<Pattern>().is_err());
    }
}
