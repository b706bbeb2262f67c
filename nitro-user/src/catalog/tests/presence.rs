use std::fs;

use super::*;

const MIB: u64 = 1 << 20;

#[test]
fn a_root_that_appears_later_is_picked_up_within_a_second() {
    let (_dir, base) = directory();
    let root = base.join("not/yet/there");
    let (mut running, before, report) = Running::start(&[&root]);
    assert!(before.is_empty() && report.files == 0);
    create(&root.join("model.gguf"), 2 * MIB);
    let began = Instant::now();
    running.watched(id(&root.join("model.gguf")));
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

#[test]
fn a_root_that_appears_level_by_level_is_picked_up() {
    let (_dir, base) = directory();
    let root = base.join("not/yet/there");
    let (mut running, ..) = Running::start(&[&root]);
    for level in ["not", "not/yet", "not/yet/there"] {
        // Long enough that each level is a burst of its own: the point of the test.
        std::thread::sleep(3 * crate::catalog::changes::BURST);
        fs::create_dir(base.join(level)).unwrap();
    }
    create(&root.join("model.gguf"), 2 * MIB);
    running.watched(id(&root.join("model.gguf")));
}

#[test]
fn a_root_that_cannot_be_watched_is_said_once_and_not_tried_for_ever() {
    let roots = open_roots(&[PathBuf::from("/proc")], false).unwrap();
    let mut catalog = Catalog::new(&roots, Arc::default(), Exclude::default());
    let stop = std::sync::atomic::AtomicBool::new(false);
    let means = crate::catalog::Means {
        inotify: None,
        stop: &stop,
    };
    let mut delta = crate::catalog::Delta::recording();
    assert!(!catalog.check_roots(means, &mut delta) && !catalog.check_roots(means, &mut delta));
    assert_eq!(catalog.take_warnings().len(), 1);
}

#[test]
fn a_root_that_is_removed_and_made_again_is_watched_again() {
    let (_dir, base) = directory();
    let root = base.join("root");
    create(&root.join("one.gguf"), 2 * MIB);
    let one = id(&root.join("one.gguf"));
    let (mut running, ..) = Running::start(&[&root]);
    fs::remove_dir_all(&root).unwrap();
    running.unwatched(one);
    create(&root.join("two.gguf"), 3 * MIB);
    let deadline = Instant::now() + DEADLINE;
    let two = id(&root.join("two.gguf"));
    while running
        .describe(two)
        .is_none_or(|found| found.model.parts[0].size != 3 * MIB)
    {
        assert!(Instant::now() < deadline);
    }
}

#[test]
fn a_root_that_is_removed_while_a_file_of_it_is_open_is_watched_again_when_it_is_back() {
    for removed in ["above/watched", "above"] {
        let (_dir, base) = directory();
        let root = base.join("above/watched");
        create(&root.join("one.gguf"), 2 * MIB);
        let one = id(&root.join("one.gguf"));
        let (mut running, ..) = Running::start(&[&root]);
        // Its own directory is not gone for good until this is closed.
        let _open = File::open(root.join("one.gguf")).unwrap();
        fs::remove_dir_all(base.join(removed)).unwrap();
        running.unwatched(one);
        create(&root.join("two.gguf"), 3 * MIB);
        assert_eq!(running.watched(id(&root.join("two.gguf"))), 3 * MIB);
    }
}

#[test]
fn a_root_that_is_moved_away_takes_its_files_with_it() {
    let (_dir, base) = directory();
    create(&base.join("above/watched/model.gguf"), 2 * MIB);
    let file = id(&base.join("above/watched/model.gguf"));
    let (mut running, ..) = Running::start(&[&base.join("above/watched")]);
    // Not the root itself: the directory above it.
    fs::rename(base.join("above"), base.join("elsewhere")).unwrap();
    running.unwatched(file);
    fs::rename(base.join("elsewhere"), base.join("above")).unwrap();
    assert_eq!(running.watched(file), 2 * MIB);
}

/// Runs in a mount namespace of its own; `None` where that is not allowed.
fn in_own_mount_namespace<T: Send>(test: impl FnOnce() -> T + Send) -> Option<T> {
    use nix::{
        mount::{MsFlags, mount},
        sched::{CloneFlags, unshare},
    };
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_FS).ok()?;
            mount(
                None::<&str>,
                "/",
                None::<&str>,
                MsFlags::MS_REC | MsFlags::MS_PRIVATE,
                None::<&str>,
            )
            .ok()?;
            Some(test())
        });
        thread.join().unwrap()
    })
}

#[test]
fn file_systems_that_are_mounted_and_unmounted_below_a_root_come_and_go() {
    use nix::mount::{MsFlags, mount, umount};
    let (_dir, root) = directory();
    let place = root.join("mnt");
    create(&place.join("hidden.gguf"), 2 * MIB);
    let ran = in_own_mount_namespace(|| {
        let hidden = id(&place.join("hidden.gguf"));
        // The service's thread and the scan's threads inherit the namespace of this one.
        let (mut running, ..) = Running::start(&[&root]);
        mount(Some("none"), &place, Some("tmpfs"), MsFlags::empty(), None::<&str>).ok()?;
        running.unwatched(hidden);
        create(&place.join("shown.gguf"), 3 * MIB);
        let shown = id(&place.join("shown.gguf"));
        assert_eq!(running.watched(shown), 3 * MIB);
        // Nothing of ours keeps it busy.
        umount(&place).unwrap();
        let mut come = false;
        running.wait_for("the hidden file to come back", |event| {
            come |= matches!(&event, CatalogEvent::Watched(files) if files.iter().any(|(file, _)| *file == hidden));
            come.then_some(())
        });
        assert!(running.describe(shown).is_none());
        Some(())
    });
    if ran.flatten().is_none() {
        eprintln!("skipped: mounting needs root");
        assert!(std::env::var_os("CI").is_none(), "a skip in CI is a failure");
    }
}

#[test]
fn a_bind_mount_of_a_root_into_itself_costs_nothing() {
    use nix::mount::{MsFlags, mount, umount};
    let (_dir, root) = directory();
    create(&root.join("a/model.gguf"), 2 * MIB);
    fs::create_dir(root.join("again")).unwrap();
    let ran = in_own_mount_namespace(|| {
        mount(
            Some(&root),
            &root.join("again"),
            None::<&str>,
            MsFlags::MS_BIND,
            None::<&str>,
        )
        .ok()?;
        let (_, report) = scan(&[&root]);
        umount(&root.join("again")).unwrap();
        assert_eq!(report.files, 1);
        Some(())
    });
    if ran.flatten().is_none() {
        eprintln!("skipped: mounting needs root");
        assert!(std::env::var_os("CI").is_none(), "a skip in CI is a failure");
    }
}
