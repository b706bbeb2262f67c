//! The watched directories: which they are, what is mounted there and below, and from which device.
//!
//! In: paths, from the command line, a running agent, or a look such as `--watch auto` takes. Out: facts. What may not answer is asked with a deadline; what is mounted is told by
//! the mount table alone.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{
    devices::{self, Device},
    machine::Machine,
};
use crate::{
    discover::judge::{self, FileSystem},
    sys::mounts::{Mount, Mounts, unescape},
};

/// File systems below one directory that are told.
const MOST_BELOW: usize = 16;

/// Layers of an overlay that are looked for.
const MOST_LAYERS: usize = 64;

/// How it was found out which directories are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chosen {
    /// They were named.
    Named,
    /// They are those of the agent that runs.
    Running,
    /// They were found as `--watch auto` finds them.
    Found,
}

/// A watched directory.
#[derive(Debug)]
pub struct Root {
    /// As it was given.
    pub path: PathBuf,
    /// What is there, or why that cannot be told.
    pub place: Result<Vec<Place>, String>,
}

/// A file system at a directory or below it.
#[derive(Debug)]
pub struct Place {
    /// Where it is seen.
    pub path: PathBuf,
    /// What is mounted.
    pub mount: Mount,
    /// From where.
    pub device: Device,
    /// Of an overlay: whether the directory of one of its layers can be reached.
    pub layers: Option<bool>,
}

/// Looks at directories.
pub fn gather(machine: &Machine, paths: &[PathBuf]) -> Vec<Root> {
    let table = machine.mounts();
    let root = |path: &PathBuf| Root {
        path: path.clone(),
        place: places(machine, &table, path),
    };
    paths.iter().map(root).collect()
}

fn places(machine: &Machine, table: &Mounts, path: &Path) -> Result<Vec<Place>, String> {
    // What a process of another mount namespace sees is in its table.
    if let Some((process, inside)) = elsewhere(path) {
        let table = Mounts::read(&machine.path(format!("/proc/{process}/mountinfo")));
        let table = table.map_err(|error| format!("the process that it is reached through: {error}"))?;
        return of_table(machine, &table, &inside);
    }
    match machine.canonical(path) {
        Ok(path) => of_table(machine, table, &path),
        // FUSE without `allow_other`: no link leads on from there, and the mount table knows what it is.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => of_table(machine, table, path),
        Err(error) => Err(error.to_string()),
    }
}

/// `/proc/4711/root/models`, in two.
fn elsewhere(path: &Path) -> Option<(u32, PathBuf)> {
    let below = path.strip_prefix("/proc").ok()?;
    let mut names = below.components();
    let process = names.next()?.as_os_str().to_str()?.parse().ok()?;
    (names.next()?.as_os_str() == "root").then(|| (process, Path::new("/").join(names.as_path())))
}

fn of_table(machine: &Machine, table: &Mounts, path: &Path) -> Result<Vec<Place>, String> {
    let mount = table.at(path).ok_or("no mount table says what is there")?;
    let mut all = vec![place(machine, table, path, mount)];
    let has_files = |mount: &&Mount| {
        !matches!(
            judge::foreign(&mount.kind),
            Some(FileSystem::Pseudo | FileSystem::Automount)
        )
    };
    let below = table.below(path).filter(has_files).take(MOST_BELOW);
    all.extend(below.map(|mount| place(machine, table, &mount.point, mount)));
    Ok(all)
}

fn place(machine: &Machine, table: &Mounts, path: &Path, mount: &Mount) -> Place {
    let mut of_device = mount;
    let mut layers = None;
    if mount.kind == "overlay" {
        let reached = reached(machine, mount);
        layers = Some(!reached.is_empty());
        if let Some(below) = reached.first().and_then(|layer| table.at(layer)) {
            of_device = below;
        }
    }
    Place {
        path: path.to_owned(),
        mount: mount.clone(),
        device: devices::gather(machine, of_device),
        layers,
    }
}

/// The directories of an overlay's layers that are there, the upper one first: only absolute ones mean anything here.
fn reached(machine: &Machine, mount: &Mount) -> Vec<PathBuf> {
    let options = mount.options.split(|byte| *byte == b',');
    let mut paths = Vec::new();
    for option in options {
        if let Some(upper) = option.strip_prefix(b"upperdir=") {
            paths.insert(0, PathBuf::from(unescape(upper)));
        } else if let Some(lower) = option.strip_prefix(b"lowerdir=") {
            paths.extend(
                lower
                    .split(|byte| *byte == b':')
                    .map(|one| PathBuf::from(unescape(one))),
            );
        }
    }
    paths.retain(|path| path.is_absolute());
    paths.truncate(MOST_LAYERS);
    let found = paths.iter().filter_map(|path| machine.canonical(path).ok());
    found.collect()
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
