//! Opening files that somebody else named, beneath a directory that the administrator named.
//!
//! In: a watch root (canonical; see [`super::top`]) and a path below it that came from the file system, a manifest or a program. Out: a
//! descriptor of exactly that file, or an error. The agent runs as root, so the path is not trusted: no symbolic link
//! is followed, nothing above the root is reached, and nothing but a regular file is ever opened for reading, since
//! opening a FIFO or a device can block or do something. No descriptor of the root is kept: it would keep `umount`
//! from working.
//!
//! It does not resolve links: the catalog does that in its own memory and asks for real paths.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Component, Path},
};

use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, open, openat, openat2},
    sys::stat::{Mode, SFlag, fstat},
};

use super::top::Top;

/// How often a look-up is tried again that the kernel gave up on because something above it was being renamed.
const RACES: usize = 8;

/// How a path is walked. The second is for kernels before 5.6 and for paths longer than `PATH_MAX`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Walk {
    /// One `openat2`.
    Whole,
    /// One `openat` with `O_NOFOLLOW` per component.
    Stepwise,
}

/// Opens the regular file `below` the directory `root` for reading.
///
/// `root` is canonical (no symbolic link in it), `below` relative and without `..`. Access times are left alone where
/// the kernel lets us.
///
/// # Errors
///
/// `InvalidInput`: `below` is empty, absolute or has `..`, or the file is not a regular one. `ELOOP`: a component is a
/// symbolic link. `EXDEV`: the path leaves the root. Otherwise what `open` says; `ENOENT` is normal for files that vanish.
pub fn open_beneath(root: &Top, below: &Path) -> io::Result<File> {
    if below.as_os_str().is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "no file named below the root",
        ));
    }
    let found = resolve(root, below, OFlag::O_PATH)?;
    let kind = SFlag::from_bits_truncate(fstat(&found)?.st_mode) & SFlag::S_IFMT;
    if kind == SFlag::S_IFLNK {
        return Err(Errno::ELOOP.into());
    }
    if kind != SFlag::S_IFREG {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    // The magic link leads to the very inode that was checked, whatever stands at the path by now.
    let same = format!("/proc/self/fd/{}", found.as_raw_fd());
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    match open(same.as_str(), flags | OFlag::O_NOATIME, Mode::empty()) {
        Err(Errno::EPERM) => Ok(open(same.as_str(), flags, Mode::empty())?.into()),
        opened => Ok(opened?.into()),
    }
}

/// Opens the directory `below` (possibly empty) the directory `root` for listing; the same rules as [`open_beneath`].
///
/// # Errors
///
/// As [`open_beneath`]; `ENOTDIR` when it is not a directory.
pub fn open_directory_beneath(root: &Top, below: &Path) -> io::Result<OwnedFd> {
    resolve(root, below, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NONBLOCK)
}

/// Opens `below` in `root` with `flags`, beneath and without links.
fn resolve(root: &Top, below: &Path, flags: OFlag) -> io::Result<OwnedFd> {
    if !root.is_absolute() || !below.components().all(|part| matches!(part, Component::Normal(_))) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a plain path below an absolute root",
        ));
    }
    match resolve_by(Walk::Whole, root, below, flags) {
        // EPERM: old container runtimes answer so to system calls they do not know.
        Err(Errno::ENOSYS | Errno::EPERM | Errno::ENAMETOOLONG) => {
            resolve_by(Walk::Stepwise, root, below, flags).map_err(Into::into)
        }
        found => found.map_err(Into::into),
    }
}

fn resolve_by(walk: Walk, root: &Top, below: &Path, flags: OFlag) -> Result<OwnedFd, Errno> {
    let (from, root) = root.begin()?;
    let flags = flags | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    let step = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    if below.as_os_str().is_empty() {
        return descend(walk, from.as_ref(), root, flags);
    }
    let top = descend(walk, from.as_ref(), root, step)?;
    descend(walk, Some(&top), below, flags)
}

/// Opens `path` from `from`, or from `/` when there is none.
fn descend(walk: Walk, from: Option<&OwnedFd>, path: &Path, flags: OFlag) -> Result<OwnedFd, Errno> {
    match walk {
        Walk::Whole => whole(from, path, flags),
        Walk::Stepwise => stepwise(from, path, flags),
    }
}

fn whole(from: Option<&OwnedFd>, path: &Path, flags: OFlag) -> Result<OwnedFd, Errno> {
    let rules = ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    // The rules refuse links with ELOOP; with this flag the last one would be ENOTDIR, or be opened itself.
    let flags = flags - OFlag::O_NOFOLLOW;
    let mut tries = 0;
    loop {
        let opened = match from {
            Some(directory) => openat2(
                directory,
                path,
                OpenHow::new()
                    .flags(flags)
                    .resolve(rules | ResolveFlag::RESOLVE_BENEATH),
            ),
            None => openat2(AT_FDCWD, path, OpenHow::new().flags(flags).resolve(rules)),
        };
        match opened {
            Err(Errno::EAGAIN) if tries < RACES => tries += 1,
            opened => return opened,
        }
    }
}

fn stepwise(from: Option<&OwnedFd>, path: &Path, flags: OFlag) -> Result<OwnedFd, Errno> {
    let step = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    let mut names: Vec<_> = Vec::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => names.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => return Err(Errno::EXDEV),
        }
    }
    let last = names.pop();
    let mut at: Option<OwnedFd> = match from {
        Some(_) => None,
        None => Some(open("/", step, Mode::empty())?),
    };
    for name in names {
        let parent = at.as_ref().or(from).ok_or(Errno::EBADF)?;
        let next = openat(parent.as_fd(), name, step, Mode::empty()).map_err(link_not_directory)?;
        at = Some(next);
    }
    let parent = at.as_ref().or(from).ok_or(Errno::EBADF)?;
    match last {
        Some(name) => openat(parent.as_fd(), name, flags, Mode::empty()),
        None => openat(parent.as_fd(), ".", flags, Mode::empty()),
    }
}

/// `O_DIRECTORY | O_NOFOLLOW` says ENOTDIR of a symbolic link; `openat2` says ELOOP. Callers get one answer.
fn link_not_directory(error: Errno) -> Errno {
    if error == Errno::ENOTDIR { Errno::ELOOP } else { error }
}

#[cfg(test)]
mod tests {
    use std::{io::Read, os::unix::fs::symlink, time::Duration};

    use super::*;

    fn errno(result: io::Result<impl Sized>) -> Option<Errno> {
        result.err().and_then(|error| error.raw_os_error()).map(Errno::from_raw)
    }

    #[test]
    fn both_walks_open_the_same_file_and_refuse_the_same_links() {
        let dir = tempfile::tempdir().unwrap();
        let root = Top::from(dir.path().canonicalize().unwrap());
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        std::fs::write(root.join("a/b/file"), "x").unwrap();
        symlink("b", root.join("a/link")).unwrap();
        symlink("/etc", root.join("out")).unwrap();
        symlink("file", root.join("a/b/same")).unwrap();
        for walk in [Walk::Whole, Walk::Stepwise] {
            let open = |below: &str| resolve_by(walk, &root, Path::new(below), OFlag::O_RDONLY);
            assert!(open("a/b/file").is_ok());
            assert_eq!(open("a/link/file").err(), Some(Errno::ELOOP));
            assert_eq!(open("out/passwd").err(), Some(Errno::ELOOP));
            assert_eq!(open("a/b/same").err(), Some(Errno::ELOOP));
            assert_eq!(open("a/b/gone").err(), Some(Errno::ENOENT));
            assert_eq!(open("../x").err(), Some(Errno::EXDEV));
        }
    }

    #[test]
    fn nothing_above_the_root_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        let root = Top::from(dir.path().canonicalize().unwrap());
        for below in ["", "..", "../x", "/etc/passwd", "a/../../x"] {
            assert_eq!(
                open_beneath(&root, Path::new(below)).unwrap_err().kind(),
                io::ErrorKind::InvalidInput,
                "{below}"
            );
        }
        symlink("/etc/passwd", root.join("link")).unwrap();
        assert_eq!(errno(open_beneath(&root, Path::new("link"))), Some(Errno::ELOOP));
    }

    #[test]
    fn a_fifo_is_refused_and_does_not_block() {
        let dir = tempfile::tempdir().unwrap();
        let root = Top::from(dir.path().canonicalize().unwrap());
        nix::unistd::mkfifo(&root.join("pipe"), Mode::S_IRWXU).unwrap();
        let (done, waited) = std::sync::mpsc::channel();
        std::thread::spawn(move || done.send(open_beneath(&root, Path::new("pipe")).map(drop)));
        let result = waited
            .recv_timeout(Duration::from_secs(5))
            .expect("opening a FIFO blocked");
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn a_root_that_became_a_link_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        std::fs::create_dir(base.join("real")).unwrap();
        std::fs::write(base.join("real/file"), "x").unwrap();
        symlink("real", base.join("root")).unwrap();
        assert_eq!(
            errno(open_beneath(&base.join("root").into(), Path::new("file"))),
            Some(Errno::ELOOP)
        );
    }

    #[test]
    fn a_path_longer_than_the_system_allows_is_walked() {
        let dir = tempfile::tempdir().unwrap();
        let root = Top::from(dir.path().canonicalize().unwrap());
        let long = "d".repeat(250);
        let mut below = std::path::PathBuf::new();
        let mut at = open_directory_beneath(&root, Path::new("")).unwrap();
        for _ in 0..20 {
            nix::sys::stat::mkdirat(&at, long.as_str(), Mode::S_IRWXU).unwrap();
            let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
            at = openat(&at, long.as_str(), flags, Mode::empty()).unwrap();
            below.push(&long);
        }
        let flags = OFlag::O_CREAT | OFlag::O_WRONLY;
        std::io::Write::write_all(
            &mut File::from(openat(&at, "f", flags, Mode::S_IRWXU).unwrap()),
            b"deep",
        )
        .unwrap();
        let mut text = String::new();
        open_beneath(&root, &below.join("f"))
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, "deep");
    }
}
