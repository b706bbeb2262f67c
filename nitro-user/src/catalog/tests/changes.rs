use std::{fs, io::Write, os::unix::fs::symlink};

use super::*;

const MIB: u64 = 1 << 20;

#[test]
fn the_first_scan_tells_the_files_worth_watching() {
    let (_dir, root) = directory();
    create(&root.join("big"), 2 * MIB);
    create(&root.join("small"), MIB - 1);
    let (running, before, report) = Running::start(&[&root]);
    let watched: Vec<_> = before
        .into_iter()
        .flat_map(|event| {
            if let CatalogEvent::Watched(files) = event {
                files
            } else {
                panic!("{event:?}")
            }
        })
        .collect();
    assert_eq!(watched, [(id(&root.join("big")), 2 * MIB)]);
    assert_eq!(report.files, 2);
    running.service.stop();
}

#[test]
fn a_download_that_is_renamed_into_place_is_one_file() {
    let (_dir, root) = directory();
    fs::create_dir(root.join("blobs")).unwrap();
    let (mut running, ..) = Running::start(&[&root]);
    let partial = root.join("blobs/sha256-x-partial");
    let mut file = File::create(&partial).unwrap();
    file.write_all(&vec![1; 2 << 20]).unwrap();
    drop(file);
    let file = id(&partial);
    assert_eq!(running.watched(file), 2 * MIB);
    fs::rename(&partial, root.join("blobs/sha256-x")).unwrap();
    // Who asks after the rename gets the new name, though its event is a moment old.
    let place = running.describe(file).unwrap().model.parts[0].place.below.clone();
    assert_eq!(place, Path::new("blobs/sha256-x"));
}

#[test]
fn a_deleted_file_is_told_within_half_a_second() {
    let (_dir, root) = directory();
    let path = root.join("deep/er/model.gguf");
    create(&path, 2 * MIB);
    let file = id(&path);
    let (mut running, ..) = Running::start(&[&root]);
    let began = Instant::now();
    fs::remove_file(&path).unwrap();
    running.unwatched(file);
    assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
    assert!(running.describe(file).is_none());
}

#[test]
fn a_replaced_file_goes_and_another_comes() {
    let (_dir, root) = directory();
    create(&root.join("model.gguf"), 2 * MIB);
    let old = id(&root.join("model.gguf"));
    let (mut running, ..) = Running::start(&[&root]);
    create(&root.join("new"), 3 * MIB);
    let new = id(&root.join("new"));
    fs::rename(root.join("new"), root.join("model.gguf")).unwrap();
    running.unwatched(old);
    assert_eq!(running.describe(new).unwrap().model.parts[0].size, 3 * MIB);
    assert!(running.describe(old).is_none());
}

#[test]
fn a_file_that_grows_past_the_bound_is_watched_and_one_that_is_rewritten_has_changed() {
    let (_dir, root) = directory();
    create(&root.join("f"), 10);
    let file = id(&root.join("f"));
    let (mut running, ..) = Running::start(&[&root]);
    fs::write(root.join("f"), vec![0; 3 << 20]).unwrap();
    assert_eq!(running.watched(file), 3 * MIB);
    fs::write(root.join("f"), vec![1; 3 << 20]).unwrap();
    running.changed(file);
    fs::write(root.join("f"), "short").unwrap();
    running.unwatched(file);
}

#[test]
fn a_truncation_that_nobody_told_is_seen_when_the_file_is_described() {
    let (_dir, root) = directory();
    create(&root.join("f"), 4 * MIB);
    let file = id(&root.join("f"));
    let (mut running, ..) = Running::start(&[&root]);
    nix::unistd::truncate(&root.join("f"), 2 * MIB as i64).unwrap();
    assert_eq!(running.describe(file).unwrap().model.parts[0].size, 2 * MIB);
}

#[test]
fn a_file_that_is_written_for_a_while_is_known_within_a_second_of_the_last_write() {
    let (_dir, root) = directory();
    let (mut running, ..) = Running::start(&[&root]);
    let mut writer = File::create(root.join("model.gguf")).unwrap();
    let file = id(&root.join("model.gguf"));
    for _ in 0..16 {
        writer.write_all(&vec![1; 128 << 10]).unwrap();
        // A slow download: the point of the test.
        std::thread::sleep(Duration::from_millis(60));
    }
    let began = Instant::now();
    assert!(
        running.watched(file) >= MIB,
        "watched as soon as it is large enough, which is before the end"
    );
    running.changed(file);
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    drop(writer);
    assert_eq!(running.describe(file).unwrap().model.parts[0].size, 2 * MIB);
}

#[test]
fn a_file_that_was_in_the_middle_of_its_download_at_the_start_is_followed() {
    let (_dir, root) = directory();
    create(&root.join("model.gguf"), 10);
    let file = id(&root.join("model.gguf"));
    let (mut running, before, _) = Running::start(&[&root]);
    assert!(before.is_empty());
    let mut writer = File::options().append(true).open(root.join("model.gguf")).unwrap();
    writer.write_all(&vec![1; 2 << 20]).unwrap();
    let began = Instant::now();
    running.watched(file);
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

#[test]
fn a_directory_with_more_young_files_than_are_followed_is_looked_through_again() {
    use crate::catalog::{Delta, Means, Reach};
    let (_dir, root) = directory();
    (0..4200).for_each(|number| create(&root.join(number.to_string()), 10));
    let (mut catalog, _) = scan(&[&root]);
    (0..4200).for_each(|number| create(&root.join(number.to_string()), 2 * MIB));
    let stop = std::sync::atomic::AtomicBool::new(false);
    let means = Means {
        inotify: None,
        stop: &stop,
    };
    let mut delta = Delta::recording();
    let later = Instant::now() + Duration::from_secs(15);
    catalog.look_at_growing(later, &mut delta);
    assert_eq!(catalog.settle(delta, means).watched.len(), 4096);
    let mut delta = Delta::recording();
    let dirs = catalog.growing.take_crowded(later);
    catalog.look_through(&dirs, Reach::New, means, &mut delta);
    assert_eq!(catalog.settle(delta, means).watched.len(), 4200 - 4096);
}

#[test]
fn directories_that_appear_with_content_are_looked_through() {
    let (_dir, base) = directory();
    let root = base.join("root");
    fs::create_dir(&root).unwrap();
    create(&base.join("outside/a/b/model.gguf"), 2 * MIB);
    let file = id(&base.join("outside/a/b/model.gguf"));
    let (mut running, ..) = Running::start(&[&root]);
    fs::rename(base.join("outside"), root.join("inside")).unwrap();
    running.watched(file);
    // Made level by level, as a download does, faster than anyone can watch.
    create(&root.join("x/y/z/second.gguf"), 2 * MIB);
    running.watched(id(&root.join("x/y/z/second.gguf")));
    // And files that come later into a directory that came later.
    create(&root.join("inside/a/b/third.gguf"), 2 * MIB);
    running.watched(id(&root.join("inside/a/b/third.gguf")));
    fs::rename(root.join("inside"), base.join("outside")).unwrap();
    running.unwatched(file);
    // What happens outside is none of our business.
    create(&base.join("outside/a/b/fourth.gguf"), 2 * MIB);
    create(&root.join("last.gguf"), 2 * MIB);
    let fourth = id(&base.join("outside/a/b/fourth.gguf"));
    running.watched(id(&root.join("last.gguf")));
    assert!(running.describe(fourth).is_none());
}

#[test]
fn a_directory_that_is_moved_within_the_roots_stays_watched() {
    let (_dir, root) = directory();
    create(&root.join("a/sub/model.gguf"), 2 * MIB);
    fs::create_dir(root.join("b")).unwrap();
    let file = id(&root.join("a/sub/model.gguf"));
    let (mut running, ..) = Running::start(&[&root]);
    fs::rename(root.join("a/sub"), root.join("b/sub")).unwrap();
    let deadline = Instant::now() + DEADLINE;
    while running
        .describe(file)
        .map(|found| found.model.parts[0].place.below.clone())
        != Some("b/sub/model.gguf".into())
    {
        assert!(Instant::now() < deadline);
    }
    create(&root.join("b/sub/later.gguf"), 2 * MIB);
    running.watched(id(&root.join("b/sub/later.gguf")));
    fs::remove_dir_all(root.join("b")).unwrap();
    running.unwatched(file);
}

#[test]
fn a_directory_replaced_under_its_name_is_looked_through_again() {
    let (_dir, root) = directory();
    create(&root.join("d/old.gguf"), 2 * MIB);
    let old = id(&root.join("d/old.gguf"));
    let (mut running, ..) = Running::start(&[&root]);
    // Kept, so that its inode number is not given to the new one.
    fs::rename(root.join("d/old.gguf"), root.join("kept.gguf")).unwrap();
    fs::remove_dir(root.join("d")).unwrap();
    create(&root.join("d/new.gguf"), 2 * MIB);
    running.watched(id(&root.join("d/new.gguf")));
    assert!(running.describe(old).is_some());
}

#[test]
fn a_file_with_two_names_goes_with_the_last_one() {
    let (_dir, root) = directory();
    create(&root.join("one"), 2 * MIB);
    fs::hard_link(root.join("one"), root.join("two")).unwrap();
    let file = id(&root.join("one"));
    let (mut running, ..) = Running::start(&[&root]);
    fs::remove_file(root.join("one")).unwrap();
    assert_eq!(
        running.describe(file).unwrap().model.parts[0].place.below,
        Path::new("two")
    );
    fs::remove_file(root.join("two")).unwrap();
    running.unwatched(file);
}

#[test]
fn ten_thousand_files_that_come_at_once_are_all_found() {
    let (_dir, root) = directory();
    let (mut running, ..) = Running::start(&[&root]);
    for number in 0..10_000 {
        create(&root.join(format!("{}/{number}.bin", number % 50)), 2 * MIB);
    }
    let mut seen = std::collections::HashSet::new();
    running.wait_for("ten thousand files", |event| {
        if let CatalogEvent::Watched(files) = event {
            seen.extend(files.into_iter().map(|(file, _)| file));
        }
        (seen.len() == 10_000).then_some(())
    });
}

#[test]
fn a_deletion_does_not_wait_for_a_large_tree_that_is_moved_in() {
    let (_dir, base) = directory();
    let root = base.join("root");
    create(&root.join("model.gguf"), 2 * MIB);
    for number in 0..2000 {
        fs::create_dir_all(base.join(format!("outside/{}/{number}", number % 100))).unwrap();
    }
    create(&base.join("outside/last/one/model.gguf"), 3 * MIB);
    let (gone, last) = (
        id(&root.join("model.gguf")),
        id(&base.join("outside/last/one/model.gguf")),
    );
    let (mut running, ..) = Running::start(&[&root]);
    fs::rename(base.join("outside"), root.join("inside")).unwrap();
    // By now its directories are being listed.
    std::thread::sleep(2 * crate::catalog::changes::BURST);
    let began = Instant::now();
    fs::remove_file(root.join("model.gguf")).unwrap();
    let mut come = false;
    running.wait_for("the deleted file to go", |event| match event {
        CatalogEvent::Watched(files) => {
            come |= files.iter().any(|(file, _)| *file == last);
            None
        }
        CatalogEvent::Unwatched(files) => files.contains(&gone).then_some(()),
        _ => None,
    });
    assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
    if !come {
        running.watched(last);
    }
}

#[test]
fn lost_events_lead_to_a_full_rescan() {
    let (_dir, root) = directory();
    create(&root.join("kept.gguf"), 2 * MIB);
    create(&root.join("gone.gguf"), 2 * MIB);
    create(&root.join("from/moved.gguf"), 2 * MIB);
    fs::create_dir(root.join("to")).unwrap();
    let (kept, gone, moved) = (
        id(&root.join("kept.gguf")),
        id(&root.join("gone.gguf")),
        id(&root.join("from/moved.gguf")),
    );
    let mut catalog = Catalog::new(
        &open_roots(std::slice::from_ref(&root), false).unwrap(),
        Arc::default(),
        Exclude::default(),
    );
    let stop = std::sync::atomic::AtomicBool::new(false);
    let inotify = nix::sys::inotify::Inotify::init(nix::sys::inotify::InitFlags::IN_NONBLOCK).unwrap();
    let means = crate::catalog::Means {
        inotify: Some(&inotify),
        stop: &stop,
    };
    let mut delta = crate::catalog::Delta::default();
    catalog.look_through_roots(means, &mut delta);
    catalog.settle(delta, means);
    fs::remove_file(root.join("gone.gguf")).unwrap();
    fs::rename(root.join("from"), root.join("to/from")).unwrap();
    symlink("kept.gguf", root.join("link")).unwrap();
    create(&root.join("new/new.gguf"), 2 * MIB);
    // As if the queue had overflowed: no event but that one.
    while inotify.read_events().is_ok() {}
    let mut pending = crate::catalog::changes::Pending::default();
    pending.everything = true;
    pending.begin(Instant::now());
    let mut delta = crate::catalog::Delta::recording();
    catalog.apply(pending, means, &mut delta);
    let net = catalog.settle(delta, means);
    assert_eq!(net.watched, [(id(&root.join("new/new.gguf")), 2 * MIB)]);
    assert_eq!(net.unwatched, [gone]);
    assert!(catalog.place(kept).is_some());
    assert_eq!(catalog.place(moved).unwrap().below, Path::new("to/from/moved.gguf"));
    // The directory that was moved is still watched at its new place.
    create(&root.join("to/from/later.gguf"), 2 * MIB);
    let mut pending = crate::catalog::changes::Pending::default();
    catalog.collect(&inotify, &mut pending, Instant::now());
    let mut delta = crate::catalog::Delta::recording();
    catalog.apply(pending, means, &mut delta);
    assert_eq!(
        catalog.settle(delta, means).watched,
        [(id(&root.join("to/from/later.gguf")), 2 * MIB)]
    );
}

#[test]
fn directories_that_change_places_are_both_known_at_their_new_ones() {
    let (_dir, root) = directory();
    create(&root.join("a/one.gguf"), 2 * MIB);
    create(&root.join("b/c/two.gguf"), 2 * MIB);
    let (one, two) = (id(&root.join("a/one.gguf")), id(&root.join("b/c/two.gguf")));
    let (mut running, ..) = Running::start(&[&root]);
    fs::rename(root.join("a"), root.join("b/aside")).unwrap();
    fs::rename(root.join("b/c"), root.join("a")).unwrap();
    fs::rename(root.join("b/aside"), root.join("b/c")).unwrap();
    let deadline = Instant::now() + DEADLINE;
    let place = |running: &mut Running, file| Some(running.describe(file)?.model.parts[0].place.below.clone());
    while place(&mut running, one) != Some("b/c/one.gguf".into())
        || place(&mut running, two) != Some("a/two.gguf".into())
    {
        assert!(Instant::now() < deadline);
    }
    for later in ["a/later.gguf", "b/c/later.gguf"] {
        create(&root.join(later), 2 * MIB);
        running.watched(id(&root.join(later)));
    }
}

#[test]
fn a_directory_without_a_watch_is_looked_at_again_with_one_warning() {
    use crate::catalog::{Means, Reach, delta::Delta, listing::Watching};
    let (_dir, root) = directory();
    create(&root.join("a/one.gguf"), 2 * MIB);
    let (mut catalog, _) = scan(&[&root]);
    let dirs: Vec<_> = catalog.table.dirs().collect();
    // As if the limit were reached.
    dirs.iter().for_each(|dir| catalog.watching(*dir, Watching::Exhausted));
    let warnings = catalog.take_warnings();
    assert!(
        warnings.len() == 1 && warnings[0].contains("max_user_watches"),
        "{warnings:?}"
    );
    create(&root.join("a/two.gguf"), 2 * MIB);
    fs::remove_file(root.join("a/one.gguf")).unwrap();
    let uncovered: Vec<_> = catalog.uncovered.iter().copied().collect();
    assert_eq!(uncovered.len(), 2);
    let stop = std::sync::atomic::AtomicBool::new(false);
    let means = Means {
        inotify: None,
        stop: &stop,
    };
    let mut delta = Delta::recording();
    catalog.look_through(&uncovered, Reach::New, means, &mut delta);
    let net = catalog.settle(delta, means);
    assert_eq!(
        net.watched.len() + net.changed.len(),
        1,
        "the inode number may be the same: {net:?}"
    );
    assert!(
        catalog.match_argument("two.gguf".as_ref()).is_none(),
        "too small to be named"
    );
    assert_eq!(catalog.files().count(), 1);
}

#[test]
fn the_service_stops_though_nobody_receives() {
    let (_dir, root) = directory();
    (0..50).for_each(|number| create(&root.join(number.to_string()), 2 * MIB));
    let (sender, events) = channel(1);
    let service = CatalogService::start(
        open_roots(&[root], false).unwrap(),
        Arc::default(),
        Exclude::default(),
        sender,
    )
    .unwrap();
    let began = Instant::now();
    service.stop();
    assert!(began.elapsed() < Duration::from_secs(2));
    drop(events);
}
