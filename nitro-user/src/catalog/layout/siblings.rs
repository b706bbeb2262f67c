//! Files of one directory with the same extension, in natural order: all that can be said when nothing else is known.
//!
//! In: names and sizes. Out: a weak guess, which is taken up only after two reads in that order.

use std::path::Path;

use super::{
    Group, Layout, Listed, View, group,
    numbered::{Around, natural_key},
};
use crate::catalog::{SMALLEST_WATCHED, model::LayoutKind};

/// The layout.
#[derive(Debug)]
pub struct Siblings;

impl Layout for Siblings {
    fn kind(&self) -> LayoutKind {
        LayoutKind::Siblings
    }

    fn group_of(&self, view: &dyn View, named: &Path) -> Option<Group> {
        // Without an extension it is a store of hashes as often as not, in which no order means anything.
        let extension = named.extension()?;
        let (directory, name) = (named.parent()?, named.file_name()?);
        let mut around = Around::new((natural_key(name), name.to_owned()));
        view.list(directory, &mut |name, listed| {
            let large = match listed {
                Listed::File(size) => size >= SMALLEST_WATCHED,
                Listed::Link => true,
                Listed::Directory => false,
            };
            if large && Path::new(name).extension() == Some(extension) {
                around.add((natural_key(name), name.to_owned()));
            }
            true
        });
        let title = directory
            .file_name()
            .map_or_else(|| "/".into(), |name| name.to_string_lossy().into_owned());
        let paths = around.in_order().map(|(_, name)| directory.join(name));
        group(view, named, title, paths, &|_| 0).filter(|group| group.members.len() > 1)
    }
}
