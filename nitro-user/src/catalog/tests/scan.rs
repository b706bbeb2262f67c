use std::{
    ffi::OsStr,
    os::unix::{ffi::OsStrExt, fs::symlink},
};

use super::*;
use crate::catalog::model::LayoutKind;

const MIB: u64 = 1 << 20;

#[test]
fn every_file_is_found_once_with_its_place() {
    let (_dir, root) = directory();
    create(&root.join("a/b/file.gguf"), 3 * MIB);
    create(&root.join("small"), 10);
    std::fs::hard_link(root.join("small"), root.join("a/same")).unwrap();
    symlink(&root, root.join("a/cycle")).unwrap();
    symlink("file.gguf", root.join("a/b/link")).unwrap();
    let (catalog, report) = scan(&[&root]);
    assert_eq!((report.files, report.bytes.0, report.directories), (2, 3 * MIB + 10, 3));
    assert!(report.outside.is_empty(), "{report:?}");
    let place = catalog.place(id(&root.join("a/b/file.gguf"))).unwrap();
    assert_eq!(
        (&*place.root, place.below.as_path()),
        (root.as_path(), Path::new("a/b/file.gguf"))
    );
}

#[test]
fn nested_and_repeated_roots_count_each_file_once() {
    let (_dir, root) = directory();
    create(&root.join("in/ner/x"), 1);
    create(&root.join("y"), 1);
    for roots in [[&root, &root.join("in")], [&root.join("in"), &root], [&root, &root]] {
        let (catalog, report) = scan(&roots.map(PathBuf::as_path));
        assert_eq!(report.files, 2, "{roots:?}");
        assert_eq!(catalog.files().count(), 2);
        let place = catalog.place(id(&root.join("in/ner/x"))).unwrap();
        assert_eq!(place.root.join(&place.below), root.join("in/ner/x"));
    }
}

#[test]
fn links_that_lead_out_are_counted_by_where_they_lead() {
    let (_dir, root) = directory();
    create(&root.join("w/here"), 1);
    symlink("/data/models/a.gguf", root.join("a")).unwrap();
    symlink("/data/models/b.gguf", root.join("b")).unwrap();
    symlink("../../../../../../../../../../srv/c", root.join("w/c")).unwrap();
    symlink("w/here", root.join("inside")).unwrap();
    symlink("cycle", root.join("cycle")).unwrap();
    symlink("w/gone", root.join("dangling")).unwrap();
    let (_, report) = scan(&[&root]);
    assert_eq!(
        report.outside,
        [(PathBuf::from("/data/models"), 2), (PathBuf::from("/srv"), 1)]
    );
}

#[test]
fn a_root_given_by_a_link_is_named_by_links_below_it_either_way() {
    let (_dir, base) = directory();
    create(&base.join("real/blob.gguf"), 20 * MIB);
    symlink("real", base.join("link")).unwrap();
    symlink(base.join("link/blob.gguf"), base.join("real/by-link.gguf")).unwrap();
    symlink(base.join("real/blob.gguf"), base.join("real/by-path.gguf")).unwrap();
    let (catalog, report) = scan(&[&base.join("link")]);
    assert!(report.outside.is_empty(), "{report:?}");
    for name in ["by-link.gguf", "by-path.gguf"] {
        assert_eq!(
            catalog.match_argument(OsStr::new(name)),
            Some(id(&base.join("real/blob.gguf"))),
            "{name}"
        );
    }
}

#[test]
fn names_that_are_not_utf8_are_kept_as_they_are() {
    let (_dir, root) = directory();
    let name = OsStr::from_bytes(b"m\xff\xfe/w\x80.gguf");
    create(&root.join(name), 2 * MIB);
    let (mut catalog, _) = scan(&[&root]);
    let file = id(&root.join(name));
    assert_eq!(catalog.place(file).unwrap().below, Path::new(name));
    assert!(catalog.describe(file).unwrap().model.name.contains('\u{fffd}'));
}

#[test]
fn special_files_and_pseudo_file_systems_are_left_alone() {
    let (_dir, root) = directory();
    nix::unistd::mkfifo(&root.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let socket = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
    create(&root.join("file"), 1);
    assert_eq!(scan(&[&root]).1.files, 1);
    drop(socket);
    assert_eq!(scan(&[Path::new("/proc")]).1.files, 0);
}

#[test]
fn a_tree_deeper_than_the_bound_is_cut_off_with_a_warning() {
    let (_dir, root) = directory();
    let mut path = root.clone();
    (0..100).for_each(|_| path.push("d"));
    create(&path.join("deep"), 1);
    create(&root.join("d/d/shallow"), 1);
    let (_, report) = scan(&[&root]);
    assert_eq!(report.files, 1);
    assert!(
        report.warnings.iter().any(|warning| warning.contains("levels")),
        "{report:?}"
    );
}

#[test]
fn models_are_counted_by_names_alone() {
    let (_dir, root) = directory();
    for part in 1..=3 {
        create(&root.join(format!("split/m-0000{part}-of-00003.gguf")), 2 * MIB);
        create(&root.join(format!("st/model-0000{part}-of-00003.safetensors")), 2 * MIB);
    }
    create(&root.join("one.gguf"), 2 * MIB);
    write(
        &root.join("ollama/manifests/registry.ollama.ai/library/llama3/8b"),
        "{}",
    );
    write(
        &root.join("ollama/manifests/registry.ollama.ai/library/llama3/latest"),
        "{}",
    );
    create(&root.join("ollama/blobs/sha256-x"), 1);
    create(&root.join("hub/models--a--b/snapshots/r/config.json"), 1);
    let (_, report) = scan(&[&root]);
    let count = |kind| report.models.get(&kind).copied().unwrap_or(0);
    assert_eq!(count(LayoutKind::Gguf), 2);
    assert_eq!(count(LayoutKind::Safetensors), 1);
    assert_eq!(count(LayoutKind::Ollama), 2);
    assert_eq!(count(LayoutKind::HuggingFace), 1);
    assert_eq!(report.all_models(), 6);
}

#[test]
fn ten_thousand_files_take_well_under_a_second() {
    let (_dir, root) = directory();
    for number in 0..10_000 {
        let path = root.join(format!("{}/{number}", number % 100));
        if number < 100 {
            std::fs::create_dir(path.parent().unwrap()).unwrap();
        }
        File::create(path).unwrap();
    }
    let began = Instant::now();
    let (catalog, report) = scan(&[&root]);
    let took = began.elapsed();
    assert_eq!((report.files, catalog.files().count()), (10_000, 10_000));
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[test]
fn no_descriptor_is_kept() {
    let (_dir, root) = directory();
    create(&root.join("a/b/model.gguf"), 2 * MIB);
    let (mut catalog, _) = scan(&[&root]);
    catalog.describe(id(&root.join("a/b/model.gguf"))).unwrap();
    let (running, _, _) = Running::start(&[&root]);
    let open = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let below: Vec<_> = open
        .filter_map(|entry| entry.path().read_link().ok())
        .filter(|path| path.starts_with(&root))
        .collect();
    assert!(below.is_empty(), "{below:?}");
    running.service.stop();
}
