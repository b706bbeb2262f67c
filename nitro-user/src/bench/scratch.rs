//! Names that tell whose they are, and directories that go away.
//!
//! A name is `nitro-rig-<pid>-<start time of that process>-<its namespace of processes>-<this boot>-<n>`, all of them numbers. With the start time a later process that was
//! given the same pid is not taken for the owner; with the namespace one that runs in another container is not taken for dead; with the boot what an earlier one left is known
//! for sure. What is not of exactly this form is nobody's leftover.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

use anyhow::{Context, Result, bail};

use super::sweep;

/// Begins the name of everything that a bench makes: directories, and with them images and mounts, and control groups.
pub const PREFIX: &str = "nitro-rig-";

/// Names that are tried before it is given up: somebody else may have made things with the next ones.
const ATTEMPTS: usize = 100;

/// The namespace of processes that sees all others: `PROC_PID_INIT_INO` of the kernel.
const FIRST_NAMESPACE: u64 = 0xEFFF_FFFC;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A name nobody else has.
///
/// # Errors
/// When `/proc/self/stat` cannot be read.
pub fn unique_name() -> Result<String> {
    let pid = std::process::id();
    let name = Name {
        pid,
        started: start_time(pid).context("read the start time of this process")?,
        namespace: here().namespace,
        boot: here().boot,
        number: NEXT.fetch_add(1, Ordering::Relaxed),
    };
    Ok(name.to_string())
}

/// Who made a thing of this name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// This process.
    Us,
    /// Another process, still running, as far as can be seen from here.
    Other,
    /// A process that has ended and left it behind.
    Gone,
}

/// What a name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Name {
    pid: u32,
    started: u64,
    namespace: u64,
    boot: u64,
    number: u32,
}

impl std::fmt::Display for Name {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            pid,
            started,
            namespace,
            boot,
            number,
        } = self;
        write!(out, "{PREFIX}{pid}-{started}-{namespace}-{boot}-{number}")
    }
}

impl Name {
    /// `None` for what is not of exactly the form that is made here.
    fn parse(name: &str) -> Option<Self> {
        let mut parts = name.strip_prefix(PREFIX)?.split('-');
        let parsed = Self {
            pid: parts.next()?.parse().ok()?,
            started: parts.next()?.parse().ok()?,
            namespace: parts.next()?.parse().ok()?,
            boot: parts.next()?.parse().ok()?,
            number: parts.next()?.parse().ok()?,
        };
        // No leading zeroes, no signs, nothing behind it.
        (parsed.to_string() == name).then_some(parsed)
    }

    fn owner(self) -> Owner {
        if self.boot != here().boot {
            return Owner::Gone;
        }
        if self.namespace != here().namespace {
            // Its processes have other numbers here.
            return if here().namespace == FIRST_NAMESPACE && !is_inhabited(self.namespace) {
                Owner::Gone
            } else {
                Owner::Other
            };
        }
        match start_time(self.pid) {
            Some(actual) if actual == self.started && self.pid == std::process::id() => Owner::Us,
            Some(actual) if actual == self.started => Owner::Other,
            _ => Owner::Gone,
        }
    }
}

/// The owner by a name, or by a path one component of which is such a name, the innermost if several are; none when it is
/// not a bench's.
pub fn owner(path: &str) -> Option<Owner> {
    path.split('/').rev().find_map(Name::parse).map(Name::owner)
}

/// The directory with such a name that a path lies in, or is: the innermost.
pub fn scratch_of(path: &Path) -> Option<&Path> {
    let is_one = |dir: &&Path| {
        dir.file_name()
            .is_some_and(|name| Name::parse(&name.to_string_lossy()).is_some())
    };
    path.ancestors().find(is_one)
}

/// Whether a directory is there that this user made: where everybody may write, everybody may choose a name.
pub fn is_ours(dir: &Path) -> bool {
    let ours = nix::unistd::geteuid().as_raw();
    fs::symlink_metadata(dir).is_ok_and(|status| status.is_dir() && status.uid() == ours)
}

/// Where this process is.
#[derive(Debug)]
struct Here {
    namespace: u64,
    boot: u64,
}

fn here() -> &'static Here {
    static HERE: OnceLock<Here> = OnceLock::new();
    HERE.get_or_init(|| {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let digits: String = boot.chars().filter(char::is_ascii_hexdigit).take(16).collect();
        Here {
            namespace: namespace("self").unwrap_or(0),
            boot: u64::from_str_radix(&digits, 16).unwrap_or(0),
        }
    })
}

/// The number of a process's namespace of processes.
fn namespace(process: &str) -> Option<u64> {
    fs::metadata(format!("/proc/{process}/ns/pid"))
        .map(|status| status.ino())
        .ok()
}

/// Whether any process is in that namespace; asked where all are seen.
fn is_inhabited(wanted: u64) -> bool {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.any(|name| name.bytes().all(|byte| byte.is_ascii_digit()) && namespace(&name) == Some(wanted))
}

/// Start time of a process in clock ticks since boot; none when there is no such process, or when it has ended and only waits to be waited for.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command's name may hold spaces and brackets: fields are counted from the last bracket. The state is field 3, the start time field 22.
    let mut fields = stat[stat.rfind(')')? + 1..].split_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X" | "x") {
        return None;
    }
    fields.nth(18)?.parse().ok()
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
        sweep::rest_if_interrupted();
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
        sweep::remove_dir(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_name_tells_its_owner() {
        let name = unique_name().unwrap();
        assert_eq!(owner(&name), Some(Owner::Us));
        assert_eq!(owner(&format!("/tmp/{name}/mnt/file")), Some(Owner::Us));
        assert_eq!(owner(&format!("/tmp/{name}/nitro-rig-notes")), Some(Owner::Us));
        assert_eq!(
            scratch_of(Path::new(&format!("/tmp/{name}/mnt/file"))),
            Some(Path::new(&format!("/tmp/{name}")))
        );
        let ours = Name::parse(&name).unwrap();
        // The right pid with another start time is another process.
        assert_eq!(Name { started: 1, ..ours }.owner(), Owner::Gone);
        assert_eq!(Name { boot: 1, ..ours }.owner(), Owner::Gone);
        let elsewhere = Name { namespace: 1, ..ours };
        let seen = if here().namespace == FIRST_NAMESPACE {
            Owner::Gone
        } else {
            Owner::Other
        };
        assert_eq!(elsewhere.owner(), seen);
        let first = Name {
            pid: 1,
            started: start_time(1).unwrap(),
            ..ours
        };
        assert_eq!(first.owner(), Owner::Other);
    }

    #[test]
    fn names_that_somebody_may_have_chosen_are_nobodys_leftovers() {
        let (_, rest) = unique_name()
            .map(|name| (name.clone(), name[PREFIX.len()..].to_owned()))
            .unwrap();
        for name in [
            "/tmp/something/else".to_owned(),
            "/tmp/nitro-rig-notes".into(),
            "nitro-rig-2024-10-05".into(),
            "nitro-rig-1-1-0".into(),
            format!("{PREFIX}0{rest}"),
            format!("{PREFIX}+{rest}"),
            format!("{PREFIX}{rest}-1"),
            format!("{PREFIX}{rest}.old"),
            format!("my-{PREFIX}{rest}"),
        ] {
            assert_eq!(owner(&name), None, "{name}");
        }
    }

    #[test]
    fn an_owner_that_only_waits_to_be_waited_for_is_gone() {
        let mut child = Command::new("true").spawn().unwrap();
        // Ended, and not waited for.
        let ended = nix::sys::wait::WaitPidFlag::WEXITED | nix::sys::wait::WaitPidFlag::WNOWAIT;
        let id = nix::sys::wait::Id::Pid(nix::unistd::Pid::from_raw(child.id().cast_signed()));
        nix::sys::wait::waitid(id, ended).unwrap();
        assert_eq!(start_time(child.id()), None);
        child.wait().unwrap();
    }

    #[test]
    fn what_is_there_already_is_not_taken() {
        let base = ScratchDir::new(&std::env::temp_dir()).unwrap();
        let ours = Name::parse(&unique_name().unwrap()).unwrap();
        let elsewhere = base.path().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        for number in ours.number..ours.number + 20 {
            let taken = Name { number, ..ours }.to_string();
            std::os::unix::fs::symlink(&elsewhere, base.path().join(taken)).unwrap();
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
