//! `devices.json`, in which earlier versions kept what was learned of devices: taken over once, then put aside.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{
    StateError,
    place::{aside, strange},
    plausible::is_plausible,
};
use crate::engine::{learn::row::Row, plan::device::Knowledge};

/// The file's name.
const NAME: &str = "devices.json";

/// Layout of the file.
const VERSION: u32 = 1;

/// Longest file that is read.
const MOST_BYTES: u64 = 1 << 20;

/// Devices that it held at most.
const MOST_DEVICES: usize = 256;

/// The file.
#[derive(Debug, Deserialize)]
struct Kept {
    version: u32,
    devices: BTreeMap<String, Entry>,
}

#[derive(Debug, Deserialize)]
struct Entry {
    #[serde(flatten)]
    knowledge: Knowledge,
    /// Seconds since 1970.
    heard: u64,
}

/// What was found of it.
#[derive(Debug, Default)]
pub struct Old {
    /// Devices.
    pub rows: Vec<Row>,
    /// The file, and the name that it is to have when its rows are kept elsewhere.
    pub taken_over: Option<(PathBuf, PathBuf)>,
    /// Why there is nothing, though there is a file.
    pub trouble: Option<StateError>,
}

/// Reads it, if it is there.
pub fn read(directory: &Path) -> Old {
    let path = directory.join(NAME);
    match parse(&path) {
        Ok(None) => Old::default(),
        Ok(Some(rows)) => {
            let kept = aside(&path);
            Old {
                rows,
                taken_over: Some((path, kept)),
                trouble: None,
            }
        }
        Err(reason) => {
            let kept = aside(&path);
            let trouble = match fs::rename(&path, &kept) {
                Ok(()) => StateError::Unknown { path, reason, kept },
                Err(source) => StateError::Stuck { path, reason, source },
            };
            Old {
                trouble: Some(trouble),
                ..Old::default()
            }
        }
    }
}

fn parse(path: &Path) -> Result<Option<Vec<Row>>, String> {
    let words = |error: io::Error| error.to_string();
    match path.symlink_metadata() {
        Err(_) => return Ok(None),
        Ok(found) => {
            if let Some(strange) = strange(&found) {
                return Err(strange.into());
            }
        }
    }
    let mut options = File::options();
    let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
    let file = options.read(true).custom_flags(flags).open(path).map_err(words)?;
    let mut bytes = Vec::new();
    file.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(words)?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(format!("more than {MOST_BYTES} bytes"));
    }
    let kept: Kept = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
    if kept.version != VERSION {
        return Err(format!("version {} instead of {VERSION}", kept.version));
    }
    let rows = kept.devices.into_iter().take(MOST_DEVICES);
    let rows = rows.map(|(identity, Entry { knowledge, heard })| Row::Device {
        identity,
        knowledge: knowledge.plausible(),
        at: heard,
    });
    Ok(Some(rows.filter(is_plausible).collect()))
}
