//! The watched directories: which they are, what is mounted there and below, and from which device.
//!
//! In: paths, from the command line, a running agent, or a look such as `--watch auto` takes. Out: facts. What is mounted is told by the mount table alone: a server is asked
//! nothing, and what may not answer all the same (a layer of an overlay that is somewhere else) is asked by other processes, all at once.

use std::{
    borrow::Cow,
    ffi::OsString,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    devices::{self, Device},
    machine::Machine,
};
use crate::{
    discover::{
        judge::{self, FileSystem},
        walk::Stop,
    },
    sys::{
        mounts::{Mount, Mounts},
        overlay::named_layers,
    },
};

/// File systems below one directory that are told.
const MOST_BELOW: usize = 16;

/// Layers of an overlay that are looked for.
const MOST_LAYERS: usize = 64;

/// Where this process stands.
const TOP: &str = "/";

/// How it was found out which directories are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chosen {
    /// They were named.
    Named,
    /// They are those of the agent that runs.
    Running,
    /// They were found as `--watch auto` finds them.
    Found,
    /// The same, and the look did not come to its end.
    Silent,
}

/// A watched directory.
#[derive(Debug)]
pub struct Root {
    /// As it was given.
    pub path: PathBuf,
    /// What is there, or why that cannot be told.
    pub place: Result<Vec<Place>, Trouble>,
}

/// Why nothing can be told of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It is not there.
    Nothing,
    /// It is a file.
    File,
    /// Nobody answers.
    Silent,
    /// The process through which it is seen has ended, or may not be looked at.
    Unreached(String),
    /// Its name was lost on its way here.
    Unnamed,
}

/// A file system at a directory or below it.
#[derive(Debug)]
pub struct Place {
    /// Where it is seen.
    pub path: PathBuf,
    /// What is mounted.
    pub mount: Mount,
    /// Whether it was asked that the directory is there; a server is not.
    pub is_asked: bool,
    /// From where.
    pub device: Device,
    /// Of an overlay: whether the directory of one of its layers can be reached.
    pub layers: Option<bool>,
}

/// How a directory is reached, and what is mounted on the way.
struct Way<'a> {
    /// Where the way begins: the top of what this process sees, or another one.
    top: PathBuf,
    mounts: Cow<'a, Mounts>,
    path: PathBuf,
}

/// Where a way leads. Paths are bytes here: one need not be UTF-8.
#[derive(Serialize, Deserialize)]
enum Led {
    Directory(Vec<u8>),
    File,
    /// Into a file system that is not asked.
    Unasked(Vec<u8>),
    Nothing,
}

/// Looks at directories.
pub fn gather(machine: &Machine, paths: &[PathBuf], chosen: Chosen) -> Vec<Root> {
    let own = machine.mounts();
    let ways: Vec<Result<Way<'_>, Trouble>> = paths.iter().map(|path| way(machine, &own, path, chosen)).collect();
    let led = machine.ask(&ways, |way| way.as_ref().map_or(Led::Nothing, |way| lead(machine, way)));
    let told = ways.into_iter().zip(led).map(|(way, led)| {
        let way = way?;
        let (path, is_asked) = match led.ok_or(Trouble::Silent)? {
            Led::Directory(path) => (path, true),
            Led::Unasked(path) => (path, false),
            Led::File => return Err(Trouble::File),
            Led::Nothing => return Err(Trouble::Nothing),
        };
        let found = seen(&way.mounts, &PathBuf::from(OsString::from_vec(path)), is_asked);
        if found.is_empty() {
            Err(Trouble::Nothing)
        } else {
            Ok(found)
        }
    });
    let told: Vec<Result<Vec<Seen>, Trouble>> = told.collect();

    // The directories of layers are named as the one who mounted sees them, which is here: no container sees them.
    let overlays: Vec<&Mount> = told.iter().flatten().flatten().map(|seen| &seen.mount).collect();
    let layers = machine.ask(&overlays, |mount| first_layer(machine, &own, mount));
    let mut layers = layers
        .into_iter()
        .map(|layer| layer.flatten().map(|path| PathBuf::from(OsString::from_vec(path))));
    let places = told.iter().map(|seen| {
        let seen = seen.as_ref().map_err(Clone::clone)?;
        let places = seen
            .iter()
            .map(|seen| place(machine, &own, seen, layers.next().flatten()));
        Ok(places.collect())
    });
    let places: Vec<_> = places.collect();
    let root = |(path, place): (&PathBuf, _)| Root {
        path: path.clone(),
        place,
    };
    paths.iter().zip(places).map(root).collect()
}

/// What a process of another mount namespace sees is in its table.
fn way<'a>(machine: &Machine, own: &'a Mounts, path: &Path, chosen: Chosen) -> Result<Way<'a>, Trouble> {
    // What an agent says of itself is text, in which this stands for bytes that are none.
    if chosen == Chosen::Running && path.to_string_lossy().contains(char::REPLACEMENT_CHARACTER) {
        return Err(Trouble::Unnamed);
    }
    let Some((process, path)) = elsewhere(path) else {
        return Ok(Way {
            top: TOP.into(),
            mounts: Cow::Borrowed(own),
            path: path.to_owned(),
        });
    };
    let mounts = Mounts::read(&machine.path(format!("/proc/{process}/mountinfo")));
    Ok(Way {
        top: format!("/proc/{process}/root").into(),
        mounts: Cow::Owned(mounts.map_err(|error| Trouble::Unreached(error.to_string()))?),
        path,
    })
}

/// `/proc/4711/root/models`, in two.
fn elsewhere(path: &Path) -> Option<(u32, PathBuf)> {
    let below = path.strip_prefix("/proc").ok()?;
    let mut names = below.components();
    let process = names.next()?.as_os_str().to_str()?.parse().ok()?;
    (names.next()?.as_os_str() == "root").then(|| (process, Path::new("/").join(names.as_path())))
}

fn lead(machine: &Machine, way: &Way<'_>) -> Led {
    let bytes = |path: &Path| path.as_os_str().as_bytes().to_vec();
    match machine.walk(&way.top, &way.mounts, &way.path) {
        Ok(place) if place.is_directory => Led::Directory(bytes(&place.path)),
        Ok(_) => Led::File,
        Err(Stop::Nothing) => Led::Nothing,
        // No link leads on from there that we could read: the table knows what it is.
        Err(Stop::Closed) => Led::Unasked(bytes(&way.path)),
        Err(Stop::Foreign(at, ..)) if way.path.starts_with(&at) => Led::Unasked(bytes(&way.path)),
        Err(Stop::Foreign(at, ..)) => Led::Unasked(bytes(&at)),
    }
}

/// A file system at a directory or below it, by the table.
struct Seen {
    path: PathBuf,
    mount: Mount,
    is_asked: bool,
}

fn seen(table: &Mounts, path: &Path, is_asked: bool) -> Vec<Seen> {
    let has_files = |mount: &&Mount| {
        !matches!(
            judge::foreign(&mount.kind),
            Some(FileSystem::Pseudo | FileSystem::Automount)
        )
    };
    let here = table.at(path).map(|mount| Seen {
        path: path.to_owned(),
        mount: mount.clone(),
        is_asked,
    });
    // Their mount points are there: nothing needs to be asked.
    let below = table.below(path).filter(has_files).take(MOST_BELOW).map(|mount| Seen {
        path: mount.point.clone(),
        mount: mount.clone(),
        is_asked: true,
    });
    here.into_iter().chain(below).collect()
}

fn place(machine: &Machine, own: &Mounts, seen: &Seen, layer: Option<PathBuf>) -> Place {
    let is_overlay = seen.mount.kind == "overlay";
    let below = layer.as_deref().and_then(|layer| own.at(layer));
    Place {
        path: seen.path.clone(),
        mount: seen.mount.clone(),
        is_asked: seen.is_asked,
        device: devices::gather(machine, below.unwrap_or(&seen.mount)),
        layers: is_overlay.then_some(layer.is_some()),
    }
}

/// The directory of the uppermost layer of an overlay that is there; of other mounts none.
fn first_layer(machine: &Machine, own: &Mounts, mount: &Mount) -> Option<Vec<u8>> {
    let layers = if mount.kind == "overlay" {
        named_layers(mount)
    } else {
        Vec::new()
    };
    let mut found = layers
        .iter()
        .take(MOST_LAYERS)
        .filter_map(|layer| machine.walk(Path::new(TOP), own, layer).ok());
    found.next().map(|place| place.path.into_os_string().into_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_through_a_process_is_in_two_parts() {
        assert_eq!(
            elsewhere(Path::new("/proc/812/root/models/a")),
            Some((812, "/models/a".into()))
        );
        assert_eq!(elsewhere(Path::new("/proc/812/root")), Some((812, "/".into())));
        for path in ["/proc/self/root/x", "/proc/812/fd/3", "/models", "/proc"] {
            assert_eq!(elsewhere(Path::new(path)), None, "{path}");
        }
    }
}
