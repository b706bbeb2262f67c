//! Where a tree begins, beneath which files are opened: a directory of ours, or one that only another mount namespace has a path to.
//!
//! In: a canonical path; for a directory elsewhere also a process there and the number of its namespace. Out: a descriptor to begin at, held
//! as long as something is being opened. `/proc/PID/root` is a link that follows no rules, and the number of a process is used again, so
//! that it is taken only for a process whose namespace is still that one, through a descriptor of that very process.

use std::{
    io,
    ops::Deref,
    os::fd::{FromRawFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
};

use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag, open, openat},
    sys::stat::{Mode, fstatat},
};

/// The top directory of a tree.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Top {
    path: Arc<Path>,
    elsewhere: Option<Elsewhere>,
}

/// A mount namespace that is not ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Elsewhere {
    /// A process in it.
    pub process: u32,
    /// Its number: the inode of `/proc/PID/ns/mnt`.
    pub namespace: u64,
}

impl Top {
    /// The directory that is at the canonical path `path` for the processes of another namespace.
    pub fn elsewhere(elsewhere: Elsewhere, path: &Path) -> Self {
        let below = path.strip_prefix("/").unwrap_or(path);
        Self {
            path: elsewhere.root().join(below).into(),
            elsewhere: Some(elsewhere),
        }
    }

    /// The process that it is reached through; `None` for a directory of ours.
    pub fn process(&self) -> Option<u32> {
        self.elsewhere.map(|elsewhere| elsewhere.process)
    }

    /// The namespace that it is in; `None` for ours.
    pub const fn namespace(&self) -> Option<Elsewhere> {
        self.elsewhere
    }

    /// Its path for the processes of its own namespace.
    pub fn native(&self) -> PathBuf {
        let Some(elsewhere) = self.elsewhere else {
            return self.path.to_path_buf();
        };
        let below = self.path.strip_prefix(elsewhere.root()).unwrap_or(Path::new(""));
        Path::new("/").join(below)
    }

    /// Where to begin, and the way from there; without a descriptor, at `/`.
    ///
    /// # Errors
    /// `ESRCH`: the process has ended, or is another one. Otherwise what the system says.
    pub(super) fn begin(&self) -> Result<(Option<OwnedFd>, &Path), Errno> {
        let Some(elsewhere) = self.elsewhere else {
            return Ok((None, &self.path));
        };
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let process = elsewhere.root();
        // Of this process alone, whatever has its number by the time it is used.
        let process = open(process.parent().unwrap_or(&process), flags, Mode::empty()).map_err(|_| Errno::ESRCH)?;
        if fstatat(&process, "ns/mnt", AtFlags::empty())?.st_ino != elsewhere.namespace {
            return Err(Errno::ESRCH);
        }
        let root = openat(&process, "root", flags, Mode::empty())?;
        let below = self.path.strip_prefix(elsewhere.root()).unwrap_or(Path::new(""));
        Ok((Some(root), below))
    }
}

impl Elsewhere {
    /// The namespace of `process`; `None` when it has ended.
    pub fn of(process: u32) -> Option<Self> {
        use std::os::unix::fs::MetadataExt;
        let namespace = std::fs::metadata(format!("/proc/{process}/ns/mnt")).ok()?.ino();
        Some(Self { process, namespace })
    }

    fn root(self) -> PathBuf {
        format!("/proc/{}/root", self.process).into()
    }
}

/// A descriptor that becomes readable when the process ends (Linux 5.3); it keeps nothing of the process busy.
///
/// # Errors
/// `ESRCH` when it has ended; what `pidfd_open` says.
pub fn end_of(process: u32) -> io::Result<OwnedFd> {
    // SAFETY: two numbers go in; a new descriptor, or -1, comes out.
    let descriptor = unsafe { libc::syscall(libc::SYS_pidfd_open, process as libc::pid_t, 0) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made it (with O_CLOEXEC), and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor as i32) })
}

impl Deref for Top {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.path
    }
}

impl AsRef<Path> for Top {
    fn as_ref(&self) -> &Path {
        &self.path
    }
}

impl From<&Path> for Top {
    fn from(path: &Path) -> Self {
        Self {
            path: path.into(),
            elsewhere: None,
        }
    }
}

impl From<PathBuf> for Top {
    fn from(path: PathBuf) -> Self {
        path.as_path().into()
    }
}

#[cfg(test)]
mod tests {
    use super::super::open::{open_beneath, open_directory_beneath};
    use super::*;

    #[test]
    fn a_directory_is_reached_through_a_process_of_its_namespace_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        std::fs::create_dir(base.join("a")).unwrap();
        std::fs::write(base.join("a/file"), "x").unwrap();
        std::os::unix::fs::symlink("/etc", base.join("a/link")).unwrap();
        let own = Elsewhere::of(std::process::id()).unwrap();
        let top = Top::elsewhere(own, &base.join("a"));
        assert_eq!(
            &*top,
            Path::new(&format!("/proc/{}/root{}/a", own.process, base.display()))
        );
        assert!(open_beneath(&top, Path::new("file")).is_ok());
        assert!(open_directory_beneath(&top, Path::new("")).is_ok());
        assert!(open_beneath(&top, Path::new("link/passwd")).is_err());
        // Another namespace has that number of a process now.
        let other = Elsewhere {
            namespace: own.namespace + 1,
            ..own
        };
        let error = open_beneath(&Top::elsewhere(other, &base.join("a")), Path::new("file")).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::ESRCH as i32));
        // Nor does a link lead there that an administrator could have given.
        let plain = Top::from(PathBuf::from(format!("/proc/{}/root", own.process)));
        assert!(open_directory_beneath(&plain, Path::new("")).is_err());
    }

    #[test]
    fn the_end_of_a_process_is_heard_of() {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        use std::os::fd::AsFd;
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let end = end_of(child.id()).unwrap();
        let readable = |time: u16| {
            let mut fds = [PollFd::new(end.as_fd(), PollFlags::POLLIN)];
            poll(&mut fds, PollTimeout::from(time)).unwrap() == 1
        };
        assert!(!readable(0));
        child.kill().unwrap();
        assert!(readable(10_000));
        child.wait().unwrap();
        assert!(end_of(child.id()).is_err());
    }
}
