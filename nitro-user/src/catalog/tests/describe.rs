use std::os::unix::fs::symlink;

use super::*;
use crate::catalog::model::LayoutKind;

const MIB: u64 = 1 << 20;

fn names(description: &Description) -> Vec<String> {
    description
        .model
        .parts
        .iter()
        .map(|part| part.place.below.to_string_lossy().into_owned())
        .collect()
}

fn manifest(layers: &[(&str, &str)]) -> String {
    let layers: Vec<_> = layers
        .iter()
        .map(|(kind, digest)| {
            format!(r#"{{"mediaType":"application/vnd.ollama.image.{kind}","digest":"sha256:{digest}","size":1}}"#)
        })
        .collect();
    format!(
        r#"{{"schemaVersion":2,"config":{{"digest":"sha256:0"}},"layers":[{}]}}"#,
        layers.join(",")
    )
}

#[test]
fn an_ollama_model_is_its_large_layers_in_load_order() {
    let (_dir, root) = directory();
    let [model, projector, template] = ["a", "b", "c"].map(|digit| digit.repeat(64));
    for (digest, size) in [(&model, 20 * MIB), (&projector, 2 * MIB), (&template, 100)] {
        create(&root.join(format!("blobs/sha256-{digest}")), size);
    }
    let layers = [
        ("projector", projector.as_str()),
        ("template", &template),
        ("model", &model),
    ];
    write(
        &root.join("manifests/registry.ollama.ai/library/llava/7b"),
        manifest(&layers),
    );
    let (mut catalog, _) = scan(&[&root]);
    let found = catalog
        .describe(id(&root.join(format!("blobs/sha256-{projector}"))))
        .unwrap();
    assert_eq!(
        (found.model.layout, found.model.name.as_str(), found.position),
        (LayoutKind::Ollama, "llava:7b", 1)
    );
    assert_eq!(
        names(&found),
        [format!("blobs/sha256-{model}"), format!("blobs/sha256-{projector}")]
    );
    let first = catalog
        .describe(id(&root.join(format!("blobs/sha256-{model}"))))
        .unwrap();
    assert!(Arc::ptr_eq(&first.model, &found.model), "the answer is remembered");
}

#[test]
fn a_hub_snapshot_gives_the_blobs_their_order() {
    let (_dir, base) = directory();
    // The parent of the hub as root: hubs may nest.
    let repository = base.join("hub/models--meta-llama--Llama");
    let shards = ["zz", "yy", "xx"];
    for (number, blob) in (1..).zip(shards) {
        create(&repository.join("blobs").join(blob), 2 * MIB);
        let link = repository.join(format!("snapshots/abc/model-0000{number}-of-00003.safetensors"));
        std::fs::create_dir_all(link.parent().unwrap()).unwrap();
        symlink(format!("../../blobs/{blob}"), link).unwrap();
    }
    write(&repository.join("refs/main"), "abc");
    let index = r#"{"metadata":{"total_size":1},"weight_map":{"b":"model-00002-of-00003.safetensors",
        "a":"model-00001-of-00003.safetensors","c":"model-00003-of-00003.safetensors","d":"model-00001-of-00003.safetensors"}}"#;
    write(&repository.join("blobs/index"), index);
    symlink(
        "../../blobs/index",
        repository.join("snapshots/abc/model.safetensors.index.json"),
    )
    .unwrap();
    let (mut catalog, report) = scan(&[&base]);
    assert_eq!(report.models.get(&LayoutKind::HuggingFace), Some(&1));
    let found = catalog.describe(id(&repository.join("blobs/yy"))).unwrap();
    assert_eq!(found.model.layout, LayoutKind::HuggingFace);
    assert_eq!((found.model.name.as_str(), found.position), ("meta-llama/Llama", 1));
    assert_eq!(
        names(&found),
        shards.map(|blob| format!("hub/models--meta-llama--Llama/blobs/{blob}"))
    );
}

#[test]
fn a_new_manifest_makes_the_old_answer_void() {
    let (_dir, root) = directory();
    let digest = "d".repeat(64);
    let blob = root.join(format!("blobs/sha256-{digest}"));
    create(&blob, 20 * MIB);
    let (mut running, ..) = Running::start(&[&root]);
    let file = id(&blob);
    assert_eq!(running.describe(file).unwrap().model.layout, LayoutKind::Single);
    write(
        &root.join("manifests/registry.ollama.ai/library/new/latest"),
        manifest(&[("model", &digest)]),
    );
    running.changed(file);
    assert_eq!(running.describe(file).unwrap().model.name, "new:latest");
}

#[test]
fn a_manifest_that_is_rewritten_in_place_makes_the_old_answer_void() {
    let (_dir, root) = directory();
    let [model, projector] = ["a", "b"].map(|digit| digit.repeat(64));
    let blob = |digest: &str| root.join(format!("blobs/sha256-{digest}"));
    [&model, &projector]
        .iter()
        .for_each(|digest| create(&blob(digest), 20 * MIB));
    let path = root.join("manifests/registry.ollama.ai/library/llava/7b");
    write(&path, manifest(&[("model", &model)]));
    let (mut catalog, _) = scan(&[&root]);
    assert_eq!(catalog.describe(id(&blob(&model))).unwrap().model.parts.len(), 1);
    // The same inode, and nobody tells.
    write(&path, manifest(&[("model", &model), ("projector", &projector)]));
    let found = catalog.describe(id(&blob(&model))).unwrap();
    assert_eq!(found.model.parts.len(), 2);
    let again = catalog.describe(id(&blob(&projector))).unwrap();
    assert!(Arc::ptr_eq(&found.model, &again.model), "and the new one is remembered");
}

#[test]
fn a_part_that_is_rewritten_in_place_is_described_with_its_new_size() {
    let (_dir, root) = directory();
    let path = |part: u32| root.join(format!("model-0000{part}-of-00002.gguf"));
    [1, 2].iter().for_each(|part| create(&path(*part), 20 * MIB));
    let (mut running, ..) = Running::start(&[&root]);
    let sizes = |found: &Description| found.model.parts.iter().map(|part| part.size / MIB).collect::<Vec<_>>();
    assert_eq!(sizes(&running.describe(id(&path(1))).unwrap()), [20, 20]);
    create(&path(2), 30 * MIB);
    assert_eq!(sizes(&running.describe(id(&path(1))).unwrap()), [20, 30]);
    create(&path(1), 25 * MIB);
    assert_eq!(sizes(&running.describe(id(&path(2))).unwrap()), [25, 30]);
}

#[test]
fn a_lone_file_is_a_model_by_itself() {
    let (_dir, root) = directory();
    create(&root.join("weights.xyz"), 20 * MIB);
    let (mut catalog, _) = scan(&[&root]);
    let found = catalog.describe(id(&root.join("weights.xyz"))).unwrap();
    assert_eq!(
        (found.model.layout, found.model.name.as_str()),
        (LayoutKind::Single, "weights.xyz")
    );
    assert_eq!(found.model.parts[0].header, 0);
}

#[test]
fn a_series_is_in_the_order_of_its_numbers() {
    let (_dir, root) = directory();
    for number in [1, 2, 9, 10, 11] {
        create(&root.join(format!("frame_{number}.png")), 2 * MIB);
    }
    create(&root.join("frame_x.png"), 2 * MIB);
    let (mut catalog, _) = scan(&[&root]);
    let found = catalog.describe(id(&root.join("frame_9.png"))).unwrap();
    assert_eq!(
        (found.model.layout, found.model.name.as_str(), found.position),
        (LayoutKind::Numbered, "frame", 2)
    );
    assert_eq!(
        names(&found),
        [1, 2, 9, 10, 11].map(|number| format!("frame_{number}.png"))
    );
    let weak = catalog.describe(id(&root.join("frame_x.png"))).unwrap();
    assert_eq!((weak.model.layout, weak.position), (LayoutKind::Siblings, 5));
}

#[test]
fn hostile_manifests_and_headers_are_refused_and_name_nothing_outside() {
    let (_dir, base) = directory();
    let root = base.join("root");
    let digest = "e".repeat(64);
    let blob = root.join(format!("blobs/sha256-{digest}"));
    write(
        &blob,
        [b"GGUF\x03\0\0\0".as_slice(), &[0xff; 16], &vec![0; 2 << 20]].concat(),
    );
    create(&base.join("secret"), 20 * MIB);
    let store = root.join("manifests/registry.ollama.ai/library");
    write(&store.join("climb/latest"), manifest(&[("model", "../../../secret")]));
    write(&store.join("deep/latest"), "[".repeat(1 << 19));
    create(&store.join("huge/latest"), 1 << 30);
    write(
        &store.join("many/latest"),
        manifest(&vec![("model", digest.as_str()); 5000]),
    );
    symlink("/etc/passwd", store.join("link")).unwrap();
    write(
        &store.join("good/latest"),
        manifest(&[("model", &digest), ("adapter", &"f".repeat(64))]),
    );
    let (mut catalog, _) = scan(&[&root]);
    let found = catalog.describe(id(&blob)).unwrap();
    assert_eq!((found.model.name.as_str(), found.model.parts.len()), ("good:latest", 1));
    assert_eq!(found.model.parts[0].header, 0);
    let warnings = catalog.take_warnings();
    assert_eq!(
        warnings.iter().filter(|warning| warning.contains("refused")).count(),
        5,
        "{warnings:#?}"
    );
    // Once per file.
    catalog
        .descriptions
        .forget(&catalog.table.dirs().collect(), &Default::default());
    catalog.describe(id(&blob)).unwrap();
    assert!(catalog.take_warnings().is_empty());
}
