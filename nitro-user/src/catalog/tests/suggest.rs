use std::{fs, os::unix::fs::symlink};

use super::*;
use crate::{
    catalog::{WatchRoot, add_suggested},
    sys::stat::status_of,
};

const MIB: u64 = 1 << 20;

fn suggested(path: &Path) -> WatchRoot {
    let status = status_of(File::open(path).unwrap()).unwrap();
    WatchRoot::suggested(path.into(), (status.st_dev, status.inode), "because")
}

impl Running {
    fn suggest(&mut self, root: WatchRoot) {
        self.service.ask(CatalogRequest::Watch(root)).unwrap();
    }

    fn scanned(&mut self) -> ScanReport {
        self.wait_for("a report", |event| match event {
            CatalogEvent::Scanned(report) => Some(report),
            _ => None,
        })
    }
}

fn paths(report: &ScanReport) -> Vec<&Path> {
    report.roots.iter().map(|root| root.path.as_path()).collect()
}

#[test]
fn a_suggested_root_is_watched_and_told_with_what_is_in_it() {
    let (_dir, base) = directory();
    create(&base.join("models/a/x.gguf"), 2 * MIB);
    create(&base.join("named/y.gguf"), 2 * MIB);
    let (mut running, ..) = Running::start(&[&base.join("named")]);
    running.suggest(suggested(&base.join("models")));
    running.watched(id(&base.join("models/a/x.gguf")));
    let report = running.scanned();
    assert_eq!(paths(&report), [base.join("named"), base.join("models")]);
    assert_eq!(
        (report.roots[0].why.as_deref(), report.roots[1].why.as_deref()),
        (None, Some("because"))
    );
    assert_eq!(report.roots[1].holds.unwrap().models, 1);
    // It is followed like any other.
    create(&base.join("models/b/z.gguf"), 2 * MIB);
    running.watched(id(&base.join("models/b/z.gguf")));
}

#[test]
fn what_is_known_by_any_path_or_was_unwatched_is_no_news() {
    let (_dir, base) = directory();
    create(&base.join("named/inner/x.gguf"), 2 * MIB);
    create(&base.join("gone/y.gguf"), 2 * MIB);
    create(&base.join("other/z.gguf"), 2 * MIB);
    let (mut running, ..) = Running::start(&[&base.join("named")]);
    running
        .service
        .ask(CatalogRequest::Unwatch(base.join("named/inner")))
        .unwrap();
    running.scanned();
    let elsewhere = base.join("elsewhere");
    for path in ["named", "named/inner"] {
        running.suggest(suggested(&base.join(path)));
    }
    // As a bind mount would show it.
    running.suggest(WatchRoot {
        path: elsewhere.as_path().into(),
        ..suggested(&base.join("named"))
    });
    running.suggest(suggested(&base.join("other")));
    let report = running.scanned();
    assert_eq!(paths(&report), [base.join("named"), base.join("other")]);
    running
        .service
        .ask(CatalogRequest::Unwatch(base.join("other")))
        .unwrap();
    running.suggest(suggested(&base.join("other")));
    running.suggest(suggested(&base.join("gone")));
    running.watched(id(&base.join("gone/y.gguf")));
    assert!(running.describe(id(&base.join("other/z.gguf"))).is_none());
}

#[test]
fn another_directory_than_the_one_that_was_judged_is_not_taken() {
    let (_dir, base) = directory();
    for name in ["judged", "other", "last"] {
        create(&base.join(name).join("x.gguf"), 2 * MIB);
    }
    let (mut running, ..) = Running::start(&[]);
    // Exchanged before the catalog hears of it, by another directory and by a link.
    let root = suggested(&base.join("judged"));
    fs::rename(base.join("judged"), base.join("away")).unwrap();
    fs::rename(base.join("other"), base.join("judged")).unwrap();
    running.suggest(root.clone());
    assert_eq!(paths(&running.scanned()), Vec::<&Path>::new());
    fs::rename(base.join("judged"), base.join("other")).unwrap();
    symlink("away", base.join("judged")).unwrap();
    running.suggest(root.clone());
    assert_eq!(paths(&running.scanned()), Vec::<&Path>::new());
    // Exchanged while it is watched.
    fs::remove_file(base.join("judged")).unwrap();
    fs::rename(base.join("away"), base.join("judged")).unwrap();
    running.suggest(root);
    let judged = id(&base.join("judged/x.gguf"));
    running.watched(judged);
    fs::rename(base.join("judged"), base.join("away")).unwrap();
    symlink(base.join("other"), base.join("judged")).unwrap();
    running.unwatched(judged);
    running.suggest(suggested(&base.join("last")));
    running.watched(id(&base.join("last/x.gguf")));
    assert!(running.describe(id(&base.join("other/x.gguf"))).is_none());
}

#[test]
fn one_that_goes_leaves_its_place_and_may_come_back() {
    let (_dir, base) = directory();
    let (mut running, ..) = Running::start(&[]);
    for round in 0..3 {
        let root = base.join("models");
        create(&root.join("x.gguf"), (2 + round) * MIB);
        let file = id(&root.join("x.gguf"));
        running.suggest(suggested(&root));
        running.watched(file);
        assert_eq!(running.scanned().roots.len(), 1);
        fs::remove_dir_all(&root).unwrap();
        running.unwatched(file);
        assert_eq!(running.scanned().roots.len(), 0, "round {round}");
    }
}

#[test]
fn there_is_an_end_to_what_others_may_suggest() {
    let (_dir, base) = directory();
    fs::create_dir(base.join("named")).unwrap();
    let mut all: Vec<WatchRoot> = Vec::new();
    for number in 0..100 {
        create(&base.join(number.to_string()).join("x.gguf"), 2 * MIB);
        all.push(suggested(&base.join(number.to_string())));
    }
    let mut roots = open_roots(&[base.join("named")], false).unwrap();
    add_suggested(&mut roots, all.clone());
    assert_eq!(roots.len(), 65);
    let (mut running, ..) = Running::start(&[&base.join("named")]);
    all.into_iter().for_each(|root| running.suggest(root));
    let warned = running.wait_for("a warning", |event| match event {
        CatalogEvent::Warning(text) => Some(text),
        CatalogEvent::Scanned(mut report) => report.warnings.pop(),
        _ => None,
    });
    assert!(warned.contains("more than 64"), "{warned}");
}

#[test]
fn a_suggested_root_with_any_number_of_names_leaves_room_for_the_others() {
    let (_dir, base) = directory();
    fs::create_dir(base.join("named")).unwrap();
    fs::create_dir(base.join("many")).unwrap();
    for number in 0..3000 {
        File::create(base.join("many").join(number.to_string())).unwrap();
    }
    let (mut running, ..) = Running::start(&[&base.join("named")]);
    running.suggest(suggested(&base.join("many")));
    let report = running.scanned();
    assert_eq!(report.files, 2000);
    assert!(
        report
            .warnings
            .iter()
            .any(|warning| warning.contains("more than 2000 names")),
        "{report:?}"
    );
    create(&base.join("named/x.gguf"), 2 * MIB);
    running.watched(id(&base.join("named/x.gguf")));
}
