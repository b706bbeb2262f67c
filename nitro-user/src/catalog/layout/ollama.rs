//! Ollama's store: `manifests/<host>/<namespace>/<model>/<tag>` beside `blobs/sha256-<64 hex digits>`.
//!
//! In: names, and the manifests (small JSON). Out: the large layers of the model that a blob belongs to, in the order in
//! which they are loaded: model, projector, adapter. A digest is used only when it is 64 hex digits, so that no manifest can
//! name anything but a blob.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use serde::{
    Deserialize, Deserializer,
    de::{Error, SeqAccess, Visitor},
};

use super::{Content, Group, Layout, Listed, MOST_PARTS, Seen, View, gguf, group};
use crate::catalog::model::LayoutKind;

/// Largest manifest that is read; real ones have one KiB.
pub const MOST_MANIFEST: u64 = 1 << 20;
/// Most manifests that are looked into for one blob.
const MOST_MANIFESTS: usize = 10_000;
/// Host, namespace, model, tag.
const LEVELS: usize = 4;

/// The layout.
#[derive(Debug)]
pub struct Ollama;

impl Layout for Ollama {
    fn kind(&self) -> LayoutKind {
        LayoutKind::Ollama
    }

    fn group_of(&self, view: &dyn View, named: &Path) -> Option<Group> {
        let blobs = named.parent().filter(|parent| parent.ends_with("blobs"))?;
        let blob = named
            .file_name()?
            .to_str()?
            .strip_prefix("sha256-")
            .filter(|digest| is_digest(digest))?;
        let store = blobs.parent()?;
        let manifests = store.join("manifests");
        let mut best: Option<(usize, String, Vec<PathBuf>)> = None;
        each_manifest(view, &manifests, &mut |path, name| {
            let Some(layers) = layers_at(view, path, blob) else {
                return;
            };
            if !layers.iter().any(|layer| layer == blob) {
                return;
            }
            // Several tags can share the blob: the plainest model is the likeliest, and the choice must not waver.
            let rank = (layers.len(), name.len(), name.as_str());
            if best
                .as_ref()
                .is_none_or(|(count, other, _)| rank < (*count, other.len(), other.as_str()))
            {
                let paths = layers
                    .iter()
                    .map(|digest| blobs.join(format!("sha256-{digest}")))
                    .collect();
                best = Some((layers.len(), name, paths));
            }
        });
        let (_, name, paths) = best?;
        group(view, named, name, paths, &|seen: &Seen| gguf::header_of(view, seen))
    }
}

fn is_digest(text: &str) -> bool {
    text.len() == 64
        && text
            .bytes()
            .all(|byte| byte.is_ascii_hexdigit() && !byte.is_ascii_uppercase())
}

/// Visits the manifests below `top` with the names of their models.
fn each_manifest(view: &dyn View, top: &Path, visit: &mut dyn FnMut(&Path, String)) {
    let mut open: Vec<Vec<OsString>> = vec![Vec::new()];
    let mut visited = 0;
    while let Some(names) = open.pop() {
        let directory = names.iter().fold(top.to_owned(), |path, name| path.join(name));
        let mut manifests = Vec::new();
        view.list(&directory, &mut |name, listed| {
            let below = || names.iter().cloned().chain([name.to_owned()]).collect::<Vec<_>>();
            match listed {
                Listed::Directory if names.len() + 1 < LEVELS => open.push(below()),
                Listed::File(_) if names.len() + 1 == LEVELS => manifests.push(below()),
                _ => {}
            }
            open.len() + manifests.len() < MOST_MANIFESTS
        });
        for names in manifests {
            visited += 1;
            if visited > MOST_MANIFESTS {
                view.refuse(top, "it holds more manifests than any store has");
                return;
            }
            if let Some(file) = names.last() {
                visit(&directory.join(file), model_name(&names));
            }
        }
    }
}

/// `llama3:8b`, `user/model:tag`, `host/namespace/model:tag`: the defaults are left out, as Ollama does.
fn model_name(names: &[OsString]) -> String {
    let text: Vec<_> = names.iter().map(|name| name.to_string_lossy()).collect();
    let [host, namespace, model, tag] = text.as_slice() else {
        return text.join("/");
    };
    let known_host = host == "registry.ollama.ai";
    match (known_host, namespace == "library") {
        (true, true) => format!("{model}:{tag}"),
        (true, false) => format!("{namespace}/{model}:{tag}"),
        (false, _) => format!("{host}/{namespace}/{model}:{tag}"),
    }
}

/// The digests of the large layers that the manifest at `path` names, in load order; `None` when `blob` is not among them. Of hundreds of manifests all
/// but one or two are read for nothing: those are not parsed.
fn layers_at(view: &dyn View, path: &Path, blob: &str) -> Option<Vec<String>> {
    let Content { bytes, known } = view.read(path, MOST_MANIFEST)?;
    if known && !bytes.windows(blob.len()).any(|place| place == blob.as_bytes()) {
        return None;
    }
    match layers_in(&bytes) {
        Ok(layers) => Some(layers),
        Err(error) => {
            view.refuse(path, &format!("not an Ollama manifest: {error}"));
            None
        }
    }
}

/// The digests (64 hex digits) of the large layers named in the text of a manifest, in load order.
///
/// # Errors
///
/// It is not JSON, not of this form, names more than [`MOST_PARTS`] layers, or a large layer's digest is not one.
pub fn layers_in(text: &[u8]) -> Result<Vec<String>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Manifest {
        layers: Layers,
    }
    let Manifest {
        layers: Layers(mut layers),
    } = serde_json::from_slice(text)?;
    // Stable: layers of one rank stay in the manifest's order.
    layers.sort_by_key(|(rank, _)| *rank);
    Ok(layers.into_iter().map(|(_, digest)| digest).collect())
}

/// Rank in load order and digest.
struct Layers(Vec<(u8, String)>);

impl<'de> Deserialize<'de> for Layers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Layer {
            #[serde(rename = "mediaType")]
            media_type: String,
            digest: String,
        }
        struct Elements;
        impl<'de> Visitor<'de> for Elements {
            type Value = Layers;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a list of layers")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Layers, A::Error> {
                let (mut layers, mut count) = (Vec::new(), 0);
                while let Some(layer) = elements.next_element::<Layer>()? {
                    count += 1;
                    if count > MOST_PARTS {
                        return Err(A::Error::custom("too many layers"));
                    }
                    let Some(rank) = rank_of(&layer.media_type) else {
                        continue;
                    };
                    let digest = layer.digest.strip_prefix("sha256:").filter(|digest| is_digest(digest));
                    let digest = digest.ok_or_else(|| A::Error::custom("a digest is not sha256 and 64 hex digits"))?;
                    layers.push((rank, digest.to_owned()));
                }
                Ok(Layers(layers))
            }
        }
        deserializer.deserialize_seq(Elements)
    }
}

/// When a layer of this media type is loaded; `None` for the small ones (template, parameters, licence).
fn rank_of(media_type: &str) -> Option<u8> {
    match media_type.strip_prefix("application/vnd.ollama.image.")? {
        "model" | "tensor" => Some(0),
        "projector" => Some(1),
        "adapter" => Some(2),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::layout::MemoryView;

    fn manifest(layers: &[(&str, &str)]) -> String {
        let layer = |(kind, digest): &(&str, &str)| {
            format!(r#"{{"mediaType":"application/vnd.ollama.image.{kind}","digest":"{digest}"}}"#)
        };
        format!(
            r#"{{"layers":[{}]}}"#,
            layers.iter().map(layer).collect::<Vec<_>>().join(",")
        )
    }

    #[test]
    fn model_names_leave_out_what_ollama_leaves_out() {
        let name = |path: &str| model_name(&path.split('/').map(OsString::from).collect::<Vec<_>>());
        assert_eq!(name("registry.ollama.ai/library/llama3/8b"), "llama3:8b");
        assert_eq!(name("registry.ollama.ai/someone/tuned/latest"), "someone/tuned:latest");
        assert_eq!(name("hf.co/org/repo/Q4_K_M"), "hf.co/org/repo:Q4_K_M");
    }

    #[test]
    fn large_layers_are_in_load_order_and_small_ones_left_out() {
        let [a, b, c] = ["a", "b", "c"].map(|digit| format!("sha256:{}", digit.repeat(64)));
        let text = manifest(&[
            ("adapter", &a),
            ("license", "anything"),
            ("projector", &b),
            ("model", &c),
        ]);
        assert_eq!(
            layers_in(text.as_bytes()).unwrap(),
            ["c", "b", "a"].map(|digit| digit.repeat(64))
        );
    }

    #[test]
    fn a_digest_that_is_a_path_is_refused() {
        let upper = format!("sha256:{}", "A".repeat(64));
        for digest in [
            "../../../etc/shadow",
            "sha256:../../x",
            "sha256:",
            "",
            "sha512:00",
            upper.as_str(),
        ] {
            assert!(
                layers_in(manifest(&[("model", digest)]).as_bytes()).is_err(),
                "{digest}"
            );
        }
        let digest = format!("sha256:{}", "a".repeat(64));
        assert!(layers_in(manifest(&vec![("model", digest.as_str()); MOST_PARTS + 1]).as_bytes()).is_err());
        assert!(layers_in("[".repeat(1 << 20).as_bytes()).is_err());
    }

    #[test]
    fn of_several_tags_the_plainest_names_the_model() {
        let [a, b] = ["a", "b"].map(|digit| digit.repeat(64));
        let (model, adapter) = (format!("sha256:{a}"), format!("sha256:{b}"));
        let mut view = MemoryView::default();
        let store = "/s/manifests/registry.ollama.ai/library";
        view.add_file(
            format!("{store}/adapted/latest"),
            0,
            manifest(&[("model", &model), ("adapter", &adapter)]),
        );
        view.add_file(format!("{store}/llama3/latest"), 0, manifest(&[("model", &model)]));
        view.add_file(format!("{store}/llama3/8b"), 0, manifest(&[("model", &model)]));
        view.add_file(format!("/s/blobs/sha256-{a}"), 1 << 30, []).add_file(
            format!("/s/blobs/sha256-{b}"),
            1 << 20,
            [],
        );
        let name = |digest: &str| {
            Ollama
                .group_of(&view, Path::new(&format!("/s/blobs/sha256-{digest}")))
                .unwrap()
                .name
        };
        assert_eq!((name(&a).as_str(), name(&b).as_str()), ("llama3:8b", "adapted:latest"));
        // Not a blob, not of this store.
        assert!(
            Ollama
                .group_of(&view, Path::new(&format!("{store}/llama3/8b")))
                .is_none()
        );
    }
}
