//! Files of a report, written by root into a directory that may be somebody else's.
//!
//! In: a directory, names, texts. Each file is made new beside its name and renamed, so that a link that somebody left there is replaced and never written through; the directory
//! stays the one that was opened.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::OpenOptionsExt,
    },
    path::{Path, PathBuf},
};

use anyhow::Context;
use nix::{
    fcntl::{OFlag, openat, renameat},
    sys::stat::Mode,
    unistd::{UnlinkatFlags, unlinkat},
};

/// Such a directory.
#[derive(Debug)]
pub struct ReportDir {
    path: PathBuf,
    open: OwnedFd,
}

impl ReportDir {
    /// Makes the directory where it is not there, and tries whether a file can be made in it.
    ///
    /// # Errors
    /// It cannot be made or opened; nothing can be written there.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let context = || {
            format!(
                "cannot write the report to {}: name another directory with --report",
                path.display()
            )
        };
        fs::create_dir_all(path).with_context(context)?;
        let mut options = File::options();
        let open = options
            .read(true)
            .custom_flags(libc::O_DIRECTORY | libc::O_CLOEXEC)
            .open(path);
        let dir = Self {
            path: path.to_owned(),
            open: open.with_context(context)?.into(),
        };
        let (name, file) = dir.fresh().with_context(context)?;
        drop(file);
        dir.remove(&name);
        Ok(dir)
    }

    /// Writes a file of that name, which replaces what has it.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let write = || -> io::Result<()> {
            let (fresh, mut file) = self.fresh()?;
            let done = file
                .write_all(text.as_bytes())
                .and_then(|()| Ok(renameat(self.open.as_fd(), fresh.as_str(), self.open.as_fd(), name)?));
            if done.is_err() {
                self.remove(&fresh);
            }
            done
        };
        write().with_context(|| format!("cannot write {}", self.at(name).display()))
    }

    /// Where a file of that name is.
    pub fn at(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// A file that was not there before, with its name.
    fn fresh(&self) -> io::Result<(String, File)> {
        let name = format!(".nitro-agent-bench.{}", std::process::id());
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
        let mode = Mode::from_bits_truncate(0o644);
        // Of an earlier process of this number.
        self.remove(&name);
        let file = openat(self.open.as_fd(), name.as_str(), flags, mode)?;
        Ok((name, file.into()))
    }

    fn remove(&self, name: &str) {
        let _ = unlinkat(self.open.as_fd(), name, UnlinkatFlags::NoRemoveDir);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_a_link_leads_to_is_not_written() {
        let dir = tempfile::tempdir().unwrap();
        let (precious, report) = (dir.path().join("precious"), dir.path().join("report"));
        fs::write(&precious, "precious").unwrap();
        fs::create_dir(&report).unwrap();
        symlink(&precious, report.join("page.html")).unwrap();
        // And at the name that a file is made under.
        symlink(
            &precious,
            report.join(format!(".nitro-agent-bench.{}", std::process::id())),
        )
        .unwrap();
        let written = ReportDir::open(&report).unwrap();
        written.write("page.html", "figures").unwrap();
        assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
        assert_eq!(fs::read_to_string(report.join("page.html")).unwrap(), "figures");
        assert!(fs::symlink_metadata(report.join("page.html")).unwrap().is_file());
        assert_eq!(fs::read_dir(&report).unwrap().count(), 1);
    }

    #[test]
    fn what_cannot_be_written_is_told_at_once() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        for place in ["file", "file/below"] {
            let error = ReportDir::open(&dir.path().join(place)).unwrap_err();
            assert!(error.to_string().contains("--report"), "{error}");
        }
        // Not even root makes files there.
        assert!(ReportDir::open(Path::new("/proc/self")).is_err());
        let report = ReportDir::open(&dir.path().join("new/report")).unwrap();
        fs::create_dir(report.at("taken")).unwrap();
        assert!(report.write("taken", "figures").is_err());
        assert_eq!(fs::read_dir(dir.path().join("new/report")).unwrap().count(), 1);
    }
}
