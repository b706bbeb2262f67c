//! A disk that is full, read-only or gone.

use std::{fs, io::Write, os::unix::fs::PermissionsExt};

use nix::{
    mount::{MsFlags, mount, umount},
    sched::{CloneFlags, unshare},
};

use super::*;

/// Runs `test` with a small disk of its own, which nobody else sees; needs root.
fn on_a_disk(bytes: u64, test: impl FnOnce(&Path) + Send) {
    let dir = tempfile::tempdir().unwrap();
    let ran = std::thread::scope(|scope| {
        // The namespace belongs to this thread and to those that it starts.
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_FS).ok()?;
            let (nothing, all) = (None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE);
            mount(nothing, "/", nothing, all, nothing).ok()?;
            let options = format!("size={bytes}");
            let disk = (Some("tmpfs"), dir.path(), Some("tmpfs"), Some(options.as_str()));
            mount(disk.0, disk.1, disk.2, MsFlags::empty(), disk.3).ok()?;
            test(dir.path());
            umount(dir.path()).unwrap();
            Some(())
        });
        thread.join().unwrap()
    });
    if ran.is_none() {
        assert!(std::env::var_os("CI").is_none(), "a skip in CI is a failure");
        eprintln!("skipped: mounting needs root");
    }
}

/// Fills a disk to the last byte.
fn fill(disk: &Path) -> std::path::PathBuf {
    let path = disk.join("filler");
    let mut file = fs::File::create(&path).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    path
}

#[test]
fn a_full_disk_is_said_once_and_what_was_learned_waits() {
    on_a_disk(1 << 20, |disk| {
        let state = disk.join("state");
        let mut heard = open_quietly(&state);
        heard.put(some_of_each());
        heard.written();
        let filler = fill(disk);
        for number in 100..103 {
            heard.put((0..50).map(|part| model(number * 100 + part)));
            assert!(!heard.store.flush(SOON));
        }
        let said = heard.said();
        assert!(
            matches!(&said[..], [one] if one.contains("cannot write") && one.contains("full")),
            "{said:?}"
        );
        // Another agent reads what there is, without room for anything.
        let second = open(&state);
        assert_eq!(sorted(&second.rows), sorted(&some_of_each()));
        drop(second);
        fs::remove_file(filler).unwrap();
        heard.written();
        let said = heard.said();
        assert!(
            matches!(&said[..], [one] if one.contains("written again") && one.contains("nothing is lost")),
            "{said:?}"
        );
        drop(heard);
        assert_eq!(open_quietly(&state).rows.len(), some_of_each().len() + 150);
    });
}

#[test]
fn a_disk_that_is_full_from_the_beginning_holds_nothing_up() {
    on_a_disk(64 << 10, |disk| {
        let filler = fill(disk);
        let mut heard = open_quietly(disk);
        heard.put(some_of_each());
        assert!(!heard.store.flush(SOON) && !heard.store.flush(SOON));
        assert_eq!(heard.said().len(), 1);
        // It ends all the same.
        drop(heard);
        assert_eq!(names(disk), ["filler", "state.db"]);
        assert_eq!(disk.join("state.db").metadata().unwrap().len(), 0);
        fs::remove_file(filler).unwrap();
        assert!(open_quietly(disk).rows.is_empty());
    });
}

#[test]
fn what_waits_for_a_full_disk_is_bounded() {
    on_a_disk(512 << 10, |disk| {
        let mut heard = open_quietly(disk);
        heard.put((1..=8).map(model));
        heard.written();
        let filler = fill(disk);
        let long = |number: u32, by: u32| order(number, by, &vec![(0, number, by + 1); 4096]);
        // Twice what may wait, of which half is held by the writer and half came later.
        for by in 0..160 {
            heard.put((1..=8).map(|number| long(number, by)));
            if by == 80 {
                assert!(!heard.store.flush(SOON));
            }
        }
        assert!(!heard.store.flush(SOON));
        heard.store.keep(crate::engine::learn::row::Change::ForgetAll);
        heard.put([model(9)]);
        fs::remove_file(filler).unwrap();
        heard.written();
        drop(heard);
        assert_eq!(open_quietly(disk).rows, [model(9)]);
    });
}

#[test]
fn a_read_only_directory_is_read_and_said_once() {
    on_a_disk(1 << 20, |disk| {
        let mut heard = open_quietly(disk);
        heard.put(some_of_each());
        drop(heard);
        let again = |flags| {
            mount(
                None::<&str>,
                disk,
                None::<&str>,
                MsFlags::MS_REMOUNT | flags,
                None::<&str>,
            )
            .unwrap()
        };
        again(MsFlags::MS_RDONLY);
        let mut heard = open_quietly(disk);
        assert_eq!(sorted(&heard.rows), sorted(&some_of_each()));
        heard.put([model(70)]);
        assert!(!heard.store.flush(SOON) && !heard.store.flush(SOON));
        let said = heard.said();
        assert!(matches!(&said[..], [one] if one.contains("cannot write")), "{said:?}");
        again(MsFlags::empty());
        // It was opened when nothing could be written.
        heard.written();
        drop(heard);
        assert!(open_quietly(disk).rows.contains(&model(70)));
    });
}

#[test]
fn what_is_damaged_in_a_read_only_directory_stays_there() {
    on_a_disk(1 << 20, |disk| {
        fs::write(disk.join("state.db"), "something else").unwrap();
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(None::<&str>, disk, None::<&str>, flags, None::<&str>).unwrap();
        let mut heard = open(disk);
        assert!(
            heard.troubles[0].contains("cannot be put aside"),
            "{:?}",
            heard.troubles
        );
        heard.put([model(1)]);
        assert!(!heard.store.flush(SOON));
    });
}

#[test]
fn a_directory_that_cannot_be_made_costs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let mut heard = open(&file.join("below"));
    assert!(
        matches!(&heard.troubles[..], [one] if one.contains("cannot read")),
        "{:?}",
        heard.troubles
    );
    heard.put([device("a", 1.0)]);
    drop(heard);
    assert_eq!(fs::read(&file).unwrap(), b"");
}

#[test]
fn a_directory_that_may_not_be_written_is_said_once() {
    if nix::unistd::geteuid().is_root() {
        // Root is told otherwise, by a disk that is read-only.
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o500)).unwrap();
    let mut heard = open_quietly(dir.path());
    heard.put([model(1)]);
    assert!(!heard.store.flush(SOON));
    assert_eq!(heard.said().len(), 1);
    fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o700)).unwrap();
}

#[test]
fn a_directory_that_is_removed_comes_back_with_all_that_was_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let mut heard = open_quietly(&state);
    heard.put(some_of_each());
    heard.written();
    for number in 50..53 {
        fs::remove_dir_all(&state).unwrap();
        heard.put([model(number)]);
        heard.written();
        assert_eq!(names(&state), ["state.db"]);
    }
    // The file alone.
    fs::remove_file(state.join("state.db")).unwrap();
    heard.put([model(53)]);
    heard.written();
    let said = heard.said();
    assert!(
        said.len() == 4 && said.iter().all(|one| one.contains("was removed")),
        "{said:?}"
    );
    // Moved away it is somebody else's.
    let moved = dir.path().join("moved");
    fs::rename(&state, &moved).unwrap();
    heard.put([model(54)]);
    drop(heard);
    let rows = open_quietly(&state).rows;
    assert_eq!(rows.len(), some_of_each().len() + 5);
    assert_eq!(open_quietly(&moved).rows.len(), some_of_each().len() + 4);
}

#[test]
fn a_database_that_somebody_puts_there_is_not_written_to() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut heard = open_quietly(other.path());
    heard.put([model(7)]);
    drop(heard);
    let mut heard = open_quietly(dir.path());
    heard.put([model(1)]);
    heard.written();
    fs::rename(other.path().join("state.db"), dir.path().join("state.db")).unwrap();
    heard.put([model(2)]);
    assert!(!heard.store.flush(SOON) && !heard.store.flush(SOON));
    let said = heard.said();
    assert!(
        matches!(&said[..], [one] if one.contains("put there while the agent ran")),
        "{said:?}"
    );
    drop(heard);
    assert_eq!(open_quietly(dir.path()).rows, [model(7)]);
}
