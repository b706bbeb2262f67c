use std::{
    ffi::{OsStr, OsString},
    os::unix::fs::symlink,
};

use super::*;

const MIB: u64 = 1 << 20;

fn argument(text: impl AsRef<OsStr>) -> OsString {
    text.as_ref().to_owned()
}

#[test]
fn an_argument_names_a_file_by_its_name_whatever_path_is_before_it() {
    let (_dir, root) = directory();
    let digest = "a".repeat(64);
    let blob = root.join(format!("blobs/sha256-{digest}"));
    create(&blob, 16 * MIB);
    let (catalog, _) = scan(&[&root]);
    let file = Some(id(&blob));
    for text in [
        format!("/home/user/.ollama/models/blobs/sha256-{digest}"),
        format!("--model=/foreign/blobs/sha256-{digest}"),
        format!("sha256-{digest}"),
        format!("../x/sha256-{digest}"),
    ] {
        assert_eq!(catalog.match_argument(&argument(&text)), file, "{text}");
    }
    for text in [
        "",
        "/",
        "blobs",
        "/home/user/blobs/",
        "--model",
        "--model=",
        "=",
        "sha256-",
        &format!("sha256-{digest}x"),
    ] {
        assert_eq!(catalog.match_argument(&argument(text)), None, "{text}");
    }
}

#[test]
fn small_files_are_never_named() {
    let (_dir, root) = directory();
    create(&root.join("config.json"), 16 * MIB - 1);
    assert_eq!(scan(&[&root]).0.match_argument(&argument("config.json")), None);
}

#[test]
fn directories_decide_between_files_of_the_same_name_or_nothing_does() {
    let (_dir, root) = directory();
    for dir in ["a/x", "b/x", "b/y"] {
        create(&root.join(dir).join("model.gguf"), 16 * MIB);
    }
    let (catalog, _) = scan(&[&root]);
    let found = |text: &str| catalog.match_argument(&argument(text));
    assert_eq!(found("model.gguf"), None);
    assert_eq!(found("/elsewhere/model.gguf"), None);
    assert_eq!(found("x/model.gguf"), None);
    assert_eq!(found("/mnt/y/model.gguf"), Some(id(&root.join("b/y/model.gguf"))));
    assert_eq!(found("/mnt/a/x/model.gguf"), Some(id(&root.join("a/x/model.gguf"))));
    assert_eq!(found("/mnt/c/x/model.gguf"), None);
}

#[test]
fn a_link_of_a_snapshot_names_its_blob() {
    let (_dir, root) = directory();
    let repository = root.join("models--org--name");
    create(&repository.join("blobs/abc"), 16 * MIB);
    create(&repository.join("blobs/tiny"), 16);
    for revision in ["r1", "r2"] {
        std::fs::create_dir_all(repository.join("snapshots").join(revision)).unwrap();
        symlink(
            "../../blobs/abc",
            repository.join("snapshots").join(revision).join("model.safetensors"),
        )
        .unwrap();
        symlink(
            "../../blobs/tiny",
            repository.join("snapshots").join(revision).join("config.json"),
        )
        .unwrap();
    }
    let (catalog, _) = scan(&[&root]);
    // Two names of one file are not ambiguous.
    assert_eq!(
        catalog.match_argument(&argument("/x/model.safetensors")),
        Some(id(&repository.join("blobs/abc")))
    );
    assert_eq!(catalog.match_argument(&argument("config.json")), None);
}

#[test]
fn a_foreign_path_is_not_looked_up() {
    let (_dir, base) = directory();
    create(&base.join("root/model.gguf"), 16 * MIB);
    create(&base.join("other/secret.gguf"), 16 * MIB);
    let (catalog, _) = scan(&[&base.join("root")]);
    assert_eq!(catalog.match_argument(base.join("other/secret.gguf").as_os_str()), None);
}

#[test]
fn the_service_answers_with_the_process_that_was_asked_about() {
    let (_dir, root) = directory();
    create(&root.join("model.gguf"), 16 * MIB);
    let (mut running, ..) = Running::start(&[&root]);
    let arguments = [
        "llama-server",
        "-m",
        "/models/model.gguf",
        "--mmproj=/models/model.gguf",
    ]
    .map(OsString::from);
    running
        .service
        .ask(CatalogRequest::Match {
            process: 42,
            arguments: arguments.to_vec(),
        })
        .unwrap();
    let matched = running.wait_for("a match", |event| match event {
        CatalogEvent::Matched { process, file } => Some((process, file)),
        _ => None,
    });
    assert_eq!(matched, (42, id(&root.join("model.gguf"))));
}
