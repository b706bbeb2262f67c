//! The file systems of the watched directories, and what is special about each.
//!
//! In: what is mounted where. Out: findings.

use std::path::Path;

use super::{
    finding::{Finding, State, Subject},
    machine::PATIENCE,
    roots::{Chosen, Place, Root, Trouble},
};
use crate::{
    catalog::stores::Store,
    discover::judge::{self, FileSystem},
    source::attach::EventMode,
};

const FILES: Subject = Subject::FileSystems;

/// What is to be said of the directories; `mode` is the event mode that `auto` takes.
pub fn findings(roots: &[Root], chosen: Chosen, mode: Option<EventMode>) -> Vec<Finding> {
    let mut all = Vec::new();
    if roots.is_empty() && chosen == Chosen::Silent {
        all.push(FILES.info(
            "directories",
            "they could not be looked for: a file system does not answer; give --watch DIR to hear of its file system and device",
        ));
        return all;
    }
    if roots.is_empty() {
        all.push(FILES.info(
            "directories",
            "none was given, no agent answers, and none was found: give --watch DIR to hear of its file system and device",
        ));
        return all;
    }
    let (number, plural) = (roots.len(), if roots.len() == 1 { "y" } else { "ies" });
    all.push(FILES.info(
        "directories",
        match chosen {
            Chosen::Named => format!("{number} director{plural} named with --watch"),
            Chosen::Running => format!("{number} director{plural} of the agent that runs"),
            Chosen::Found => format!("{number} director{plural} found, as --watch auto finds them"),
            Chosen::Silent => {
                format!("{number} director{plural}; more could not be looked for: a file system does not answer")
            }
        },
    ));
    for root in roots {
        match &root.place {
            Ok(places) => all.extend(places.iter().map(|place| of_place(place, mode))),
            Err(trouble) => all.push(of_trouble(&root.path.to_string_lossy(), trouble)),
        }
    }
    all
}

/// A directory of which no file system can be told.
fn of_trouble(name: &str, trouble: &Trouble) -> Finding {
    const LOST: &str = "nothing is watched there";
    match trouble {
        Trouble::Nothing => FILES.missing(
            name,
            "nothing is there",
            LOST,
            "see that the directory is there and mounted; --wait waits for one that is to come",
        ),
        Trouble::File => FILES.missing(
            name,
            "a file: the agent watches directories",
            LOST,
            "give the directory that it is in",
        ),
        Trouble::Silent => FILES.missing(
            name,
            format!("its file system does not answer within {} s", PATIENCE.as_secs()),
            LOST,
            "see why it does not: a server that is gone, or a process that hangs; umount -f ends the wait",
        ),
        Trouble::Unreached(why) => FILES.missing(
            name,
            format!("the process that it is reached through: {why}"),
            LOST,
            "give its path on this machine, or start the agent again",
        ),
        // What the agent says of itself went through text.
        Trouble::Unnamed => FILES.info(
            name,
            "the agent watches it; its name is not UTF-8 and cannot be told here: give --watch DIR to hear of its file system and device",
        ),
    }
}

/// Whether anything of it is warmed from a device.
pub fn has_device(kind: &str) -> bool {
    !matches!(kind, "tmpfs" | "ramfs" | "devtmpfs" | "hugetlbfs" | "zfs")
}

/// How a file system behaves.
struct Quirk {
    state: State,
    words: &'static str,
    lost: &'static str,
    remedy: &'static str,
}

const fn fine(words: &'static str) -> Quirk {
    Quirk {
        state: State::Ok,
        words,
        lost: "",
        remedy: "",
    }
}

const fn known(words: &'static str) -> Quirk {
    Quirk {
        state: State::Info,
        ..fine(words)
    }
}

const fn less(words: &'static str, lost: &'static str, remedy: &'static str) -> Quirk {
    Quirk {
        state: State::Degraded,
        words,
        lost,
        remedy,
    }
}

fn of_place(place: &Place, mode: Option<EventMode>) -> Finding {
    let mount = &place.mount;
    let options = String::from_utf8_lossy(&mount.options);
    let quirk = quirk(place, &options, mode);
    let mut value = format!("{} from {}: {}", mount.kind, mount.source.display(), quirk.words);
    if !place.is_asked {
        value += match judge::foreign(&mount.kind) {
            Some(FileSystem::Fuse) => "; the process was not asked whether the directory is there",
            Some(FileSystem::Network) => "; the server was not asked whether the directory is there",
            Some(FileSystem::Automount) => "; not looked into, which would mount something",
            Some(FileSystem::Pseudo) => "",
            None => "; this user may not see whether the directory is there",
        };
    }
    let name = place.path.to_string_lossy();
    match quirk.state {
        State::Ok => FILES.ok(&name, value),
        State::Info => FILES.info(&name, value),
        State::Degraded | State::Missing => FILES.degraded(&name, value, quirk.lost, quirk.remedy),
    }
}

fn quirk(place: &Place, options: &str, mode: Option<EventMode>) -> Quirk {
    const LOCAL: &str = "keep the models on a file system of this machine: ext4, xfs or btrfs";
    let kind = place.mount.kind.as_str();
    let has = |wanted: &str| options.split(',').any(|option| option == wanted);
    if matches!(kind, "ext2" | "ext3" | "ext4" | "xfs" | "virtiofs") && (has("dax") || has("dax=always")) {
        return less(
            "mounted with dax: reads go past the page cache",
            "all help: there is nothing to warm, and nobody is seen to read",
            "mount it without dax",
        );
    }
    match kind {
        "ext2" | "ext3" | "ext4" | "xfs" => fine("nothing special"),
        "btrfs" => fine(
            "inode numbers repeat between subvolumes; files are told apart by their generation and by what their reader has open",
        ),
        "overlay" if place.layers == Some(true) => fine("files are followed in its layers"),
        "overlay" => less(
            "an overlay of whose layers none can be reached from here",
            "nobody is seen to read there, since the page cache belongs to the files of the layers",
            "--watch the directories of its layers",
        ),
        "zfs" => less(
            "reads come from a cache of its own",
            "all help: nothing that is warmed stays in the page cache, so that each load is left alone after four steps",
            LOCAL,
        ),
        "tmpfs" | "ramfs" | "devtmpfs" | "hugetlbfs" => known("in memory already: nothing to do"),
        "erofs" | "squashfs" | "iso9660" | "udf" => known("for reading alone; not tried"),
        "9p" | "virtiofs" | "drvfs" if is_drive(&place.mount.source, options) => less(
            "a drive of Windows, read through a protocol for networks",
            "most of the speed: each read asks Windows, and changes made there are not told",
            "keep the models in the Linux file system of WSL, below your home",
        ),
        "fuseblk" => known("on a disk of this machine, through a process; not tried"),
        _ => of_store(place, options, mode),
    }
}

/// What is behind a server or a process.
fn of_store(place: &Place, options: &str, mode: Option<EventMode>) -> Quirk {
    let kind = place.mount.kind.as_str();
    let source = place.mount.source.to_string_lossy();
    match Store::of(kind, &source) {
        Store::Costly => less(
            "reading is paid for by use, or fetches from tape",
            "help: loads are only observed, and no header is read",
            "start the agent with --fetch and this directory, where reading is worth it",
        ),
        Store::Remote if kind.starts_with("fuse") && is_of_one_user(options) => {
            if mode == Some(EventMode::Fanotify) {
                less(
                    "FUSE without allow_other: root is refused",
                    "all help: in fanotify mode nothing is seen there",
                    "mount it with -o allow_other",
                )
            } else {
                known(
                    "FUSE without allow_other: root is refused, so that files are known once somebody reads them, and warmed through the reader's own descriptor",
                )
            }
        }
        Store::Remote if kind.starts_with("fuse") => {
            known("through a process: a file is looked at again when it is opened, directories once a minute")
        }
        Store::Remote => known(
            "on a server; changes by others are not told, so that a file is looked at again when it is opened, and directories once a minute; not tried",
        ),
        Store::Local => known("not tried"),
    }
}

/// Whether a FUSE mount is for its user alone, who is not root.
fn is_of_one_user(options: &str) -> bool {
    let all = options.split(',').any(|option| option == "allow_other");
    let root = options.split(',').any(|option| option == "user_id=0");
    !all && !root
}

/// Whether a mount is a drive of Windows, by source and options as WSL gives them: `C:\`, and `aname=drvfs;path=C:\`; with virtiofs `drvfsC0` or `drvfsa`.
pub fn is_drive(source: &Path, options: &str) -> bool {
    let source = source.to_string_lossy();
    source.starts_with("drvfs") || source.get(1..2) == Some(":") || options.contains("drvfs")
}
