//! A zip archive as `torch.save` writes it: one file with a record for each tensor, and the table of them at its end.
//!
//! In: the name, and the first four bytes. Out: the file by itself. `torch.load` reads the tail first, then the records in the order of the table, which is the order
//! they lie in: a look at the tail is weak evidence, and the walk begins at the start. Nothing of the table is read here.

use std::{io::Read, path::Path};

use super::{Group, Layout, View, group, printable};
use crate::catalog::model::LayoutKind;

/// Extensions that such files go by.
const EXTENSIONS: [&str; 6] = ["pt", "pth", "bin", "ckpt", "ptl", "tar"];

/// What the first record of a zip archive begins with.
const SIGNATURE: [u8; 4] = *b"PK\x03\x04";

/// The layout.
#[derive(Debug)]
pub struct TorchZip;

impl Layout for TorchZip {
    fn kind(&self) -> LayoutKind {
        LayoutKind::TorchZip
    }

    fn group_of(&self, view: &dyn View, named: &Path) -> Option<Group> {
        let extension = named.extension()?;
        if !EXTENSIONS.iter().any(|known| extension == *known) {
            return None;
        }
        let mut first = [0; SIGNATURE.len()];
        view.head(named, SIGNATURE.len() as u64)?.read_exact(&mut first).ok()?;
        if first != SIGNATURE {
            return None;
        }
        group(view, named, printable(named), [named.to_owned()], &|_| 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::layout::MemoryView;

    #[test]
    fn an_archive_is_a_model_by_itself_and_other_files_are_none() {
        let mut view = MemoryView::default();
        view.add_file("/m/model.pt", 1 << 30, *b"PK\x03\x04rest")
            .add_file("/m/other.pt", 1 << 30, *b"PK\x03\x04rest")
            .add_file("/m/legacy.pt", 1 << 30, *b"\x80\x02\x8a\x0a")
            .add_file("/m/short.pt", 0, *b"PK")
            .add_file("/m/film.mkv", 1 << 30, *b"PK\x03\x04");
        let group = TorchZip.group_of(&view, Path::new("/m/model.pt")).unwrap();
        assert_eq!((group.name.as_str(), group.members.len()), ("model.pt", 1));
        for other in ["legacy.pt", "short.pt", "film.mkv", "gone.pt"] {
            assert!(
                TorchZip.group_of(&view, &Path::new("/m").join(other)).is_none(),
                "{other}"
            );
        }
    }
}
