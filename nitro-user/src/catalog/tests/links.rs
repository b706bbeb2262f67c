use std::{ffi::OsStr, os::unix::fs::symlink};

use super::*;

const MIB: u64 = 1 << 20;

#[test]
fn a_chain_of_links_through_linked_directories_is_followed_in_memory() {
    let (_dir, root) = directory();
    create(&root.join("store/v2/model.gguf"), 16 * MIB);
    symlink("v2", root.join("store/current")).unwrap();
    symlink(root.join("store/current/../current/model.gguf"), root.join("first")).unwrap();
    symlink("./first", root.join("second.gguf")).unwrap();
    let (catalog, report) = scan(&[&root]);
    assert_eq!(
        catalog.match_argument(OsStr::new("second.gguf")),
        Some(id(&root.join("store/v2/model.gguf")))
    );
    assert!(report.outside.is_empty());
}

#[test]
fn cycles_and_long_texts_lead_nowhere() {
    let (_dir, root) = directory();
    create(&root.join("model.gguf"), 16 * MIB);
    symlink("b", root.join("a")).unwrap();
    symlink("a", root.join("b")).unwrap();
    symlink("d/d/d/d/d/d/d/d/d/d/d/d", root.join("d")).unwrap();
    symlink("model.gguf/", root.join("as-directory")).unwrap();
    symlink("model.gguf/below", root.join("below")).unwrap();
    symlink(format!("{}model.gguf", "./".repeat(2000)), root.join("long")).unwrap();
    let (catalog, _) = scan(&[&root]);
    for name in ["a", "b", "d", "below"] {
        assert_eq!(catalog.match_argument(OsStr::new(name)), None, "{name}");
    }
}

#[test]
fn a_link_from_one_root_to_another_is_inside() {
    let (_dir, base) = directory();
    create(&base.join("one/model.gguf"), 16 * MIB);
    std::fs::create_dir(base.join("two")).unwrap();
    symlink("../one/model.gguf", base.join("two/relative")).unwrap();
    symlink(base.join("one/model.gguf"), base.join("two/absolute")).unwrap();
    let file = id(&base.join("one/model.gguf"));
    let (catalog, report) = scan(&[&base.join("one"), &base.join("two")]);
    assert!(report.outside.is_empty(), "{report:?}");
    for name in ["relative", "absolute"] {
        assert_eq!(catalog.match_argument(OsStr::new(name)), Some(file), "{name}");
    }
    let (_, report) = scan(&[&base.join("two")]);
    assert_eq!(report.outside, [(base.join("one"), 2)]);
}

#[test]
fn a_link_below_the_root_of_the_file_system_is_inside() {
    use crate::catalog::{
        links::{Anchor, Target, resolve},
        table::{Found, Table},
    };
    let mut table = Table::default();
    let mut delta = crate::catalog::Delta::default();
    let top = table.add_root(0);
    let root = crate::catalog::WatchRoot {
        given: "/".into(),
        path: Path::new("/").into(),
        present: true,
        suggested: None,
    };
    let anchors = [Anchor {
        root,
        dir: Some(top),
        dropped: false,
    }];
    let file = Found::File {
        file: FileId { device: 1, inode: 1 },
        size: 1,
        stamp: 0,
    };
    let node = table.put(top, b"f", file, &mut delta).unwrap();
    table.put(top, b"l", Found::Link { target: b"/f" }, &mut delta).unwrap();
    for path in [b"/l".as_slice(), b"/../f", b"//./f"] {
        assert_eq!(resolve(&table, &anchors, None, path), Target::File(node));
    }
    assert_eq!(resolve(&table, &anchors, Some(top), b".."), Target::Directory(top));
}
