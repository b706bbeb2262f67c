//! safetensors files: one, or shards that an index names, or shards that their names number.
//!
//! In: names, `*.safetensors.index.json`, and the first eight bytes of a file. Out: the shards in load order, and the
//! size of the headers. The index may be large (it names every tensor); only the set of shard names is kept of it.

use std::{collections::BTreeSet, fmt, io::Read, path::Path};

use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, Visitor},
};

use super::{Group, Layout, MOST_PARTS, Seen, View, group, plain_name, printable, split};
use crate::catalog::model::LayoutKind;

/// Largest index that is read: 16 MiB name 100 000 tensors.
pub const MOST_INDEX: u64 = 16 << 20;
/// Largest header the format allows.
pub const MOST_HEADER: u64 = 100_000_000;

/// The layout.
#[derive(Debug)]
pub struct Safetensors;

impl Layout for Safetensors {
    fn kind(&self) -> LayoutKind {
        LayoutKind::Safetensors
    }

    fn group_of(&self, view: &dyn View, named: &Path) -> Option<Group> {
        let bytes = named.file_name()?.as_encoded_bytes();
        if !bytes.ends_with(b".safetensors") {
            return None;
        }
        let header = |seen: &Seen| header_of(view, seen);
        let series = split::parse(bytes);
        let prefix = series.map_or_else(|| "model".into(), |split| String::from_utf8_lossy(split.prefix));
        let directory = named.parent()?;
        let name = directory
            .file_name()
            .map_or_else(|| prefix.to_string(), |name| name.to_string_lossy().into_owned());
        let index = directory.join(format!("{prefix}.safetensors.index.json"));
        let shards = indexed_shards(view, &index).unwrap_or_default();
        let indexed = shards.iter().map(|shard| directory.join(shard));
        if let Some(group) = group(view, named, name.clone(), indexed, &header) {
            return Some(group);
        }
        match series {
            Some(split) => group(view, named, name, split.all(named), &header),
            None => group(view, named, printable(named), [named.to_owned()], &header),
        }
    }
}

/// The shards that the index at `path` names, in load order: sorted, as the loaders sort them.
fn indexed_shards(view: &dyn View, path: &Path) -> Option<BTreeSet<String>> {
    let text = view.read(path, MOST_INDEX)?.bytes;
    match shards_in(&text) {
        Ok(shards) => Some(shards),
        Err(error) => {
            view.refuse(path, &format!("not an index of shards: {error}"));
            None
        }
    }
}

/// The shards named in the text of an index.
///
/// # Errors
///
/// It is not JSON, has no `weight_map`, names more than [`MOST_PARTS`] shards, or a shard that is not a plain file name.
pub fn shards_in(text: &[u8]) -> Result<BTreeSet<String>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: Shards,
    }
    serde_json::from_slice(text).map(|index: Index| index.weight_map.0)
}

/// The distinct values of a map of strings.
struct Shards(BTreeSet<String>);

impl<'de> Deserialize<'de> for Shards {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Values;
        impl<'de> Visitor<'de> for Values {
            type Value = Shards;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of tensor names to shard names")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Shards, A::Error> {
                let mut shards = BTreeSet::new();
                while let Some((_, shard)) = map.next_entry::<IgnoredAny, std::borrow::Cow<'de, str>>()? {
                    let shard =
                        plain_name(&shard).ok_or_else(|| A::Error::custom("a shard is not a plain file name"))?;
                    if !shards.contains(shard) {
                        shards.insert(shard.to_owned());
                    }
                    if shards.len() > MOST_PARTS {
                        return Err(A::Error::custom("too many shards"));
                    }
                }
                Ok(Shards(shards))
            }
        }
        deserializer.deserialize_map(Values)
    }
}

/// Bytes before the first tensor of the file; 0 when it is not safetensors, or not one that can be believed.
pub fn header_of(view: &dyn View, seen: &Seen) -> u64 {
    let mut length = [0; 8];
    let read = view.head(&seen.path, 8).map(|mut head| head.read_exact(&mut length));
    if !matches!(read, Some(Ok(()))) {
        return 0;
    }
    header_bytes(length, seen.size).unwrap_or_else(|| {
        view.refuse(&seen.path, "its safetensors header claims an absurd length");
        0
    })
}

/// The header's end in a file of `size` bytes that starts with `length`; `None` when absurd.
pub fn header_bytes(length: [u8; 8], size: u64) -> Option<u64> {
    let length = u64::from_le_bytes(length);
    // The shortest header is `{}`.
    ((2..=MOST_HEADER).contains(&length) && length <= size.saturating_sub(8)).then(|| 8 + length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::layout::MemoryView;

    fn names(group: &Group) -> Vec<String> {
        group
            .members
            .iter()
            .map(|member| printable(&member.seen.path))
            .collect()
    }

    #[test]
    fn a_header_is_as_long_as_it_says_unless_that_is_absurd() {
        assert_eq!(header_bytes(100u64.to_le_bytes(), 1000), Some(108));
        for (length, size) in [
            (0, 1000),
            (1000, 1000),
            (10 << 30, 1 << 40),
            (u64::MAX, u64::MAX),
            (100, 0),
        ] {
            assert_eq!(header_bytes(length.to_le_bytes(), size), None, "{length} in {size}");
        }
    }

    #[test]
    fn the_index_gives_the_order_and_decides_what_belongs_to_the_model() {
        let mut view = MemoryView::default();
        let index =
            r#"{"weight_map":{"x":"model-00010.safetensors","a":"model-00002.safetensors","b":"gone.safetensors"}}"#;
        view.add_file("/llama/model.safetensors.index.json", 0, index);
        for name in ["model-00002", "model-00010", "consolidated"] {
            view.add_file(format!("/llama/{name}.safetensors"), 1 << 30, 64u64.to_le_bytes());
        }
        let group = Safetensors
            .group_of(&view, Path::new("/llama/model-00010.safetensors"))
            .unwrap();
        assert_eq!(
            (group.name.as_str(), names(&group).as_slice()),
            (
                "llama",
                ["model-00002.safetensors", "model-00010.safetensors"]
                    .map(String::from)
                    .as_slice()
            )
        );
        assert_eq!(group.members[1].header, 72);
        let other = Safetensors
            .group_of(&view, Path::new("/llama/consolidated.safetensors"))
            .unwrap();
        assert_eq!(names(&other), ["consolidated.safetensors"]);
    }

    #[test]
    fn shards_without_an_index_are_in_the_order_of_their_numbers() {
        let mut view = MemoryView::default();
        for part in [2, 1] {
            view.add_file(format!("/m/model-0000{part}-of-00002.safetensors"), 1 << 30, []);
        }
        let group = Safetensors
            .group_of(&view, Path::new("/m/model-00002-of-00002.safetensors"))
            .unwrap();
        assert_eq!(
            names(&group),
            ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
        );
    }

    #[test]
    fn an_index_that_names_other_places_or_too_much_is_refused() {
        let many = (0..=MOST_PARTS)
            .map(|number| format!(r#""{number}":"s{number}""#))
            .collect::<Vec<_>>()
            .join(",");
        for map in [
            r#"{"a":"../x"}"#.into(),
            r#"{"a":"/etc/passwd"}"#.into(),
            r#"{"a":""}"#.into(),
            format!("{{{many}}}"),
        ] {
            assert!(shards_in(format!(r#"{{"weight_map":{map}}}"#).as_bytes()).is_err());
        }
        let deep = format!(r#"{{"x":{}"#, "[".repeat(1 << 20));
        assert!(shards_in(deep.as_bytes()).is_err());
        let mut view = MemoryView::default();
        view.add_file("/m/model.safetensors.index.json", 1 << 30, []).add_file(
            "/m/model.safetensors",
            1 << 30,
            [0xff; 8],
        );
        assert!(Safetensors.group_of(&view, Path::new("/m/model.safetensors")).is_some());
        assert_eq!(
            view.refusals().len(),
            2,
            "the index and the header: {:?}",
            view.refusals()
        );
    }
}
