//! The directories that an overlay is made of.
//!
//! In: a mount of type `overlay` from a mount table. Out: the directories of its layers, the uppermost first. The page cache belongs to the files of the layers, and
//! no system call names the layer of a file (the kernel's `ovl_path_realdata` is its own). The paths come from the options of the mount: whoever may mount in a namespace
//! of his own may have written anything there, and relative ones began at a directory that is not known. So what is found in a layer counts only if it is the very file
//! ([`Layers::file`]).

use std::{
    ffi::{CStr, OsStr, OsString},
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::{Path, PathBuf},
};

use super::{
    mounts::{Mount, unescape},
    open::open_directory_beneath,
    stat::{Kind, Status, status_at},
    top::Top,
};

/// Layers that are looked into; the kernel allows 500 below the upper one.
const MOST_LAYERS: usize = 501;

/// A mounted overlay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlay {
    /// Where it is mounted, for the processes of its namespace.
    point: PathBuf,
    /// Which directory of it is shown there.
    shows: PathBuf,
    /// The layers' directories that can be reached from here, the uppermost first.
    layers: Vec<Top>,
}

/// The layers of one directory.
#[derive(Debug)]
pub struct Layers {
    /// Where it is in each layer that has it.
    directories: Vec<(Top, PathBuf, OwnedFd)>,
}

impl Overlay {
    /// The overlay that is mounted so; `None` for any other file system.
    pub fn of(mount: &Mount) -> Option<Self> {
        (mount.kind == "overlay").then(|| Self {
            point: mount.point.clone(),
            shows: mount.shows.clone(),
            layers: named_layers(mount)
                .into_iter()
                // Docker names its layers by links.
                .filter_map(|path| path.canonicalize().ok())
                .map(Top::from)
                .collect(),
        })
    }

    /// Whether no layer can be reached from here.
    pub fn is_out_of_reach(&self) -> bool {
        self.layers.is_empty()
    }

    /// The layers of a directory of it: `directory` is its path for the processes of the overlay's namespace.
    pub fn layers_of(&self, directory: &Path) -> Layers {
        let below = directory.strip_prefix(&self.point).map(|below| self.shows.join(below));
        let below = below.as_deref().unwrap_or(&self.shows);
        let below = below.strip_prefix("/").unwrap_or(below);
        let open = |layer: &Top| {
            let opened = open_directory_beneath(layer, below).ok()?;
            Some((layer.clone(), below.to_owned(), opened))
        };
        Layers {
            directories: self.layers.iter().filter_map(open).collect(),
        }
    }
}

impl Layers {
    /// Whether the directory was found in none.
    pub fn are_out_of_reach(&self) -> bool {
        self.directories.is_empty()
    }

    /// The file of a layer that is behind `name`, which the overlay shows with `status`: what it is there, below which directory, and where below it.
    ///
    /// It has the size and the times that the overlay tells, to the nanosecond: the kernel takes them from it. `None` where that is not found: a directory that was renamed
    /// in the overlay has another name below, and with `metacopy=on` the bytes may be in another file than the times.
    pub fn file(&self, name: &CStr, status: &Status) -> Option<(Status, Top, PathBuf)> {
        self.directories.iter().find_map(|(top, below, opened)| {
            let found = status_at(opened.as_fd(), name).ok()?;
            is_same(&found, status).then(|| {
                let below = below.join(OsStr::from_bytes(name.to_bytes()));
                (found, top.clone(), below)
            })
        })
    }
}

fn is_same(one: &Status, other: &Status) -> bool {
    one.kind == Kind::File && (one.size, one.mtime_ns, one.ctime_ns) == (other.size, other.mtime_ns, other.ctime_ns)
}

/// The directories that an overlay's options name as its layers, the uppermost first, as whoever mounted it sees them; they are not looked at. Relative ones begin at a directory
/// that is not known, and are left out.
pub fn named_layers(mount: &Mount) -> Vec<PathBuf> {
    let named = layers_in(&mount.options).into_iter().take(MOST_LAYERS);
    named.filter(|path| path.is_absolute()).collect()
}

/// `upperdir=/u`, `lowerdir=/a:/b` and, since 6.5, `lowerdir+=/a`, in any order. Colons in paths are escaped with a backslash in `lowerdir`; everything
/// is escaped once more for the mount table. Layers of data only (after `::`) hold no names.
fn layers_in(options: &[u8]) -> Vec<PathBuf> {
    let (mut upper, mut lower) = (Vec::new(), Vec::new());
    for option in options.split(|byte| *byte == b',') {
        let Some(equals) = option.iter().position(|byte| *byte == b'=') else {
            continue;
        };
        let value = unescape(&option[equals + 1..]).into_vec();
        match &option[..equals] {
            b"upperdir" => upper.push(path(value)),
            b"lowerdir+" => lower.push(path(value)),
            b"lowerdir" => lower.extend(split(&value)),
            _ => {}
        }
    }
    upper.extend(lower);
    upper
}

/// The paths between single colons, up to the first double one.
fn split(list: &[u8]) -> Vec<PathBuf> {
    let (mut paths, mut current) = (Vec::new(), Vec::new());
    let mut bytes = list.iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => current.extend(bytes.next()),
            b':' if current.is_empty() => return paths,
            b':' => paths.push(path(std::mem::take(&mut current))),
            byte => current.push(byte),
        }
    }
    if !current.is_empty() {
        paths.push(path(current));
    }
    paths
}

fn path(bytes: Vec<u8>) -> PathBuf {
    OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layers(options: &str) -> Vec<PathBuf> {
        layers_in(options.as_bytes())
    }

    fn paths(list: &[&str]) -> Vec<PathBuf> {
        list.iter().map(PathBuf::from).collect()
    }

    #[test]
    fn layers_are_told_from_the_uppermost_down() {
        assert_eq!(
            layers("rw,lowerdir=/a:/b,upperdir=/u,workdir=/w,index=off"),
            paths(&["/u", "/a", "/b"])
        );
        assert_eq!(layers("ro,lowerdir+=/a,lowerdir+=/b:c"), paths(&["/a", "/b:c"]));
        assert_eq!(layers("rw,lowerdir=/a::/data,upperdir=/u"), paths(&["/u", "/a"]));
        assert_eq!(layers("rw,lowerdir=/x\\134:y:/my\\040dir"), paths(&["/x:y", "/my dir"]));
        assert!(layers("rw,relatime").is_empty());
    }

    #[test]
    fn rubbish_in_the_options_is_no_path_or_one_that_is_not_there() {
        for options in [
            "lowerdir=",
            "lowerdir=:::",
            "lowerdir=\\134",
            "upperdir",
            "=,=",
            "lowerdir=\\777:\\",
        ] {
            let found = layers(options);
            assert!(found.len() <= 2, "{options}: {found:?}");
        }
        let mount = Mount {
            number: 1,
            device: 1,
            shows: "/".into(),
            point: "/merged".into(),
            kind: "overlay".into(),
            source: "overlay".into(),
            options: b"lowerdir=relative:/not/there".to_vec(),
        };
        assert!(Overlay::of(&mount).unwrap().is_out_of_reach());
        let other = Mount {
            kind: "ext4".into(),
            ..mount
        };
        assert_eq!(Overlay::of(&other), None);
    }

    #[test]
    fn a_file_is_found_in_the_layer_that_has_it_and_only_if_it_is_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        // Of different sizes: within one tick of the kernel's clock they get the same times.
        for (layer, text) in [("u", "upper"), ("l", "low")] {
            std::fs::create_dir_all(base.join(layer).join("deep/er")).unwrap();
            std::fs::write(base.join(layer).join("deep/er/file"), text).unwrap();
        }
        std::fs::write(base.join("l/deep/er/only"), "below").unwrap();
        let mount = Mount {
            number: 1,
            device: 1,
            shows: "/deep".into(),
            point: "/merged".into(),
            kind: "overlay".into(),
            source: "overlay".into(),
            options: format!("lowerdir={0}/l,upperdir={0}/u", base.display()).into_bytes(),
        };
        let layers = Overlay::of(&mount).unwrap().layers_of(Path::new("/merged/er"));
        let status = |path: &str| {
            let path = std::ffi::CString::new(base.join(path).as_os_str().as_bytes()).unwrap();
            let here = std::fs::File::open("/").unwrap();
            status_at(here.as_fd(), &path).unwrap()
        };
        for (layer, name, text) in [("u", c"file", "file"), ("l", c"file", "file"), ("l", c"only", "only")] {
            let shown = status(&format!("{layer}/deep/er/{text}"));
            let (found, top, below) = layers.file(name, &shown).unwrap();
            assert_eq!(found.inode, shown.inode);
            assert_eq!(
                (&*top, &*below),
                (&*base.join(layer), Path::new("deep/er").join(text).as_path())
            );
        }
        let mut another = status("l/deep/er/only");
        another.ctime_ns += 1;
        assert!(layers.file(c"only", &another).is_none());
    }
}
