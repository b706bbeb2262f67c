//! An Ollama store: manifests that name blobs by digest.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{ModelTree, gguf, hex_digits, sub_seed, write_small};

const SMALL_LAYERS: [(&str, &str); 3] = [
    ("template", "{{ .System }} {{ .Prompt }}"),
    ("license", "Do what you like with this test data.\n"),
    ("params", r#"{"stop":["</s>"]}"#),
];

/// Adds the model `NAME:TAG` of about `bytes` to the store in `root`. The files are the manifest, the small blobs and the
/// weights, as a run reads them.
///
/// # Errors
/// When a file cannot be written.
pub fn model(root: &Path, name: &str, tag: &str, seed: u64, bytes: u64) -> Result<ModelTree> {
    let digest = |index: usize| hex_digits(sub_seed(seed, index), 64);
    let blob = |digest: &str| root.join("blobs").join(format!("sha256-{digest}"));
    let entry = |kind: &str, digest: &str| -> Result<Value> {
        let path = blob(digest);
        let size = fs::metadata(&path)
            .with_context(|| format!("size of {}", path.display()))?
            .len();
        Ok(json!({ "mediaType": kind, "digest": format!("sha256:{digest}"), "size": size }))
    };

    let (config, weights) = (digest(0), digest(1));
    write_small(
        &blob(&config),
        r#"{"model_format":"gguf","model_family":"llama","model_type":"8B","file_type":"F16"}"#,
    )?;
    gguf::write(&blob(&weights), seed, bytes, None)?;
    let mut layers = vec![entry("application/vnd.ollama.image.model", &weights)?];
    let mut small = vec![blob(&config)];
    for (index, (kind, text)) in SMALL_LAYERS.iter().enumerate() {
        let digest = digest(2 + index);
        write_small(&blob(&digest), text)?;
        small.push(blob(&digest));
        layers.push(entry(&format!("application/vnd.ollama.image.{kind}"), &digest)?);
    }
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": entry("application/vnd.docker.container.image.v1+json", &config)?,
        "layers": layers,
    });
    let manifest_path = root.join("manifests/registry.ollama.ai/library").join(name).join(tag);
    write_small(&manifest_path, &manifest.to_string())?;

    let files = std::iter::once(manifest_path)
        .chain(small)
        .chain([blob(&weights)])
        .collect();
    ModelTree::of(root, files)
}
