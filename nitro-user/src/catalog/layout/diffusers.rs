//! A diffusers pipeline: `model_index.json` names the components, each a directory with weights of its own.
//!
//! In: `model_index.json`, and names. Out: the weights of all components in the order in which the index names them, which is the order they are loaded in; of the
//! variants of one component (`fp16`, `.bin` beside `.safetensors`) the one that the file asked about has.
//!
//! What a component's weights are made of, it leaves to the other layouts.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, Visitor},
};

use super::{Group, Layout, Seen, View, group, numbered::natural_key, plain_name, safetensors};
use crate::catalog::model::LayoutKind;

/// Largest index that is read; real ones have a few hundred bytes.
const MOST_INDEX: u64 = 1 << 20;
/// Most components of a pipeline; real ones have ten.
const MOST_COMPONENTS: usize = 64;
/// Most names that are looked at in a component.
const MOST_NAMES: usize = 4096;
/// Extensions of weights, the preferred one first.
const EXTENSIONS: [&str; 2] = ["safetensors", "bin"];

/// The layout.
#[derive(Debug)]
pub struct Diffusers;

impl Layout for Diffusers {
    fn kind(&self) -> LayoutKind {
        LayoutKind::Diffusers
    }

    fn group_of(&self, view: &dyn View, named: &Path) -> Option<Group> {
        let asked = Weights::parse(named.file_name()?.to_str()?)?;
        let pipeline = named.parent()?.parent()?;
        let index = pipeline.join("model_index.json");
        view.file(&index)?;
        let text = view.read(&index, MOST_INDEX)?;
        let components = match components_in(&text.bytes) {
            Ok(components) => components,
            Err(error) => {
                if !text.known {
                    view.refuse(&index, &format!("not an index of components: {error}"));
                }
                return None;
            }
        };
        let name = pipeline.file_name()?.to_string_lossy().into_owned();
        let weights = components
            .iter()
            .flat_map(|component| weights_of(view, &pipeline.join(component), &asked));
        let header = |seen: &Seen| match seen.path.extension() {
            Some(extension) if extension == "safetensors" => safetensors::header_of(view, seen),
            _ => 0,
        };
        // Blobs of a hub cache have no extension: their headers stay unknown.
        group(view, named, name, weights, &header)
    }
}

/// What the name of a file of weights says: `model.fp16-00001-of-00002.safetensors`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Weights {
    /// `fp16`; empty where there is none.
    variant: String,
    /// Index in [`EXTENSIONS`].
    extension: usize,
}

impl Weights {
    fn parse(name: &str) -> Option<Self> {
        let (stem, extension) = name.rsplit_once('.')?;
        let extension = EXTENSIONS.iter().position(|known| *known == extension)?;
        let variant = stem.split_once('.').map_or("", |(_, variant)| variant);
        // Numbers of shards come before the variant or behind it.
        let variant = match variant.split_once('-') {
            Some((variant, shard)) if shard.contains("-of-") => variant,
            _ => variant,
        };
        Some(Self {
            variant: variant.to_owned(),
            extension,
        })
    }
}

/// The weights below a component, of the kind that comes nearest to `asked`, in natural order.
fn weights_of(view: &dyn View, component: &Path, asked: &Weights) -> Vec<PathBuf> {
    let mut found: Vec<(Weights, String)> = Vec::new();
    let mut seen = 0;
    view.list(component, &mut |name, _| {
        seen += 1;
        if let Some(name) = name.to_str()
            && let Some(weights) = Weights::parse(name)
        {
            found.push((weights, name.to_owned()));
        }
        seen < MOST_NAMES
    });
    // The same variant counts for more than the same extension; without either, what a loader takes by default.
    let distance = |weights: &Weights| {
        (
            weights.variant != asked.variant,
            !weights.variant.is_empty(),
            weights.extension != asked.extension,
            weights.extension,
        )
    };
    let Some(best) = found
        .iter()
        .map(|(weights, _)| weights)
        .min_by_key(|weights| distance(weights))
    else {
        return Vec::new();
    };
    let best = best.clone();
    let mut names: Vec<String> = found
        .into_iter()
        .filter(|(weights, _)| *weights == best)
        .map(|(_, name)| name)
        .collect();
    names.sort_by_cached_key(|name| natural_key(name.as_ref()));
    names.into_iter().map(|name| component.join(name)).collect()
}

/// The components that the text of an index names, in its order.
///
/// # Errors
///
/// It is no JSON object, or names more than 64 components, or one that is not a plain file name.
pub fn components_in(text: &[u8]) -> Result<Vec<String>, serde_json::Error> {
    serde_json::from_slice(text).map(|components: Components| components.0)
}

/// The keys of a map whose values are pairs of names.
struct Components(Vec<String>);

impl<'de> Deserialize<'de> for Components {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = Components;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of component names")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Components, A::Error> {
                let mut components = Vec::new();
                while let Some((key, value)) = map.next_entry::<std::borrow::Cow<'de, str>, serde_json::Value>()? {
                    // A library and a class, both null where a component is switched off; other values are settings.
                    if key.starts_with('_') || !value.get(1).is_some_and(serde_json::Value::is_string) {
                        continue;
                    }
                    let name = plain_name(&key).ok_or_else(|| A::Error::custom("a component is not a plain name"))?;
                    components.push(name.to_owned());
                    if components.len() > MOST_COMPONENTS {
                        return Err(A::Error::custom("too many components"));
                    }
                }
                Ok(Components(components))
            }
        }
        deserializer.deserialize_map(Keys)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::layout::MemoryView;

    const INDEX: &str = r#"{"_class_name":"StableDiffusionXLPipeline","force_zeros":true,
        "text_encoder":["transformers","CLIPTextModel"],"unet":["diffusers","UNet"],"feature_extractor":[null,null],
        "scheduler":["diffusers","Euler"],"vae":["diffusers","AutoencoderKL"]}"#;

    fn pipeline() -> MemoryView {
        let mut view = MemoryView::default();
        view.add_file("/sdxl/model_index.json", 0, INDEX);
        for name in [
            "vae/diffusion_pytorch_model.safetensors",
            "vae/diffusion_pytorch_model.bin",
            "unet/diffusion_pytorch_model-00002-of-00002.safetensors",
            "unet/diffusion_pytorch_model-00001-of-00002.safetensors",
            "unet/diffusion_pytorch_model.fp16.safetensors",
            "text_encoder/model.safetensors",
            "text_encoder/model.fp16.safetensors",
            "feature_extractor/model.safetensors",
            "safety/model.safetensors",
        ] {
            view.add_file(format!("/sdxl/{name}"), 1 << 30, 64u64.to_le_bytes());
        }
        view
    }

    fn names(view: &MemoryView, asked: &str) -> Option<Vec<String>> {
        let group = Diffusers.group_of(view, &Path::new("/sdxl").join(asked))?;
        assert_eq!(group.name, "sdxl");
        let below = |path: &Path| path.strip_prefix("/sdxl").unwrap().to_string_lossy().into_owned();
        Some(group.members.iter().map(|member| below(&member.seen.path)).collect())
    }

    #[test]
    fn components_are_in_the_order_of_the_index() {
        let found = names(&pipeline(), "text_encoder/model.safetensors").unwrap();
        let expected = [
            "text_encoder/model.safetensors",
            "unet/diffusion_pytorch_model-00001-of-00002.safetensors",
            "unet/diffusion_pytorch_model-00002-of-00002.safetensors",
            "vae/diffusion_pytorch_model.safetensors",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn the_variant_of_the_file_that_was_asked_about_is_taken_where_there_is_one() {
        let found = names(&pipeline(), "text_encoder/model.fp16.safetensors").unwrap();
        let expected = [
            "text_encoder/model.fp16.safetensors",
            "unet/diffusion_pytorch_model.fp16.safetensors",
            "vae/diffusion_pytorch_model.safetensors",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn what_the_index_does_not_name_is_no_part_of_it() {
        assert!(names(&pipeline(), "safety/model.safetensors").is_none());
    }

    #[test]
    fn shards_and_variants_are_told_apart() {
        let parsed = |name: &str| Weights::parse(name).map(|weights| weights.variant);
        for (name, variant) in [
            ("model.safetensors", Some("")),
            ("model-00001-of-00002.safetensors", Some("")),
            ("model.fp16-00001-of-00002.safetensors", Some("fp16")),
            ("model-00001-of-00002.fp16.safetensors", Some("fp16")),
            ("model.non-ema.bin", Some("non-ema")),
            ("config.json", None),
        ] {
            assert_eq!(parsed(name).as_deref(), variant, "{name}");
        }
    }

    #[test]
    fn an_index_that_names_other_places_is_refused() {
        assert!(components_in(br#"{"../x":["a","b"]}"#).is_err());
        assert!(components_in(b"[]").is_err());
        let many: Vec<String> = (0..=MOST_COMPONENTS).map(|at| format!(r#""{at}":["a","b"]"#)).collect();
        assert!(components_in(format!("{{{}}}", many.join(",")).as_bytes()).is_err());
        let mut view = pipeline();
        view.add_file("/sdxl/model_index.json", 2 << 20, INDEX);
        assert!(names(&view, "vae/diffusion_pytorch_model.bin").is_none());
        assert_eq!(view.refusals().len(), 1);
    }
}
