//! The watch roots: the directories that the administrator named, or that were suggested, checked at the start.
//!
//! In: paths. Out: canonical directories, or an error that says what to do. A root of the administrator's may be a symbolic link; it is resolved
//! here, once, and from then on no link is followed. One that was suggested has been judged as the very directory that it was: another one there is
//! none. It does not look into the roots.

use std::{
    io,
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use super::{CatalogError, refused::is_refusal};
use crate::sys::{open::open_directory_beneath, stat::status_of, top::Top};

/// A directory given with `--watch`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchRoot {
    /// As it was given, made absolute: links below the roots may name it so.
    pub given: PathBuf,
    /// Its canonical path; the given one while it does not exist.
    pub path: Top,
    /// Whether it existed when last looked at.
    pub present: bool,
    /// What was suggested; `None` for one that the administrator named.
    pub suggested: Option<Suggested>,
}

/// The answer about a root that not even root may look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused;

/// A directory that somebody else named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suggested {
    /// `st_dev` and inode of the directory that was judged.
    pub identity: (u32, u64),
    /// Why it is watched, for people.
    pub why: Arc<str>,
}

/// Checks the directories `dirs` and makes them canonical; each directory once.
///
/// With `wait`, a directory that does not exist yet is accepted and picked up by the service when it appears.
///
/// # Errors
///
/// A missing directory without `wait`, something that is not a directory, a path that cannot be looked at.
pub fn open_roots(dirs: &[PathBuf], wait: bool) -> Result<Vec<WatchRoot>, CatalogError> {
    let mut roots: Vec<WatchRoot> = Vec::with_capacity(dirs.len());
    for dir in dirs {
        let root = match WatchRoot::look(dir)? {
            Some(root) => root,
            None if wait => {
                let given = absolute(dir)?;
                WatchRoot {
                    path: given.as_path().into(),
                    given,
                    present: false,
                    suggested: None,
                }
            }
            None => return Err(CatalogError::Missing { path: dir.clone() }),
        };
        if !roots
            .iter()
            .any(|known| known.path == root.path && known.given == root.given)
        {
            roots.push(root);
        }
    }
    Ok(roots)
}

impl WatchRoot {
    /// The root at `dir`, or `None` when nothing is there.
    ///
    /// # Errors
    ///
    /// It is not a directory, or cannot be looked at.
    pub fn look(dir: &Path) -> Result<Option<Self>, CatalogError> {
        let given = absolute(dir)?;
        let path = match given.canonicalize() {
            Ok(path) => path,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                return Err(CatalogError::NotADirectory { path: dir.to_owned() });
            }
            Err(source) => {
                return Err(CatalogError::Root {
                    path: dir.to_owned(),
                    source,
                });
            }
        };
        match path.metadata() {
            Ok(found) if found.is_dir() => Ok(Some(Self {
                given,
                path: path.into(),
                present: true,
                suggested: None,
            })),
            Ok(_) => Err(CatalogError::NotADirectory { path: dir.to_owned() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(CatalogError::Root {
                path: dir.to_owned(),
                source,
            }),
        }
    }
}

impl WatchRoot {
    /// A root at the absolute path `path`, which nobody has looked at: its server may not answer.
    pub(super) fn not_looked_at(path: &Path) -> Self {
        Self {
            given: path.to_owned(),
            path: path.into(),
            present: false,
            suggested: None,
        }
    }

    /// The root at `top`, where a directory with this identity was found to be worth watching.
    pub fn suggested(top: Top, identity: (u32, u64), why: &str) -> Self {
        Self {
            given: top.to_path_buf(),
            path: top,
            present: true,
            suggested: Some(Suggested {
                identity,
                why: why.into(),
            }),
        }
    }

    /// The same root as it is now; `None` when it is not there.
    ///
    /// # Errors
    ///
    /// It may not be looked at.
    pub(super) fn look_again(&self) -> Result<Option<Self>, Refused> {
        let Some(suggested) = &self.suggested else {
            return match Self::look(&self.given) {
                Err(CatalogError::Root { source, .. }) if is_refusal(&source) => Err(Refused),
                looked => Ok(looked.ok().flatten()),
            };
        };
        // A link, or another directory: whoever put it there has not been heard yet.
        let opened = open_directory_beneath(&self.path, Path::new(""));
        let status = opened.and_then(|opened| status_of(&opened)).ok();
        let is_it = status.is_some_and(|status| (status.st_dev, status.inode) == suggested.identity);
        Ok(is_it.then(|| Self {
            present: true,
            ..self.clone()
        }))
    }
}

/// `path` as an absolute one, without `.` and `..`, links left alone.
fn absolute(path: &Path) -> Result<PathBuf, CatalogError> {
    let absolute = std::path::absolute(path).map_err(|source| CatalogError::Root {
        path: path.to_owned(),
        source,
    })?;
    // `..` after a link leads elsewhere than its text says: leave that to canonicalize and keep the text.
    Ok(absolute
        .components()
        .filter(|part| *part != Component::CurDir)
        .collect())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_missing_directory_is_named_and_wait_is_offered() {
        let missing = PathBuf::from("/nonexistent/models");
        let error = open_roots(std::slice::from_ref(&missing), false)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("/nonexistent/models") && error.contains("--wait"),
            "{error}"
        );
        let roots = open_roots(&[missing], true).unwrap();
        assert!(!roots[0].present);
    }

    #[test]
    fn a_file_is_not_a_root() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for wait in [false, true] {
            let error = open_roots(&[file.path().to_owned()], wait).unwrap_err();
            assert!(matches!(error, CatalogError::NotADirectory { .. }), "{error}");
            let error = open_roots(&[file.path().join("below")], wait).unwrap_err();
            assert!(matches!(error, CatalogError::NotADirectory { .. }), "{error}");
        }
    }

    #[test]
    fn a_root_that_is_a_link_is_made_canonical_and_each_is_kept_once() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().canonicalize().unwrap().join("real");
        std::fs::create_dir(&real).unwrap();
        symlink(&real, dir.path().join("link")).unwrap();
        let roots = open_roots(&[dir.path().join("link"), real.clone(), real.join(".")], false).unwrap();
        assert_eq!(roots.len(), 2);
        assert!(roots.iter().all(|root| *root.path == *real));
    }
}
