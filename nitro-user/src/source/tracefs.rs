//! Where tracefs is mounted, and what it says of the records of classic tracepoints.
//!
//! Needed in syscalls mode alone. It is looked for, never mounted: that is the administrator's to decide.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use nitro_common::settings::globals;

/// The usual places below the root, the newer first.
const PLACES: &[&str] = &["sys/kernel/tracing", "sys/kernel/debug/tracing"];

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum NoTracefs {
    /// It is nowhere.
    #[error("tracefs is not mounted: {REMEDY}")]
    NotMounted,
    /// It may not be looked into.
    #[error("cannot look into /{0}: {1}: run as root")]
    Refused(&'static str, io::Error),
}

/// What an administrator does about it.
pub const REMEDY: &str = "mount -t tracefs tracefs /sys/kernel/tracing";

/// Finds tracefs.
///
/// # Errors
/// [`NoTracefs`].
pub fn find() -> Result<PathBuf, NoTracefs> {
    find_below(Path::new("/"))
}

/// The same where the machine's files are below `root`.
///
/// # Errors
/// [`NoTracefs`].
pub fn find_below(root: &Path) -> Result<PathBuf, NoTracefs> {
    for place in PLACES {
        match fs::read_dir(root.join(place).join("events")) {
            Ok(_) => return Ok(Path::new("/").join(place)),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Err(NoTracefs::Refused(place, error));
            }
            Err(_) => {}
        }
    }
    Err(NoTracefs::NotMounted)
}

/// Offsets in the record of the classic page-cache tracepoints, by the name of the global that carries each. Zeros where they cannot be read:
/// the programs then match no file.
pub fn record_offsets() -> Vec<(&'static str, u64)> {
    let format = find().ok().and_then(|tracefs| {
        let path = tracefs.join("events/filemap/mm_filemap_add_to_page_cache/format");
        fs::read_to_string(path).ok()
    });
    let format = format.unwrap_or_default();
    let offsets = globals::RECORD_OFFSETS.iter();
    offsets
        .map(|&(global, field)| (global, offset_of(&format, field).unwrap_or(0)))
        .collect()
}

/// The offset of a field in a `format` file, whose lines are like `field:unsigned long i_ino; offset:16; size:8; signed:0;`.
fn offset_of(format: &str, field: &str) -> Option<u64> {
    format.lines().find_map(|line| {
        let mut parts = line.trim().split(';').map(str::trim);
        let declaration = parts.next()?.strip_prefix("field:")?;
        let name = declaration.rsplit([' ', '*']).next()?;
        if name != field {
            return None;
        }
        parts.find_map(|part| part.strip_prefix("offset:")?.parse().ok())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let format = "name: x\n\tfield:unsigned long i_ino;\toffset:16;\tsize:8;\tsigned:0;\n\
                      \tfield:dev_t s_dev;\toffset:32;\tsize:4;\tsigned:0;\n\tfield:char *ino;\toffset:40;\tsize:8;\n";
        assert_eq!(offset_of(format, "i_ino"), Some(16));
        assert_eq!(offset_of(format, "s_dev"), Some(32));
        assert_eq!(offset_of(format, "ino"), Some(40));
        assert_eq!(offset_of(format, "order"), None);
        assert_eq!(offset_of("", "i_ino"), None);
    }

    #[test]
    fn where_there_is_none_the_remedy_is_named() {
        let empty = tempfile::tempdir().unwrap();
        let error = find_below(empty.path()).unwrap_err().to_string();
        assert!(error.contains("mount -t tracefs"), "{error}");
    }

    #[test]
    fn the_older_place_does_as_well() {
        let tree = tempfile::tempdir().unwrap();
        fs::create_dir_all(tree.path().join("sys/kernel/debug/tracing/events")).unwrap();
        assert_eq!(find_below(tree.path()).unwrap(), Path::new("/sys/kernel/debug/tracing"));
    }
}
