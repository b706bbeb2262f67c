//! The mode of the control socket under every umask. Alone in its process, whose umask it changes.

#![allow(clippy::unwrap_used)]

use std::{
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

use nitro_user::control::socket::claim;

fn mode(path: &Path) -> u32 {
    std::fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn the_file_is_for_its_owner_or_for_one_group_whatever_the_umask() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let group = nix::unistd::Group::from_gid(nix::unistd::getegid()).unwrap().unwrap();
    let before = nix::sys::stat::umask(nix::sys::stat::Mode::empty());
    for umask in [0, 0o077, 0o777] {
        nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(umask));
        let alone = claim(&path, None);
        assert_eq!(mode(&path), 0o600, "umask {umask:o}");
        drop(alone);
        let shared = claim(&path, Some(&group.name));
        assert_eq!(mode(&path), 0o660, "umask {umask:o}");
        assert_eq!(std::fs::symlink_metadata(&path).unwrap().gid(), group.gid.as_raw());
        drop(shared);
    }
    nix::sys::stat::umask(before);
}
