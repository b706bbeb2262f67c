//! The mount table of a process: which file system is where.
//!
//! In: text in the format of `/proc/self/mountinfo`. Out: mounts, the one that holds a path, and where else a file system's directories are
//! mounted. Nothing here touches the file systems.

use std::{
    ffi::OsString,
    io::{self, Read},
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

use super::stat::kernel_device;

/// The mount table of the calling thread; that of the process would be its first thread's.
pub const OWN: &str = "/proc/thread-self/mountinfo";

/// Longest table that is read: one of a hundred thousand mounts. Anybody may make mounts in a namespace of their own.
const MOST_BYTES: u64 = 16 << 20;

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Its number, as `statx` tells it.
    pub number: u64,
    /// The file system's device as the kernel keeps it.
    pub device: u32,
    /// Which directory of the file system it shows.
    pub shows: PathBuf,
    /// Where.
    pub point: PathBuf,
    /// The type of the file system: `ext4`, `nfs4`, `fuse.sshfs`.
    pub kind: String,
    /// Where it comes from, as whoever mounted it says: `/dev/sda1`, `server:/models`.
    pub source: PathBuf,
    /// What the file system says of itself, escaped as in the table: `rw,lowerdir=/a:/b`.
    pub options: Vec<u8>,
}

/// All mounts that a process sees, in the order in which they were made.
#[derive(Clone, Debug, Default)]
pub struct Mounts(Vec<Mount>);

impl Mounts {
    /// Reads a table.
    ///
    /// # Errors
    /// The process has ended, or may not be looked at.
    pub fn read(table: &Path) -> io::Result<Self> {
        let mut bytes = Vec::new();
        std::fs::File::open(table)?.take(MOST_BYTES).read_to_end(&mut bytes)?;
        Ok(Self::parse(&bytes))
    }

    /// The mounts in the text of a table; lines that are none are left out.
    pub fn parse(table: &[u8]) -> Self {
        Self(table.split(|byte| *byte == b'\n').filter_map(mount).collect())
    }

    /// The mount that holds the absolute path `path`, by its text: no link in it is looked at.
    pub fn at(&self, path: &Path) -> Option<&Mount> {
        // Of several at one point the last one hides the others.
        self.0
            .iter()
            .filter(|mount| path.starts_with(&mount.point))
            .max_by_key(|mount| mount.point.components().count())
    }

    /// The mount with this number.
    pub fn numbered(&self, number: u64) -> Option<&Mount> {
        self.0.iter().find(|mount| mount.number == number)
    }

    /// Whether the file system on `device` is an overlay of others.
    pub fn is_overlay(&self, device: u32) -> bool {
        self.0
            .iter()
            .any(|mount| mount.device == device && mount.kind == "overlay")
    }

    /// The mounts at points below the absolute path `path`, in the order in which they were made.
    pub fn below<'a>(&'a self, path: &'a Path) -> impl Iterator<Item = &'a Mount> {
        let within = move |mount: &&Mount| mount.point != path && mount.point.starts_with(path);
        self.0.iter().filter(within)
    }

    /// Where the directory `below` the top of the file system on `device` can be seen; the most complete view of the file system first.
    pub fn places_of(&self, device: u32, below: &Path) -> Vec<PathBuf> {
        let mut views: Vec<(&Mount, &Path)> = self
            .0
            .iter()
            .filter(|mount| mount.device == device)
            .filter_map(|mount| Some((mount, below.strip_prefix(&mount.shows).ok()?)))
            .collect();
        views.sort_by_key(|(mount, _)| mount.shows.components().count());
        let place = |(mount, rest): (&Mount, &Path)| match rest.as_os_str().is_empty() {
            true => mount.point.clone(),
            false => mount.point.join(rest),
        };
        views.into_iter().map(place).collect()
    }
}

/// `22 27 0:21 / /proc rw,relatime shared:5 - proc proc rw`.
fn mount(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let text = |field: &[u8]| String::from_utf8(field.to_vec()).ok();
    let number = text(fields.next()?)?.parse().ok()?;
    let device = text(fields.nth(1)?)?;
    let (major, minor) = device.split_once(':')?;
    let (shows, point) = (unescape(fields.next()?), unescape(fields.next()?));
    let mut fields = fields.skip_while(|field| *field != b"-").skip(1);
    let kind = fields.next()?;
    let source = unescape(fields.next().unwrap_or_default());
    let options = fields.next().unwrap_or_default().to_vec();
    Some(Mount {
        number,
        device: kernel_device(major.parse().ok()?, minor.parse().ok()?),
        shows: shows.into(),
        point: point.into(),
        kind: text(kind)?,
        source: source.into(),
        options,
    })
}

/// `\040` for a space, and so on.
pub fn unescape(text: &[u8]) -> OsString {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        match (first, after) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..]) => {
                plain.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = &after[3..];
            }
            _ => plain.push(*first),
        }
    }
    OsString::from_vec(plain)
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    const TABLE: &[u8] = b"27 1 254:0 / / rw,relatime shared:1 master:2 - ext4 /dev/vda rw\n\
        22 27 0:21 / /proc rw - proc proc rw\n\
        30 27 8:1 / /mnt/my\\040disk rw - xfs /dev/sda1 rw\n\
        31 27 8:1 /models /srv/models rw - xfs /dev/sda1 rw\n\
        32 30 0:50 / /mnt/my\\040disk/net rw - nfs4 server:/x rw\n\
        short line\n33 27 x:1 / /bad rw - ext4 x rw\n34 27 0:9 / /nokind rw\n";

    #[test]
    fn the_mount_that_holds_a_path_is_the_deepest_one() {
        let mounts = Mounts::parse(TABLE);
        let kind = |path: &str| mounts.at(Path::new(path)).map(|mount| mount.kind.as_str());
        assert_eq!(mounts.0.len(), 5);
        assert_eq!(kind("/mnt/my disk/a"), Some("xfs"));
        assert_eq!(kind("/mnt/my disk/net/a"), Some("nfs4"));
        assert_eq!(kind("/mnt/my diskette"), Some("ext4"));
        assert_eq!(kind("/proc"), Some("proc"));
        assert_eq!(mounts.numbered(31).map(|mount| mount.device), Some(8 << 20 | 1));
        let other = mounts.numbered(31).unwrap();
        assert_eq!(other.options, b"rw");
        assert_eq!(other.source, Path::new("/dev/sda1"));
        assert_eq!(unescape(b"a\\04").as_bytes(), b"a\\04");
    }

    #[test]
    fn mounts_below_a_path_are_told_without_its_own() {
        let mounts = Mounts::parse(TABLE);
        let below = |path| {
            mounts
                .below(Path::new(path))
                .map(|mount| mount.number)
                .collect::<Vec<_>>()
        };
        assert_eq!(below("/mnt/my disk"), [32]);
        assert_eq!(below("/mnt"), [30, 32]);
        assert!(below("/mnt/my").is_empty());
    }

    #[test]
    fn a_directory_is_found_wherever_its_file_system_is_mounted() {
        let mounts = Mounts::parse(TABLE);
        let device = 8 << 20 | 1;
        let paths = |below: &str| mounts.places_of(device, Path::new(below));
        assert_eq!(
            paths("/models/a"),
            ["/mnt/my disk/models/a", "/srv/models/a"].map(PathBuf::from)
        );
        assert_eq!(
            paths("/models"),
            ["/mnt/my disk/models", "/srv/models"].map(PathBuf::from)
        );
        assert_eq!(paths("/other"), ["/mnt/my disk/other"].map(PathBuf::from));
        assert!(mounts.places_of(99, Path::new("/models")).is_empty());
    }

    #[test]
    fn of_two_mounts_at_one_point_the_later_counts() {
        let mounts =
            Mounts::parse(b"1 0 8:1 / / rw - ext4 a rw\n2 1 8:2 / /m rw - ext4 b rw\n3 2 8:3 / /m rw - nfs c rw\n");
        assert_eq!(mounts.at(Path::new("/m/x")).map(|mount| mount.number), Some(3));
    }

    #[test]
    fn the_own_table_is_read() {
        let mounts = Mounts::read(Path::new(OWN)).unwrap();
        assert!(mounts.at(Path::new("/")).is_some());
    }
}
