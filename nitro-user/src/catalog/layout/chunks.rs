//! A store of chunks that are named by what they hold: `vllm@model@1@0@9f86d081884c7d65.pt`, as key-value caches on disk keep them.
//!
//! In: names. Out: the one file that was asked about. No order can be read from such names; a guess would warm what nobody reads.
//!
//! It looks into no file.

use std::path::Path;

use super::{Group, Layout, Listed, View, group, printable};
use crate::catalog::model::LayoutKind;

/// Hexadecimal digits at the end of a stem that make it a hash: half a SHA-256 at most by chance, and more than any running number has.
const DIGITS: usize = 16;

/// Names in one directory from which it is a store.
const ENOUGH: usize = 2;

/// The layout.
#[derive(Debug)]
pub struct Chunks;

impl Layout for Chunks {
    fn kind(&self) -> LayoutKind {
        LayoutKind::Chunks
    }

    fn group_of(&self, view: &dyn View, named: &Path) -> Option<Group> {
        let extension = named.extension()?;
        if !is_hash(named) {
            return None;
        }
        let mut alike = 0;
        view.list(named.parent()?, &mut |name, listed| {
            let name = Path::new(name);
            alike += usize::from(listed != Listed::Directory && name.extension() == Some(extension) && is_hash(name));
            alike < ENOUGH
        });
        if alike < ENOUGH {
            return None;
        }
        group(view, named, printable(named), [named.to_owned()], &|_| 0)
    }
}

/// Whether the stem of a name ends in a hash. One of digits only is a number as likely.
fn is_hash(name: &Path) -> bool {
    let stem = name.file_stem().unwrap_or_default().as_encoded_bytes();
    let digits = stem.iter().rev().take_while(|byte| byte.is_ascii_hexdigit());
    let (mut count, mut letters) = (0, 0);
    for digit in digits {
        count += 1;
        letters += usize::from(digit.is_ascii_alphabetic());
    }
    count >= DIGITS && letters > 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::layout::MemoryView;

    #[test]
    fn chunks_have_no_neighbours_and_models_are_no_chunks() {
        let mut view = MemoryView::default();
        for name in [
            "vllm@llama@1@0@9f86d081884c7d659a2feaa0c55ad015.pt",
            "vllm@llama@1@0@a3bf4f1b2b0b822cd15d6c15b0f00a08.pt",
            "20240101000000000001.pt",
            "20240101000000000002.pt",
            "model-deadbeef.pt",
            "lone-9f86d081884c7d659a2feaa0c55ad015.data",
        ] {
            view.add_file(format!("/cache/{name}"), 1 << 30, []);
        }
        let of = |name: &str| Chunks.group_of(&view, &Path::new("/cache").join(name));
        let group = of("vllm@llama@1@0@9f86d081884c7d659a2feaa0c55ad015.pt").unwrap();
        assert_eq!(group.members.len(), 1);
        for name in [
            "20240101000000000001.pt",
            "model-deadbeef.pt",
            "lone-9f86d081884c7d659a2feaa0c55ad015.data",
        ] {
            assert!(of(name).is_none(), "{name}");
        }
    }
}
