use std::{fs, os::unix::fs::symlink};

use super::*;
use crate::catalog::{Kept, Left};

const MIB: u64 = 1 << 20;

impl Running {
    fn unwatch(&mut self, path: &Path) -> (Result<Left, Kept>, Vec<FileId>, ScanReport) {
        self.service.ask(CatalogRequest::Unwatch(path.to_owned())).unwrap();
        let (mut gone, mut answer) = (Vec::new(), None);
        let report = self.wait_for("what is left", |event| {
            match event {
                CatalogEvent::Unwatched(files) => gone.extend(files),
                CatalogEvent::Left(_, left) => answer = Some(left),
                CatalogEvent::Scanned(report) if answer.is_some() => return Some(report),
                _ => {}
            }
            None
        });
        (answer.unwrap(), gone, report)
    }
}

fn left(roots: u64, files: u64, bytes: u64) -> Result<Left, Kept> {
    Ok(Left {
        roots,
        files,
        bytes: crate::units::ByteCount(bytes),
    })
}

#[test]
fn a_directory_below_a_root_goes_and_stays_away() {
    let (_dir, root) = directory();
    for name in ["a/one.gguf", "a/b/two.gguf", "c/three.gguf"] {
        create(&root.join(name), 2 * MIB);
    }
    let ids = ["a/one.gguf", "a/b/two.gguf"].map(|name| id(&root.join(name)));
    let (mut running, ..) = Running::start(&[&root]);
    let (answer, mut gone, report) = running.unwatch(&root.join("a"));
    gone.sort_unstable();
    let mut expected = ids.to_vec();
    expected.sort_unstable();
    assert_eq!((answer, gone), (left(0, 2, 4 * MIB), expected));
    assert_eq!((report.files, report.unwatched), (1, vec![root.join("a")]));
    // It is made anew, grows, and another directory takes its name.
    create(&root.join("a/b/later.gguf"), 2 * MIB);
    fs::rename(root.join("a"), root.join("moved")).unwrap();
    running.watched(ids[0]);
    fs::rename(root.join("moved"), root.join("a")).unwrap();
    running.unwatched(ids[0]);
    create(&root.join("c/beside.gguf"), 2 * MIB);
    running.watched(id(&root.join("c/beside.gguf")));
    assert!(running.describe(id(&root.join("a/b/later.gguf"))).is_none());
}

#[test]
fn a_root_goes_and_is_not_brought_back_by_what_appears_there() {
    let (_dir, base) = directory();
    create(&base.join("one/x.gguf"), 2 * MIB);
    create(&base.join("two/y.gguf"), 2 * MIB);
    symlink(base.join("one"), base.join("link")).unwrap();
    let (mut running, _, report) = Running::start(&[&base.join("link"), &base.join("two"), &base.join("later")]);
    assert_eq!(report.roots.len(), 3);
    let (answer, _, report) = running.unwatch(&base.join("one"));
    assert_eq!(answer, left(1, 1, 2 * MIB));
    assert_eq!(report.roots.len(), 2);
    let (answer, ..) = running.unwatch(&base.join("later"));
    assert_eq!(answer, left(1, 0, 0));
    // The root was given as a link: where it leads now does not matter either.
    fs::remove_file(base.join("link")).unwrap();
    create(&base.join("other/z.gguf"), 2 * MIB);
    symlink(base.join("other"), base.join("link")).unwrap();
    create(&base.join("later/l.gguf"), 2 * MIB);
    create(&base.join("two/new.gguf"), 2 * MIB);
    running.watched(id(&base.join("two/new.gguf")));
    for name in ["one/x.gguf", "other/z.gguf", "later/l.gguf"] {
        assert!(running.describe(id(&base.join(name))).is_none(), "{name}");
    }
}

#[test]
fn all_roots_below_a_path_go_and_one_in_another_with_its_names_in_both() {
    let (_dir, base) = directory();
    create(&base.join("models/inner/x.gguf"), 2 * MIB);
    create(&base.join("models/y.gguf"), 2 * MIB);
    for roots in [["models", "models/inner"], ["models/inner", "models"]] {
        let (mut running, ..) = Running::start(&roots.map(|root| base.join(root)).each_ref().map(|root| &**root));
        let (answer, _, report) = running.unwatch(&base.join("models/inner"));
        assert_eq!(answer, left(1, 1, 2 * MIB), "{roots:?}");
        assert_eq!(report.files, 1);
        assert!(running.describe(id(&base.join("models/inner/x.gguf"))).is_none());
        let (answer, ..) = running.unwatch(&base);
        assert_eq!(answer, left(1, 1, 2 * MIB));
        let (answer, ..) = running.unwatch(&base);
        assert_eq!(answer, Err(Kept::Stranger { path: base.clone() }));
    }
}

#[test]
fn a_file_and_what_is_not_there_are_unwatched_and_a_stranger_is_not() {
    let (_dir, base) = directory();
    create(&base.join("root/x.gguf"), 2 * MIB);
    create(&base.join("root/y.gguf"), 3 * MIB);
    let (mut running, ..) = Running::start(&[&base.join("root")]);
    let (answer, gone, _) = running.unwatch(&base.join("root/x.gguf"));
    assert_eq!(
        (answer, gone),
        (left(0, 1, 2 * MIB), vec![id(&base.join("root/x.gguf"))])
    );
    let (answer, ..) = running.unwatch(&base.join("root/not/yet"));
    assert_eq!(answer, left(0, 0, 0));
    create(&base.join("root/not/yet/z.gguf"), 2 * MIB);
    create(&base.join("root/not/now.gguf"), 2 * MIB);
    running.watched(id(&base.join("root/not/now.gguf")));
    assert!(running.describe(id(&base.join("root/not/yet/z.gguf"))).is_none());
    let (answer, ..) = running.unwatch(&base.join("elsewhere"));
    assert!(matches!(answer, Err(Kept::Stranger { .. })));
    assert!(running.describe(id(&base.join("root/y.gguf"))).is_some());
}

#[test]
fn a_file_with_another_name_stays_under_that_name() {
    let (_dir, base) = directory();
    create(&base.join("root/a/x.gguf"), 2 * MIB);
    fs::create_dir(base.join("root/b")).unwrap();
    fs::hard_link(base.join("root/a/x.gguf"), base.join("root/b/y.gguf")).unwrap();
    let (mut running, ..) = Running::start(&[&base.join("root")]);
    let file = id(&base.join("root/a/x.gguf"));
    let (answer, gone, _) = running.unwatch(&base.join("root/a"));
    assert_eq!((answer, gone), (left(0, 0, 0), Vec::new()));
    let place = running.describe(file).unwrap().model.parts[0].place.clone();
    assert_eq!(place.below, Path::new("b/y.gguf"));
}
