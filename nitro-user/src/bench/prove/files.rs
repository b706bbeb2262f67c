//! The user's own files: which they are, who has them mapped, and how they are made cold. They are opened for reading alone, and nothing but their cached pages is touched.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use crate::{
    sys::{measure::open_unnoticed, page_cache, proc::read_at_most},
    units::{ByteCount, ByteRange, printable},
};

/// Most files that are looked at.
const MOST_FILES: usize = 100_000;
/// Levels below a directory.
const MOST_DEPTH: usize = 64;
/// Longest list of mappings that is read: some hundred thousand of them.
const MOST_MAPS: u64 = 16 << 20;
/// How long whoever has a file mapped may take to let it go: a server that was told to unload a model ends the process that has it a moment later.
const LETTING_GO: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// How long pages may take to leave the page cache: those that are being read, or are in a processor's list of new ones.
const LEAVING: Duration = Duration::from_secs(10);
/// A process that may not be looked at, even by root, and has less of any files mapped than this share of the bytes in question, or than this, is not who uses them: the first one of a
/// container is such a one.
const LITTLE_SHARE: u64 = 10;
const LITTLE: u64 = 1 << 20;
/// Processes named in a refusal.
const MOST_NAMED: usize = 3;

/// One file, as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnFile {
    /// Canonical.
    pub path: PathBuf,
    /// Its bytes.
    pub size: u64,
    device: u64,
    inode: u64,
}

/// The files at `paths`, directories with everything below them, each file once; the largest first.
///
/// Links to files are followed, as a loader does; links to directories are not.
///
/// # Errors
/// A path cannot be looked at; there is nothing to read; there is too much.
pub fn collect(paths: &[PathBuf]) -> Result<Vec<OwnFile>> {
    let mut found = HashMap::new();
    for path in paths {
        let path = path
            .canonicalize()
            .with_context(|| format!("cannot look at {}", told(path)))?;
        add(&path, 0, &mut found)?;
    }
    let mut files: Vec<OwnFile> = found.into_values().collect();
    ensure!(
        files.iter().any(|file| file.size > 0),
        "there is nothing to read: no regular file with anything in it"
    );
    files.sort_by(|one, other| other.size.cmp(&one.size).then_with(|| one.path.cmp(&other.path)));
    Ok(files)
}

fn add(path: &Path, depth: usize, found: &mut HashMap<(u64, u64), OwnFile>) -> Result<()> {
    let status = fs::metadata(path).with_context(|| format!("cannot look at {}", told(path)))?;
    let kind = status.file_type();
    if kind.is_dir() {
        ensure!(
            depth < MOST_DEPTH,
            "{} is more than {MOST_DEPTH} levels down",
            told(path)
        );
        for entry in fs::read_dir(path).with_context(|| format!("cannot list {}", told(path)))? {
            let path = entry.with_context(|| format!("cannot list {}", told(path)))?.path();
            // A link that leads nowhere, or back up.
            let link = fs::symlink_metadata(&path).is_ok_and(|status| status.file_type().is_symlink());
            if link && !fs::metadata(&path).is_ok_and(|status| status.is_file()) {
                continue;
            }
            let path = if link {
                path.canonicalize().unwrap_or(path)
            } else {
                path
            };
            add(&path, depth + 1, found)?;
        }
    } else if kind.is_file() {
        ensure!(
            found.len() < MOST_FILES,
            "there are more than {MOST_FILES} files: name the directory of the model alone"
        );
        let file = OwnFile {
            path: path.to_owned(),
            size: status.size(),
            device: status.dev(),
            inode: status.ino(),
        };
        found.entry((file.device, file.inode)).or_insert(file);
    } else if depth == 0 {
        let what = if kind.is_block_device() { "a disk" } else { "no file" };
        bail!("{} is {what}: name a file, a directory or a model", told(path));
    }
    Ok(())
}

/// Bytes of the files that are in the page cache, up to date.
///
/// # Errors
/// A file is no longer there, or cannot be asked about.
pub fn resident(files: &[OwnFile]) -> Result<u64> {
    let of = |file: &OwnFile| {
        let opened = open(file)?;
        page_cache::resident(&opened, ByteRange::new(0, file.size))
            .with_context(|| failed("ask what is in memory of", file))
    };
    files.iter().map(of).sum()
}

/// Makes the files cold: their pages, and no others, leave the page cache.
///
/// # Errors
/// Somebody has a file mapped; pages of it are not on the disk yet; pages stay.
pub fn evict(files: &[OwnFile]) -> Result<()> {
    let deadline = Instant::now() + LETTING_GO;
    let mut holders = holders(files)?;
    while !holders.is_empty() && Instant::now() < deadline {
        std::thread::sleep(LOOK_AGAIN);
        holders = self::holders(files)?;
    }
    if !holders.is_empty() {
        let more = match holders.len().saturating_sub(MOST_NAMED) {
            0 => String::new(),
            more => format!(", and {more} more"),
        };
        let named: Vec<&str> = holders.iter().take(MOST_NAMED).map(String::as_str).collect();
        bail!(
            "cannot make the files cold: {}{more}; stop what uses them, and try again",
            named.join(", ")
        );
    }
    let files = || files.iter().filter(|file| file.size > 0);
    // Before anything is evicted: of one that is refused no other one's pages are gone.
    for file in files() {
        let dirty = page_cache::is_dirty(&open(file)?).with_context(|| failed("ask what is in memory of", file))?;
        ensure!(
            !dirty,
            "{} was written to and is not all on the disk yet: run `sync`, and try again",
            told(&file.path)
        );
    }
    let deadline = Instant::now() + LEAVING;
    for file in files() {
        let handle = open(file)?;
        loop {
            posix_fadvise(&handle, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)
                .map_err(io::Error::from)
                .with_context(|| failed("evict", file))?;
            let left =
                page_cache::resident(&handle, ByteRange::new(0, file.size)).with_context(|| failed("evict", file))?;
            if left == 0 {
                break;
            }
            ensure!(
                Instant::now() < deadline,
                "{} of {} stay in memory, since somebody reads, locks or writes them: a load would not be cold",
                ByteCount(left),
                told(&file.path)
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    Ok(())
}

/// A path as it is told to people: others choose what it is called.
fn told(path: &Path) -> String {
    printable(&path.to_string_lossy())
}

fn failed(operation: &str, file: &OwnFile) -> String {
    format!("cannot {operation} {}", told(&file.path))
}

/// Opens a file that is still the one that was found. Neither a link that took its place nor a FIFO is opened.
fn open(file: &OwnFile) -> Result<File> {
    // A mapping counts as a reading, too.
    let opened = open_unnoticed(&file.path, libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY)
        .with_context(|| failed("open", file))?;
    let status = opened.metadata().with_context(|| failed("look at", file))?;
    ensure!(
        (status.dev(), status.ino(), status.size()) == (file.device, file.inode, file.size),
        "{} became another file meanwhile: try again when nobody changes it",
        told(&file.path)
    );
    Ok(opened)
}

/// Who has which of the files mapped, in words.
///
/// # Errors
/// It cannot be told of a process that is there: to take it for none would be to make its pages go.
fn holders(files: &[OwnFile]) -> Result<Vec<String>> {
    let by_inode = files
        .iter()
        .fold(HashMap::<u64, Vec<&OwnFile>>::new(), |mut map, file| {
            map.entry(file.inode).or_default().push(file);
            map
        });
    let bytes = files.iter().map(|file| file.size).fold(0, u64::saturating_add);
    let little = (bytes / LITTLE_SHARE).max(LITTLE);
    let mut holders = Vec::new();
    let entries = fs::read_dir("/proc").context("cannot tell who has the files mapped: list /proc")?;
    let processes = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    for process in processes.filter(|&process| process != std::process::id()) {
        let maps = match maps(process) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && mapped_at_most(process)? < little => continue,
            maps => maps.with_context(|| {
                format!(
                    "cannot tell whether process {process} has the files mapped, and would make its pages go: run this where root may look at it, outside of a container"
                )
            })?,
        };
        let maps = String::from_utf8_lossy(&maps);
        let held = maps.lines().find_map(|line| mapped(line, &by_inode));
        if let Some(file) = held {
            let name = read_at_most(format!("/proc/{process}/comm"), 64).unwrap_or_default();
            let name = printable(String::from_utf8_lossy(&name).trim());
            holders.push(format!("{name}[{process}] has {} mapped", told(&file.path)));
        }
    }
    Ok(holders)
}

/// What a process has mapped; nothing of one that has ended meanwhile.
fn maps(process: u32) -> io::Result<Vec<u8>> {
    let path = format!("/proc/{process}/maps");
    let read = || {
        let mut bytes = Vec::new();
        File::open(&path)?.take(MOST_MAPS + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    match read() {
        Ok(bytes) if bytes.len() as u64 > MOST_MAPS => Err(io::Error::other("its list of mappings is too long")),
        Err(error) if is_gone(&error) => Ok(Vec::new()),
        done => done,
    }
}

/// Bytes of files, whichever they are, that a process has mapped and that are in memory; none of one that has ended meanwhile.
fn mapped_at_most(process: u32) -> Result<u64> {
    let status = match fs::read_to_string(format!("/proc/{process}/status")) {
        Err(error) if is_gone(&error) => return Ok(0),
        status => status.with_context(|| format!("cannot tell what process {process} has mapped"))?,
    };
    let field = status
        .lines()
        .find_map(|line| line.strip_prefix("RssFile:")?.trim().strip_suffix("kB"));
    // One that is ending has none.
    let kib = field.map_or(Ok(0), |kib| kib.trim().parse::<u64>());
    Ok(kib
        .with_context(|| format!("cannot tell what process {process} has mapped"))?
        .saturating_mul(1024))
}

/// Whether that is what /proc says of a process that has ended.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH))
}

/// The file that a line of `maps` is of: by number and device, or, where the device is told otherwise there (btrfs, overlays), by number and path.
fn mapped<'a>(line: &str, files: &HashMap<u64, Vec<&'a OwnFile>>) -> Option<&'a OwnFile> {
    let mut fields = line.splitn(6, ' ');
    let (device, inode) = (fields.nth(3)?, fields.next()?.parse().ok()?);
    let path = fields.next().unwrap_or_default().trim_start();
    let (major, minor) = device.split_once(':')?;
    let number = |text: &str| u32::from_str_radix(text, 16).ok();
    let device = libc::makedev(number(major)?, number(minor)?);
    let files = files.get(&inode)?;
    files
        .iter()
        .find(|file| file.device == device || Path::new(path) == file.path)
        .copied()
}

#[cfg(test)]
mod tests {
    use std::{io::Write, os::unix::fs::symlink};

    use super::*;
    use crate::sys::measure;

    /// Not in /tmp, which may be in memory.
    fn dir() -> tempfile::TempDir {
        tempfile::tempdir_in("/var/tmp").unwrap()
    }

    #[test]
    fn each_file_is_found_once_and_only_links_to_files_are_followed() {
        let dir = dir();
        let model = dir.path().join("model");
        fs::create_dir_all(model.join("blobs")).unwrap();
        fs::write(dir.path().join("outside"), "123456").unwrap();
        fs::write(model.join("blobs/a"), "123").unwrap();
        symlink("blobs/a", model.join("a")).unwrap();
        symlink("../outside", model.join("b")).unwrap();
        symlink("..", model.join("up")).unwrap();
        symlink("nowhere", model.join("none")).unwrap();
        let files = collect(&[model.clone(), model.join("a")]).unwrap();
        let names: Vec<_> = files
            .iter()
            .map(|file| (file.path.file_name().unwrap().to_str().unwrap(), file.size))
            .collect();
        assert_eq!(names, [("outside", 6), ("a", 3)]);
        assert!(collect(&[dir.path().join("missing")]).is_err());
        assert!(
            collect(&["/dev/null".into()])
                .unwrap_err()
                .to_string()
                .contains("no file")
        );
        fs::create_dir(dir.path().join("empty")).unwrap();
        assert!(
            collect(&[dir.path().join("empty")])
                .unwrap_err()
                .to_string()
                .contains("nothing to read")
        );
    }

    #[test]
    fn a_file_is_made_cold_unless_it_is_dirty_mapped_or_another_one() {
        let dir = dir();
        let path = dir.path().join("file");
        let mut file = File::create(&path).unwrap();
        file.write_all(&vec![7; 1 << 20]).unwrap();
        let files = collect(std::slice::from_ref(&path)).unwrap();
        if page_cache::tells_presence() {
            assert!(evict(&files).unwrap_err().to_string().contains("sync"));
        }
        file.sync_all().unwrap();
        assert_eq!(resident(&files).unwrap(), 1 << 20);
        evict(&files).unwrap();
        assert_eq!(resident(&files).unwrap(), 0);

        fs::rename(&path, dir.path().join("old")).unwrap();
        fs::write(&path, "another").unwrap();
        assert!(evict(&files).unwrap_err().to_string().contains("another file"));
    }

    #[test]
    fn only_who_is_not_there_has_nothing_mapped() {
        let own = std::process::id();
        assert!(!maps(own).unwrap().is_empty());
        assert_eq!(maps(u32::MAX).unwrap(), Vec::<u8>::new());
        // Its program, at least.
        assert!(mapped_at_most(own).unwrap() > 1 << 20);
        assert_eq!(mapped_at_most(u32::MAX).unwrap(), 0);
        for (errno, gone) in [
            (libc::ENOENT, true),
            (libc::ESRCH, true),
            (libc::EACCES, false),
            (libc::EPERM, false),
            (libc::EMFILE, false),
            (libc::ENOMEM, false),
        ] {
            assert_eq!(is_gone(&io::Error::from_raw_os_error(errno)), gone, "{errno}");
        }
    }

    #[test]
    fn looking_at_a_file_does_not_change_when_it_was_read() {
        let dir = dir();
        let path = dir.path().join("file");
        fs::write(&path, vec![7; 8192]).unwrap();
        // As long ago as makes `relatime` note a reading.
        let long_ago = std::time::SystemTime::now() - Duration::from_secs(3 * 24 * 3600);
        let file = File::options().write(true).open(&path).unwrap();
        file.set_times(fs::FileTimes::new().set_accessed(long_ago)).unwrap();
        file.sync_all().unwrap();
        let read_at = || fs::metadata(&path).unwrap().accessed().unwrap();
        let before = read_at();
        let files = collect(std::slice::from_ref(&path)).unwrap();
        evict(&files).unwrap();
        assert_eq!(resident(&files).unwrap(), 0);
        let direct = crate::bench::readers::ReaderArgs {
            kind: crate::bench::readers::Kind::Direct,
            paths: vec![path.clone()],
            cpu_ms: 0.0,
            order_seed: 0,
            cap_ms: None,
            depth: 1,
            request: 1 << 20,
        };
        if let Err(error) = crate::bench::readers::run(&direct) {
            assert!(format!("{error:#}").contains("O_DIRECT"), "{error:#}");
        }
        assert_eq!(read_at(), before);
    }

    #[test]
    fn who_lets_go_soon_is_waited_for() {
        let dir = dir();
        let path = dir.path().join("cat");
        // A program has its own file mapped as long as it runs.
        fs::copy("/bin/cat", &path).unwrap();
        File::open(&path).unwrap().sync_all().unwrap();
        let files = collect(std::slice::from_ref(&path)).unwrap();
        let mut holder = std::process::Command::new(&path);
        holder
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped());
        let mut holder = holder.spawn().unwrap();
        // Started is before its own file is mapped; once it answers it is.
        holder.stdin.as_mut().unwrap().write_all(b"?").unwrap();
        holder.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        assert_eq!(holders(&files).unwrap().len(), 1);
        let waiting = std::thread::spawn(move || evict(&files));
        drop(holder.stdin.take());
        holder.wait().unwrap();
        waiting.join().unwrap().unwrap();
    }

    #[test]
    fn a_mapping_is_recognised_by_its_numbers_or_by_its_name() {
        let dir = dir();
        fs::write(dir.path().join("file"), vec![7; 8192]).unwrap();
        let files = collect(&[dir.path().join("file")]).unwrap();
        let map = measure::map_file(&File::open(&files[0].path).unwrap(), true).unwrap();
        let by_inode = HashMap::from([(files[0].inode, vec![&files[0]])]);
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        assert!(maps.lines().any(|line| mapped(line, &by_inode).is_some()));
        drop(map);
        let line = format!(
            "7f-80 r--s 00000000 00:00 {}   {}",
            files[0].inode,
            files[0].path.display()
        );
        assert_eq!(mapped(&line, &by_inode), Some(&files[0]));
        let other = format!("7f-80 r--s 00000000 00:00 {}   /elsewhere", files[0].inode);
        assert_eq!(mapped(&other, &by_inode), None);
        assert_eq!(mapped("no line of the kind", &by_inode), None);
    }
}
