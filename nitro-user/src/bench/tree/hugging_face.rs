//! A Hugging Face hub cache: blobs named by hash, snapshots of symlinks to them, and a ref that names the snapshot.

use std::{
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use super::{ModelTree, create_parent, hex_digits, safetensors, sub_seed, write_small};

/// Adds `ORG/NAME` with `shards` safetensors shards of about `bytes` together to the cache in `root`. The files are those of
/// the snapshot: config, index, shards in order.
///
/// # Errors
/// When a file cannot be written.
pub fn snapshot(root: &Path, org: &str, name: &str, seed: u64, shards: usize, bytes: u64) -> Result<ModelTree> {
    let repository = root.join("hub").join(format!("models--{org}--{name}"));
    let revision = hex_digits(seed, 40);
    write_small(&repository.join("refs/main"), &revision)?;
    let snapshot = repository.join("snapshots").join(&revision);
    let blob = |digits: &str| repository.join("blobs").join(digits);
    let link = |file: &str, digits: &str| -> Result<PathBuf> {
        let path = snapshot.join(file);
        create_parent(&path)?;
        symlink(Path::new("../../blobs").join(digits), &path).with_context(|| format!("link {}", path.display()))?;
        Ok(path)
    };

    let mut weight_map = Map::new();
    let mut shard_files = Vec::new();
    for index in 0..shards {
        let file = format!("model-{:05}-of-{shards:05}.safetensors", index + 1);
        // Large files are named by their sha256, small ones by a git hash.
        let digits = hex_digits(sub_seed(seed, index), 64);
        let tensors = safetensors::write(
            &blob(&digits),
            sub_seed(seed, index),
            bytes / shards as u64,
            &format!("model.layers.{index}"),
            16,
        )?;
        weight_map.extend(tensors.into_iter().map(|tensor| (tensor, Value::from(file.as_str()))));
        shard_files.push(link(&file, &digits)?);
    }
    let small = [
        (
            "config.json",
            json!({ "architectures": ["LlamaForCausalLM"], "model_type": "llama" }),
        ),
        (
            "model.safetensors.index.json",
            json!({ "metadata": { "total_size": bytes }, "weight_map": weight_map }),
        ),
    ];
    let mut files = Vec::new();
    for (index, (file, value)) in small.iter().enumerate() {
        let digits = hex_digits(sub_seed(seed, shards + index), 40);
        write_small(&blob(&digits), &value.to_string())?;
        files.push(link(file, &digits)?);
    }
    files.extend(shard_files);
    ModelTree::of(root, files)
}
