//! Going to a path that a stranger named, without touching what could hang or mislead.
//!
//! In: the top of a mount namespace, its mount table, a path. Out: what is there, by its canonical path. Each name is looked up by itself, in a
//! directory that is held by a descriptor, so that nothing can be exchanged on the way; links are read here, not followed by the kernel. Before
//! a mount point is stepped onto, the table says whether its file system may be touched at all. Nothing is opened for reading.

use std::{
    ffi::OsString,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Component, Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, openat, readlinkat},
    sys::stat::{FileStat, Mode, SFlag, fstat},
};

use super::judge::{FileSystem, foreign};
use crate::sys::{
    mounts::{Mount, Mounts},
    stat::status_of,
};

/// Links followed: what Linux follows, too.
const MOST_HOPS: usize = 40;
/// Names looked up, those of links included.
const MOST_STEPS: usize = 256;

/// For whom a path must be readable.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct User {
    /// Real user.
    pub user: u32,
    /// All groups.
    pub groups: Vec<u32>,
}

impl User {
    /// The one for whom everything is readable.
    pub const fn root() -> Self {
        Self {
            user: 0,
            groups: Vec::new(),
        }
    }

    /// Whether the mode grants `bits` (`r` 4, `x` 1). Access control lists are not looked at: they count as refusing.
    fn may(&self, file: &FileStat, bits: u32) -> bool {
        let granted = if file.st_uid == self.user {
            file.st_mode >> 6
        } else if self.groups.contains(&file.st_gid) {
            file.st_mode >> 3
        } else {
            file.st_mode
        };
        self.user == 0 || granted & bits == bits
    }
}

/// Where a walk ended well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its canonical path, seen from the top.
    pub path: PathBuf,
    /// `st_dev` and inode.
    pub identity: (u32, u64),
    /// A directory, or else.
    pub is_directory: bool,
    /// The mount that it was found through.
    pub mount: Mount,
}

impl Place {
    /// Its path below the top of its file system.
    pub fn below_file_system(&self) -> Option<PathBuf> {
        let rest = self.path.strip_prefix(&self.mount.point).ok()?;
        Some(self.mount.shows.join(rest))
    }
}

/// Why a walk ended before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Nothing is there, or nothing that could be said.
    Nothing,
    /// At this path begins a file system that is not touched unasked.
    Foreign(PathBuf, FileSystem, String),
    /// The user may not go on.
    Closed,
}

/// Walks to the absolute path `path` from `top`, whose mounts are `mounts`, as `user` could.
pub fn walk(top: BorrowedFd<'_>, mounts: &Mounts, path: &Path, user: &User) -> Result<Place, Stop> {
    let mut at = Vec::new();
    let mut canonical = PathBuf::from("/");
    let mut ahead: Vec<OsString> = Vec::new();
    let (mut hops, mut steps) = (0, 0);
    touchable(mounts, &canonical)?;
    push(&mut ahead, path);
    let mut here = open(top, Path::new("."))?;
    while let Some(name) = ahead.pop() {
        steps += 1;
        if steps > MOST_STEPS {
            return Err(Stop::Nothing);
        }
        if name == ".." {
            canonical.pop();
            here = at.pop().unwrap_or(here);
            continue;
        }
        let next = canonical.join(&name);
        touchable(mounts, &next)?;
        if !user.may(&fstat(&here).map_err(|_| Stop::Nothing)?, 1) {
            return Err(Stop::Closed);
        }
        let found = open(here.as_fd(), Path::new(&name))?;
        match kind(&found)? {
            SFlag::S_IFLNK => {
                hops += 1;
                let target = readlinkat(&found, "").map_err(|_| Stop::Nothing)?;
                if hops > MOST_HOPS || target.len() > 4096 {
                    return Err(Stop::Nothing);
                }
                if target.as_bytes().first() == Some(&b'/') {
                    // The first one is the top; there is none while that is where it stands.
                    at.truncate(1);
                    here = at.pop().unwrap_or(here);
                    canonical = PathBuf::from("/");
                }
                push(&mut ahead, Path::new(&target));
            }
            SFlag::S_IFDIR => {
                at.push(std::mem::replace(&mut here, found));
                canonical = next;
            }
            _ if ahead.is_empty() => return place(&found, next, mounts, false),
            _ => return Err(Stop::Nothing),
        }
    }
    if !user.may(&fstat(&here).map_err(|_| Stop::Nothing)?, 5) {
        return Err(Stop::Closed);
    }
    place(&here, canonical, mounts, true)
}

/// The names of `path` come before those that are to go, the next one last.
fn push(ahead: &mut Vec<OsString>, path: &Path) {
    let names = path.components().rev().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    });
    ahead.extend(names);
}

fn touchable(mounts: &Mounts, path: &Path) -> Result<(), Stop> {
    match mounts.at(path).map(|mount| (foreign(&mount.kind), &mount.kind)) {
        None | Some((None, _)) => Ok(()),
        Some((Some(what), kind)) => Err(Stop::Foreign(path.to_owned(), what, kind.clone())),
    }
}

fn open(directory: BorrowedFd<'_>, name: &Path) -> Result<OwnedFd, Stop> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(directory, name, flags, Mode::empty()).map_err(|error| match error {
        Errno::EACCES | Errno::EPERM => Stop::Closed,
        _ => Stop::Nothing,
    })
}

fn kind(file: &OwnedFd) -> Result<SFlag, Stop> {
    let found = fstat(file).map_err(|_| Stop::Nothing)?;
    Ok(SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT)
}

fn place(file: &OwnedFd, path: PathBuf, mounts: &Mounts, is_directory: bool) -> Result<Place, Stop> {
    let status = status_of(file).map_err(|_| Stop::Nothing)?;
    // By its number: a table is never quite of the same moment.
    let numbered = status.mount.and_then(|number| mounts.numbered(number));
    let mount = numbered.or_else(|| mounts.at(&path)).ok_or(Stop::Nothing)?;
    Ok(Place {
        identity: (status.st_dev, status.inode),
        is_directory,
        mount: mount.clone(),
        path,
    })
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, File, Permissions},
        os::unix::fs::{PermissionsExt, symlink},
    };

    use super::*;
    use crate::sys::mounts::OWN;

    struct Bed {
        _dir: tempfile::TempDir,
        base: PathBuf,
        top: File,
        mounts: Mounts,
    }

    impl Bed {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let base = dir.path().canonicalize().unwrap();
            fs::set_permissions(&base, Permissions::from_mode(0o755)).unwrap();
            Self {
                base,
                _dir: dir,
                top: File::open("/").unwrap(),
                mounts: Mounts::read(Path::new(OWN)).unwrap(),
            }
        }

        fn walk(&self, path: impl AsRef<Path>) -> Result<PathBuf, Stop> {
            let path = self.base.join(path);
            walk(self.top.as_fd(), &self.mounts, &path, &User::root()).map(|place| place.path)
        }
    }

    #[test]
    fn a_path_is_made_canonical_as_the_kernel_does_it() {
        let bed = Bed::new();
        fs::create_dir_all(bed.base.join("a/b/c")).unwrap();
        symlink("b/c", bed.base.join("a/relative")).unwrap();
        symlink(bed.base.join("a/relative"), bed.base.join("absolute")).unwrap();
        symlink("/", bed.base.join("top")).unwrap();
        symlink("../../../../../../../../../../", bed.base.join("up")).unwrap();
        for path in [
            "a",
            "a/relative",
            "absolute",
            "absolute/../../b",
            "a/./b/..",
            "top",
            "up",
            "top/usr/..",
        ] {
            assert_eq!(
                bed.walk(path),
                Ok(bed.base.join(path).canonicalize().unwrap()),
                "{path}"
            );
        }
    }

    #[test]
    fn what_leads_nowhere_is_nothing() {
        let bed = Bed::new();
        symlink("cycle", bed.base.join("cycle")).unwrap();
        fs::write(bed.base.join("file"), "x").unwrap();
        symlink("gone", bed.base.join("dangling")).unwrap();
        for path in ["gone", "cycle", "file/x", "dangling", "a/../../gone"] {
            assert_eq!(bed.walk(path), Err(Stop::Nothing), "{path}");
        }
        let deep: String = "x/".repeat(MOST_STEPS + 1);
        assert_eq!(bed.walk(deep), Err(Stop::Nothing));
    }

    #[test]
    fn a_fifo_is_found_and_not_opened() {
        let bed = Bed::new();
        nix::unistd::mkfifo(&bed.base.join("pipe"), Mode::S_IRWXU).unwrap();
        let place = walk(bed.top.as_fd(), &bed.mounts, &bed.base.join("pipe"), &User::root()).unwrap();
        assert!(!place.is_directory);
    }

    #[test]
    fn a_file_system_that_may_hang_is_not_stepped_onto_through_a_link_either() {
        let mut bed = Bed::new();
        fs::create_dir_all(bed.base.join("net/models")).unwrap();
        symlink(bed.base.join("net/models"), bed.base.join("link")).unwrap();
        let base = bed.base.display();
        let table = format!("1 0 8:1 / / rw - ext4 a rw\n2 1 0:9 / {base}/net rw - nfs4 server:/ rw\n");
        bed.mounts = Mounts::parse(table.as_bytes());
        for path in ["net/models", "link"] {
            let stop = bed.walk(path).unwrap_err();
            assert_eq!(
                stop,
                Stop::Foreign(bed.base.join("net"), FileSystem::Network, "nfs4".into())
            );
        }
        assert_eq!(bed.walk("net/.."), bed.walk("link"));
        assert!(bed.walk("").is_ok());
    }

    #[test]
    fn what_a_user_could_not_read_is_closed_to_them() {
        let bed = Bed::new();
        let private = bed.base.join("private");
        fs::create_dir_all(private.join("models")).unwrap();
        fs::create_dir(bed.base.join("open")).unwrap();
        fs::set_permissions(bed.base.join("open"), Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(&private, Permissions::from_mode(0o700)).unwrap();
        let stranger = User {
            user: 4_000_000,
            groups: vec![4_000_000],
        };
        let owner = User {
            user: nix::unistd::geteuid().as_raw(),
            groups: vec![],
        };
        let walk = |path: &str, user: &User| {
            let path = bed.base.join(path);
            walk(bed.top.as_fd(), &bed.mounts, &path, user).map(|place| place.path)
        };
        assert_eq!(walk("private/models", &stranger), Err(Stop::Closed));
        assert_eq!(walk("private", &stranger), Err(Stop::Closed));
        assert_eq!(walk("open", &stranger), Ok(bed.base.join("open")));
        assert_eq!(walk("private/models", &owner), Ok(private.join("models")));
    }
}
