//! Symbolic links and paths, resolved in the catalog's own memory.
//!
//! In: a path, and the table. Out: the file or directory below the roots that it names, or the fact that it leads
//! outside. The file system is never asked: a link is data that others wrote, and what it names outside the roots is
//! none of our business. A cycle costs a bounded number of steps.

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use super::{
    WatchRoot,
    table::{DirNumber, NodeNumber, Table},
};

/// Links followed in one resolution: what Linux follows, too.
const MOST_HOPS: usize = 40;
/// Steps of one resolution, links' texts included.
const MOST_STEPS: usize = 2048;

/// A root and its top directory in the table, while it has one.
#[derive(Clone, Debug)]
pub(super) struct Anchor {
    /// The root.
    pub root: WatchRoot,
    /// Its top directory; `None` while it is absent, or when another root's tree holds it.
    pub dir: Option<DirNumber>,
    /// It was unwatched, or suggested and is gone: it stays away, whatever appears there.
    pub dropped: bool,
}

/// What a path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// A regular file: this name of it.
    File(NodeNumber),
    /// A directory.
    Directory(DirNumber),
    /// Nothing below the roots. `last` is the deepest directory that exists.
    Nothing {
        /// Where it would have to appear.
        last: Option<DirNumber>,
    },
    /// Something that is not below the roots, by its path.
    Outside(PathBuf),
}

/// Where a resolution stands.
enum At {
    Inside(DirNumber),
    Outside(PathBuf),
}

/// What `path`, seen from directory `from` (or from `/`), names.
pub(super) fn resolve(table: &Table, anchors: &[Anchor], from: Option<DirNumber>, path: &[u8]) -> Target {
    let top = || enter(anchors, PathBuf::from("/"));
    let mut at = from.map_or_else(top, At::Inside);
    // Components yet to go, the next one last.
    let mut ahead: Vec<Vec<u8>> = Vec::new();
    if !push(&mut ahead, path) {
        return Target::Nothing { last: from };
    }
    if path.first() == Some(&b'/') {
        at = top();
    }
    let (mut hops, mut steps) = (0, 0);
    while let Some(name) = ahead.pop() {
        steps += 1;
        if steps > MOST_STEPS {
            return Target::Nothing { last: None };
        }
        at = match (at, name.as_slice()) {
            (at, b"" | b".") => at,
            (At::Inside(dir), b"..") => parent_of(table, anchors, dir),
            (At::Inside(dir), name) => {
                let Some(node) = table.child(dir, name) else {
                    return Target::Nothing { last: Some(dir) };
                };
                if let Some(below) = table.as_dir(node) {
                    At::Inside(below)
                } else if let Some(text) = table.as_link(node) {
                    hops += 1;
                    if hops > MOST_HOPS || !push(&mut ahead, text) {
                        return Target::Nothing { last: Some(dir) };
                    }
                    if text.first() == Some(&b'/') {
                        top()
                    } else {
                        At::Inside(dir)
                    }
                } else if ahead.iter().all(|rest| matches!(rest.as_slice(), b"" | b".")) {
                    return Target::File(node);
                } else {
                    return Target::Nothing { last: Some(dir) };
                }
            }
            (At::Outside(mut path), b"..") => {
                path.pop();
                enter(anchors, path)
            }
            (At::Outside(mut path), name) => {
                path.push(OsStr::from_bytes(name));
                enter(anchors, path)
            }
        };
    }
    match at {
        At::Inside(dir) => Target::Directory(dir),
        At::Outside(path) => Target::Outside(path),
    }
}

/// Puts the components of `path` before those that are to go. False when that gets too many.
fn push(ahead: &mut Vec<Vec<u8>>, path: &[u8]) -> bool {
    ahead.extend(
        path.split(|byte| *byte == b'/')
            .rev()
            .filter(|name| !name.is_empty())
            .map(<[u8]>::to_vec),
    );
    ahead.len() <= MOST_STEPS
}

/// The root whose top is at `path`, if one is.
fn enter(anchors: &[Anchor], path: PathBuf) -> At {
    let top = anchors
        .iter()
        .filter_map(|anchor| Some((anchor, anchor.dir?)))
        .find(|(anchor, _)| *anchor.root.path == *path || anchor.root.given == path);
    top.map_or(At::Outside(path), |(_, dir)| At::Inside(dir))
}

fn parent_of(table: &Table, anchors: &[Anchor], dir: DirNumber) -> At {
    let Some(known) = table.dir(dir) else {
        return At::Outside(PathBuf::from("/"));
    };
    if known.node != super::table::NONE {
        return At::Inside(table.parent(known.node));
    }
    let above = anchors
        .get(known.root as usize)
        .and_then(|anchor| anchor.root.path.parent())
        .unwrap_or(Path::new("/"));
    // A root can lie in another one.
    match resolve_plain(table, anchors, above) {
        Some(dir) => At::Inside(dir),
        None => At::Outside(above.to_owned()),
    }
}

/// The directory at the absolute, canonical `path`, if it is below a root.
pub(super) fn resolve_plain(table: &Table, anchors: &[Anchor], path: &Path) -> Option<DirNumber> {
    let (mut dir, rest) = anchors
        .iter()
        .filter_map(|anchor| Some((anchor.dir?, path.strip_prefix(&anchor.root.path).ok()?)))
        .min_by_key(|(_, rest)| rest.as_os_str().len())?;
    for part in rest {
        dir = table.as_dir(table.child(dir, part.as_bytes())?)?;
    }
    Some(dir)
}
