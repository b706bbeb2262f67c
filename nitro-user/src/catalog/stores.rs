//! What kind of store a file system is on: this machine's, a server's, or one where every read costs money.
//!
//! In: type and source of a mount, as in `/proc/self/mountinfo`. Out: a [`Store`].

/// Where the bytes of a file system are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Store {
    /// On this machine, as far as can be told.
    #[default]
    Local,
    /// On a server, or behind a process: it may not answer, and others may change files without a sign.
    Remote,
    /// As [`Store::Remote`], and reading is paid for by the request or the byte, or fetches from tape.
    Costly,
}

/// Network file systems, by the type that the kernel shows.
const REMOTE: &[&str] = &[
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "9p",
    "ceph",
    "afs",
    "lustre",
    "gpfs",
    "beegfs",
    "orangefs",
    "ocfs2",
    "gfs2",
    "glusterfs",
    "coda",
    "ncpfs",
    "vboxsf",
    "virtiofs",
    "fuse",
    "fuseblk",
];

/// Clients of object stores and drives that are paid for by use, and of tape: the part of the type after `fuse.`, or the source of a mount.
const COSTLY: &[&str] = &[
    "rclone",
    "gcsfuse",
    "s3fs",
    "s3fs-fuse",
    "goofys",
    "geesefs",
    "mount-s3",
    "mountpoint-s3",
    "juicefs",
    "blobfuse",
    "blobfuse2",
    "ossfs",
    "cosfs",
    "s3ql",
    "s3backer",
    "google-drive-ocamlfuse",
    "onedriver",
    "hf-mount",
    "ltfs",
];

impl Store {
    /// The kind of a mount of type `kind` from `source`.
    pub fn of(kind: &str, source: &str) -> Self {
        let client = kind.strip_prefix("fuse.").unwrap_or(source);
        let is_fuse = kind == "fuse" || kind.starts_with("fuse.");
        // JuiceFS and rclone show `JuiceFS:name` and `remote:path` as their source.
        let client = client.split(':').next().unwrap_or(client).to_ascii_lowercase();
        if is_fuse && COSTLY.contains(&client.as_str()) {
            Self::Costly
        } else if kind == "fuseblk" {
            // NTFS and the like on a disk of this machine.
            Self::Local
        } else if is_fuse || REMOTE.contains(&kind) {
            Self::Remote
        } else {
            Self::Local
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn object_stores_are_costly_and_servers_remote() {
        for (kind, source, store) in [
            ("ext4", "/dev/sda1", Store::Local),
            ("fuseblk", "/dev/sdb1", Store::Local),
            ("overlay", "overlay", Store::Local),
            ("nfs4", "server:/models", Store::Remote),
            ("fuse.sshfs", "host:/models", Store::Remote),
            ("fuse.glusterfs", "host:/models", Store::Remote),
            ("fuse", "something", Store::Remote),
            ("fuse.rclone", "remote:models", Store::Costly),
            ("fuse.gcsfuse", "bucket", Store::Costly),
            ("fuse.juicefs", "JuiceFS:models", Store::Costly),
            ("fuse", "mountpoint-s3", Store::Costly),
            ("fuse", "JuiceFS:models", Store::Costly),
        ] {
            assert_eq!(Store::of(kind, source), store, "{kind} {source}");
        }
    }
}
