//! Names that tell whose they are, and directories that go away.
//!
//! A name is `nitro-rig-<pid>-<start time of that process>-<n>`: with the start time a later process that was given the same
//! pid is not taken for the owner, so a leftover can be told from something in use.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context, Result, bail};

use super::sweep;

/// Begins the name of everything that a bench makes: directories, and with them images and mounts, and control groups.
pub const PREFIX: &str = "nitro-rig-";

/// Names that are tried before it is given up: somebody else may have made things with the next ones.
const ATTEMPTS: usize = 100;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A name nobody else has.
///
/// # Errors
/// When `/proc/self/stat` cannot be read.
pub fn unique_name() -> Result<String> {
    let pid = std::process::id();
    let started = start_time(pid).context("read the start time of this process")?;
    Ok(format!(
        "{PREFIX}{pid}-{started}-{}",
        NEXT.fetch_add(1, Ordering::Relaxed)
    ))
}

/// Who made a thing of this name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// This process.
    Us,
    /// Another process, still running.
    Other,
    /// A process that has ended and left it behind.
    Gone,
}

/// The owner by a name, or by a path one component of which is such a name, the innermost if several are; none when it is
/// not a bench's.
pub fn owner(path: &str) -> Option<Owner> {
    let name = path.split('/').rfind(|component| component.starts_with(PREFIX))?;
    let mut parts = name[PREFIX.len()..].split('-');
    let pid: u32 = parts.next()?.parse().ok()?;
    let started: u64 = parts.next()?.parse().ok()?;
    Some(match start_time(pid) {
        Some(actual) if actual == started && pid == std::process::id() => Owner::Us,
        Some(actual) if actual == started => Owner::Other,
        _ => Owner::Gone,
    })
}

/// Start time of a process in clock ticks since boot; none when there is no such process.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command's name may hold spaces and brackets: fields are counted from the last bracket. Start time is field 22.
    stat[stat.rfind(')')? + 1..].split_whitespace().nth(19)?.parse().ok()
}

/// A directory that is removed on drop.
#[derive(Debug)]
pub struct ScratchDir {
    path: PathBuf,
}

impl ScratchDir {
    /// Makes one in `base`, that was not there before: in a directory where everybody may write, what is there already is somebody else's.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn new(base: &Path) -> Result<Self> {
        fs::create_dir_all(base).with_context(|| format!("create {}", base.display()))?;
        for _ in 0..ATTEMPTS {
            let path = base.join(unique_name()?);
            match DirBuilder::new().mode(0o755).create(&path) {
                Ok(()) => return Ok(Self { path }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error).with_context(|| format!("create {}", path.display())),
            }
        }
        bail!("create a directory in {}: {ATTEMPTS} names are taken", base.display())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for ScratchDir {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            sweep::complain(&format!("{} was left behind: {error}", self.path.display()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_its_owner() {
        let name = unique_name().unwrap();
        assert_eq!(owner(&name), Some(Owner::Us));
        assert_eq!(owner(&format!("/tmp/{name}/mnt/file")), Some(Owner::Us));
        // The right pid with another start time is another process.
        assert_eq!(owner(&format!("{PREFIX}{}-1-0", std::process::id())), Some(Owner::Gone));
        assert_eq!(owner("/tmp/something/else"), None);
        assert_eq!(owner("/tmp/nitro-rig-notes"), None);
    }

    #[test]
    fn what_is_there_already_is_not_taken() {
        let base = ScratchDir::new(&std::env::temp_dir()).unwrap();
        let (pid, started) = (std::process::id(), start_time(std::process::id()).unwrap());
        let elsewhere = base.path().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        let next = NEXT.load(Ordering::Relaxed);
        for number in next..next + 20 {
            std::os::unix::fs::symlink(
                &elsewhere,
                base.path().join(format!("{PREFIX}{pid}-{started}-{number}")),
            )
            .unwrap();
        }
        let dir = ScratchDir::new(base.path()).unwrap();
        assert!(dir.path().symlink_metadata().unwrap().is_dir());
    }

    #[test]
    fn a_scratch_directory_goes_with_its_value() {
        let dir = ScratchDir::new(&std::env::temp_dir()).unwrap();
        let path = dir.path().to_owned();
        fs::write(path.join("x"), "x").unwrap();
        drop(dir);
        assert!(!path.exists());
    }
}
