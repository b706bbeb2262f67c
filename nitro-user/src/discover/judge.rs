//! What is never watched unasked, though somebody says that models are there.
//!
//! In: a canonical path, or the type of a file system. Out: an objection, in words. Pure.

use std::{
    fmt,
    path::{Path, PathBuf},
};

/// Directories that are too wide by themselves; what is below them may be watched.
const TOO_WIDE: &[&str] = &[
    "/home",
    "/media",
    "/mnt",
    "/opt",
    "/root",
    "/snap",
    "/srv",
    "/tmp",
    "/usr",
    "/usr/local",
    "/usr/local/share",
    "/usr/share",
    "/var",
    "/var/cache",
    "/var/lib",
    "/var/lib/containerd",
    "/var/lib/containers",
    "/var/lib/docker",
    "/var/lib/docker/volumes",
    "/var/lib/kubelet",
    "/var/opt",
    "/var/snap",
    "/var/tmp",
];

/// Directories of the system, with everything below them.
const OF_THE_SYSTEM: &[&str] = &[
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/lost+found",
    "/proc",
    "/run",
    "/sbin",
    "/sys",
    "/usr/bin",
    "/usr/include",
    "/usr/lib",
    "/usr/lib32",
    "/usr/lib64",
    "/usr/libexec",
    "/usr/sbin",
    "/usr/src",
    "/var/log",
    "/var/mail",
    "/var/spool",
];

/// Below a directory of the system, and not of it: where disks are mounted for users.
const NOT_OF_THE_SYSTEM: &[&str] = &["/run/media"];

/// Why something is not watched unasked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Objection {
    /// `/`, a home or a directory above one, or another that holds much else.
    TooWide,
    /// A directory of the system.
    System,
    /// A file system that can hang, or that does something when it is looked at.
    Foreign(FileSystem, String),
    /// A file system whose files' pages belong to other files.
    Overlay,
    /// The user of the process that named it could not read it.
    NotTheirs,
    /// Too many from one user.
    TooMany,
}

/// A kind of file system that is not touched unasked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystem {
    /// Another machine answers, or nobody.
    Network,
    /// A process answers, or does not.
    Fuse,
    /// Looking mounts something.
    Automount,
    /// There are no files.
    Pseudo,
}

impl fmt::Display for Objection {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooWide => {
                out.write_str("holds much else; give the directory of the models with --watch, or this one")
            }
            Self::System => out.write_str("is a directory of the system; --watch takes it all the same"),
            Self::Foreign(FileSystem::Network, kind) => write!(
                out,
                "is on a network file system ({kind}); --watch takes it all the same"
            ),
            Self::Foreign(FileSystem::Fuse, kind) => write!(
                out,
                "is on a file system in user space ({kind}); --watch takes it all the same"
            ),
            Self::Foreign(FileSystem::Automount, _) => {
                out.write_str("would have to be mounted first; give it with --watch")
            }
            Self::Foreign(FileSystem::Pseudo, kind) => write!(out, "is on {kind}, which has no files to warm"),
            Self::Overlay => out.write_str(
                "is on an overlay of whose layers none can be reached from here, so that reads cannot be followed; --watch the directory of the layer that holds it",
            ),
            Self::NotTheirs => out.write_str("cannot be read by the user who named it; --watch takes it all the same"),
            Self::TooMany => out.write_str("is one of too many directories that one user names; give it with --watch"),
        }
    }
}

/// What speaks against the directory at the canonical path `path`. `homes` are those of people, and of the process that named it.
pub fn objection(path: &Path, homes: &[PathBuf]) -> Option<Objection> {
    let is_one_of = |list: &[&str]| list.iter().any(|known| path == Path::new(known));
    let is_below = |list: &[&str]| list.iter().any(|known| path.starts_with(known));
    let above_a_home = homes.iter().any(|home| home.starts_with(path));
    if path == Path::new("/") || above_a_home || is_one_of(TOO_WIDE) || is_one_of(NOT_OF_THE_SYSTEM) {
        Some(Objection::TooWide)
    } else if is_below(OF_THE_SYSTEM) && !is_below(NOT_OF_THE_SYSTEM) {
        Some(Objection::System)
    } else {
        None
    }
}

/// What a file system of this type is, when it is one that is not touched unasked.
pub fn foreign(kind: &str) -> Option<FileSystem> {
    match kind {
        "9p" | "afs" | "beegfs" | "ceph" | "cifs" | "coda" | "gfs2" | "gpfs" | "lustre" | "ncpfs" | "nfs" | "nfs4"
        | "ocfs2" | "orangefs" | "pvfs2" | "smb3" | "smbfs" | "virtiofs" => Some(FileSystem::Network),
        "autofs" => Some(FileSystem::Automount),
        "binfmt_misc" | "bpf" | "cgroup" | "cgroup2" | "configfs" | "debugfs" | "devpts" | "efivarfs" | "fusectl"
        | "hugetlbfs" | "mqueue" | "nsfs" | "proc" | "pstore" | "rpc_pipefs" | "securityfs" | "selinuxfs" | "sysfs"
        | "tracefs" => Some(FileSystem::Pseudo),
        kind if kind == "fuse" || kind == "fuseblk" || kind.starts_with("fuse.") => Some(FileSystem::Fuse),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(path: &str) -> Option<Objection> {
        let homes = ["/home/anna", "/root", "/data/people/bob"].map(PathBuf::from);
        objection(Path::new(path), &homes)
    }

    #[test]
    fn the_whole_of_anything_is_too_wide() {
        for path in [
            "/",
            "/home",
            "/home/anna",
            "/data",
            "/data/people",
            "/root",
            "/var/lib",
            "/usr/share",
            "/mnt",
            "/run/media",
        ] {
            assert_eq!(judged(path), Some(Objection::TooWide), "{path}");
        }
    }

    #[test]
    fn the_system_is_not_watched_whoever_says_so() {
        for path in [
            "/proc/1/root",
            "/sys",
            "/dev/shm/models",
            "/etc/ssl",
            "/usr/lib/x",
            "/run/user/1000",
            "/var/log",
        ] {
            assert_eq!(judged(path), Some(Objection::System), "{path}");
        }
    }

    #[test]
    fn directories_of_models_are_watched() {
        for path in [
            "/usr/share/ollama/.ollama/models",
            "/home/anna/.cache/huggingface/hub",
            "/home/bob",
            "/models",
            "/var/lib/docker/volumes/x/_data",
            "/var/snap/ollama/common/models",
            "/run/media/anna/disk/models",
            "/library",
        ] {
            assert_eq!(judged(path), None, "{path}");
        }
    }

    #[test]
    fn file_systems_that_may_hang_are_known_by_their_type() {
        assert_eq!(foreign("nfs4"), Some(FileSystem::Network));
        assert_eq!(foreign("fuse.sshfs"), Some(FileSystem::Fuse));
        assert_eq!(foreign("fuseblk"), Some(FileSystem::Fuse));
        assert_eq!(foreign("autofs"), Some(FileSystem::Automount));
        assert_eq!(foreign("proc"), Some(FileSystem::Pseudo));
        for local in ["ext4", "xfs", "btrfs", "zfs", "tmpfs", "overlay", "f2fs"] {
            assert_eq!(foreign(local), None, "{local}");
        }
    }
}
