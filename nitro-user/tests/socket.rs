//! The file of the control socket: what it replaces, and what it leaves alone. Its mode is tried in `socket_mode.rs`.

#![allow(clippy::unwrap_used)]

use std::os::unix::{
    fs::{FileTypeExt, symlink},
    net::{UnixListener, UnixStream},
};

use nitro_user::control::socket::{ClaimError, claim};

#[test]
fn a_path_that_cannot_be_is_refused_and_nothing_is_touched() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("file"), "precious").unwrap();
    std::fs::create_dir(at("folder")).unwrap();
    symlink(at("file"), at("link")).unwrap();
    for (name, kind) in [
        ("file", "regular file"),
        ("folder", "directory"),
        ("link", "symbolic link"),
    ] {
        let error = claim(&at(name), None).unwrap_err();
        assert!(matches!(error, ClaimError::NotASocket { .. }), "{error}");
        assert!(error.to_string().contains(kind), "{error}");
    }
    assert_eq!(std::fs::read_to_string(at("file")).unwrap(), "precious");
    assert!(at("link").is_symlink() && at("folder").is_dir());

    let long = at(&"x".repeat(108));
    assert!(matches!(
        claim(&long, None),
        Err(ClaimError::TooLong { bytes: 109.., .. })
    ));
    assert!(!long.exists());
    let error = claim(&at("none/s"), None).unwrap_err().to_string();
    assert!(error.contains("create its directory"), "{error}");
    let error = claim(&at("s"), Some("no such group")).unwrap_err();
    assert!(matches!(error, ClaimError::NoGroup(_)), "{error}");
    assert!(!at("s").exists());
}

#[test]
fn the_longest_path_the_kernel_takes_works() {
    let folder = tempfile::tempdir().unwrap();
    let left = 107 - folder.path().as_os_str().len() - 1;
    let path = folder.path().join("x".repeat(left));
    let claimed = claim(&path, None).unwrap();
    UnixStream::connect(&path).unwrap();
    drop(claimed);
}

#[test]
fn what_a_dead_agent_left_behind_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    drop(UnixListener::bind(&path).unwrap());
    assert!(std::fs::symlink_metadata(&path).unwrap().file_type().is_socket());
    let claimed = claim(&path, None).unwrap();
    UnixStream::connect(&path).unwrap();
    drop(claimed);
    assert!(!path.exists());
}

#[test]
fn a_socket_that_is_no_longer_ours_stays() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let claimed = claim(&path, None).unwrap();
    std::fs::remove_file(&path).unwrap();
    let _other = UnixListener::bind(&path).unwrap();
    drop(claimed);
    assert!(path.exists());
}

#[test]
fn a_listener_that_says_nothing_keeps_its_socket() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let _mute = UnixListener::bind(&path).unwrap();
    let error = claim(&path, None).unwrap_err();
    assert!(matches!(error, ClaimError::Taken { .. }), "{error}");
    assert!(
        error.to_string().contains(&format!("pid {}", std::process::id())),
        "{error}"
    );
    // With its backlog full, too.
    let mut waiting = Vec::new();
    nix::sys::socket::listen(&_mute, nix::sys::socket::Backlog::new(0).unwrap()).unwrap();
    for _ in 0..2 {
        let path = path.clone();
        waiting.push(std::thread::spawn(move || UnixStream::connect(path)));
    }
    assert!(matches!(claim(&path, None), Err(ClaimError::Taken { .. })));
    drop(_mute);
    for waiter in waiting {
        let _ = waiter.join();
    }
}
