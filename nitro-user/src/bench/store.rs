//! A file system in user space that behaves like a remote store or like a disk with one head: a directory of the machine, served read-only with a time for each
//! request.
//!
//! The server is a process of its own ([`serve`], by the hidden subcommand [`SUBCOMMAND`]), so that it can be stopped like a server that has died ([`Store::stall`]).

use std::{
    collections::HashMap,
    ffi::{OsStr, OsString},
    fs::{self, File, Metadata},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{
            ffi::OsStrExt,
            fs::{FileExt, MetadataExt},
        },
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result, bail};
use clap::Args;
use fuser::{
    Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner, MountOption,
    OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, Request, Session, SessionACL,
};
use nix::{
    mount::{MsFlags, mount},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::sweep;
use crate::sys::measure;

/// The hidden subcommand that serves a store, of every program that starts one.
pub const SUBCOMMAND: &str = "bench-store";

/// How long the kernel may believe what it was told of a file.
const BELIEVED: Duration = Duration::from_secs(1);

/// A store.
#[derive(Args, Clone, Debug)]
pub struct StoreArgs {
    /// What is served.
    #[arg(long)]
    pub source: PathBuf,
    /// Where it is mounted.
    #[arg(long)]
    pub mount: PathBuf,
    /// Milliseconds that each read takes.
    #[arg(long, default_value_t = 0.0)]
    pub latency: f64,
    /// Reads at once; others wait.
    #[arg(long, default_value_t = 8)]
    pub parallel: usize,
    /// Milliseconds more when a read does not go on where the last one ended: one head.
    #[arg(long, default_value_t = 0.0)]
    pub seek: f64,
    /// MB/s of each read; 0 is no limit.
    #[arg(long, default_value_t = 0.0)]
    pub rate: f64,
    /// MB/s of all reads together; 0 is no limit.
    #[arg(long, default_value_t = 0.0)]
    pub bandwidth: f64,
    /// Source of the mount, as /proc/mounts shows it: which client it is.
    #[arg(long, default_value = "nitrostore")]
    pub kind: String,
    /// Only whoever it is mounted for may look, not even root.
    #[arg(long)]
    pub private: bool,
    /// User, and group, that it is mounted for.
    #[arg(long)]
    pub user: Option<u32>,
}

/// A store that is mounted; unmounted on drop.
#[derive(Debug)]
pub struct Store {
    server: Child,
    mount: PathBuf,
}

impl Store {
    /// Has the program at `binary`, which has the hidden subcommand, serve a store, and waits until it is mounted.
    ///
    /// # Errors
    /// It cannot be started, or mounts nothing.
    pub fn start(binary: &Path, args: &StoreArgs) -> Result<Self> {
        sweep::rest_if_interrupted();
        fs::create_dir_all(&args.mount).with_context(|| format!("create {}", args.mount.display()))?;
        let mut command = Command::new(binary);
        command.arg(SUBCOMMAND);
        command
            .arg("--source")
            .arg(&args.source)
            .arg("--mount")
            .arg(&args.mount);
        command.arg("--kind").arg(&args.kind);
        for (name, value) in [
            ("--latency", args.latency),
            ("--seek", args.seek),
            ("--rate", args.rate),
            ("--bandwidth", args.bandwidth),
        ] {
            command.arg(name).arg(value.to_string());
        }
        command.arg("--parallel").arg(args.parallel.to_string());
        if args.private {
            command.arg("--private");
        }
        if let Some(user) = args.user {
            command.arg("--user").arg(user.to_string());
        }
        measure::end_with_parent(&mut command);
        let server = command
            .stdin(Stdio::null())
            .spawn()
            .context("start the server of a store")?;
        sweep::adopt(server.id());
        let mut store = Self {
            server,
            mount: args.mount.clone(),
        };
        let deadline = Instant::now() + Duration::from_secs(10);
        while !store.is_mounted() {
            if let Some(status) = store.server.try_wait().context("wait for the server of a store")? {
                bail!("the server of a store ended: {status}");
            }
            if Instant::now() > deadline {
                bail!("the store was not mounted in 10 s");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(store)
    }

    fn is_mounted(&self) -> bool {
        sweep::is_mounted(&self.mount)
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.mount
    }

    /// From now on nothing is answered, as by a server that has died.
    pub fn stall(&self) {
        let _ = kill(self.pid(), Signal::SIGSTOP);
    }

    /// It is answered again.
    pub fn go_on(&self) {
        let _ = kill(self.pid(), Signal::SIGCONT);
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.server.id().cast_signed())
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.go_on();
        if self.is_mounted() {
            sweep::unmount(&self.mount);
        }
        // It ends with its mount; one that does not is ended.
        let deadline = Instant::now() + Duration::from_secs(2);
        while matches!(self.server.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                let _ = self.server.kill();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        sweep::disown(self.server.id());
    }
}

/// Serves until it is unmounted.
///
/// # Errors
/// The source cannot be looked at, or nothing can be mounted.
pub fn serve(args: &StoreArgs) -> Result<()> {
    let tree = Tree::of(args)?;
    let mut config = Config::default();
    config.n_threads = Some(args.parallel.max(1));
    let session = match args.user {
        Some(user) => mount_for(user, args).and_then(|device| {
            // The kernel asks who comes; the session need not ask again.
            Ok(Session::from_fd(tree, device, SessionACL::All, config)?)
        }),
        None => {
            config.mount_options = vec![MountOption::FSName(args.kind.clone()), MountOption::RO];
            config.acl = if args.private {
                SessionACL::Owner
            } else {
                SessionACL::All
            };
            Ok(Session::new(tree, &args.mount, &config)?)
        }
    };
    let session = session.with_context(|| format!("mount a store at {}", args.mount.display()))?;
    session.run().context("serve a store")
}

/// Mounts as `fusermount3` does for a user: what it was told to leave to that user alone, root is refused, too.
fn mount_for(user: u32, args: &StoreArgs) -> Result<OwnedFd> {
    let device = File::options().read(true).write(true).open("/dev/fuse")?;
    let others = if args.private { "" } else { ",allow_other" };
    let options = format!(
        "fd={},rootmode=40000,user_id={user},group_id={user}{others}",
        device.as_raw_fd()
    );
    let flags = MsFlags::MS_NODEV | MsFlags::MS_NOSUID | MsFlags::MS_RDONLY;
    mount(
        Some(args.kind.as_str()),
        &args.mount,
        Some("fuse"),
        flags,
        Some(options.as_str()),
    )?;
    Ok(device.into())
}

/// The tree that is served: nodes are numbered as they are met.
struct Tree {
    args: StoreArgs,
    nodes: Mutex<Nodes>,
    files: Mutex<HashMap<u64, std::sync::Arc<File>>>,
    next: AtomicU64,
    /// Where the last read ended: the head.
    head: Mutex<(u64, u64)>,
    /// When the line is free again, over which all answers go one after the other.
    line: Mutex<Instant>,
}

#[derive(Default)]
struct Nodes {
    paths: Vec<PathBuf>,
    numbers: HashMap<PathBuf, u64>,
}

impl Nodes {
    fn number(&mut self, path: PathBuf) -> u64 {
        if let Some(number) = self.numbers.get(&path) {
            return *number;
        }
        self.paths.push(path.clone());
        // The root is 1.
        let number = self.paths.len() as u64;
        self.numbers.insert(path, number);
        number
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Tree {
    fn of(args: &StoreArgs) -> Result<Self> {
        let root = args
            .source
            .canonicalize()
            .with_context(|| format!("look at {}", args.source.display()))?;
        let mut nodes = Nodes::default();
        nodes.number(root);
        Ok(Self {
            args: args.clone(),
            nodes: Mutex::new(nodes),
            files: Mutex::default(),
            next: AtomicU64::new(1),
            head: Mutex::default(),
            line: Mutex::new(Instant::now()),
        })
    }

    fn path(&self, node: INodeNo) -> Result<PathBuf, Errno> {
        let index = usize::try_from(node.0).ok().and_then(|number| number.checked_sub(1));
        index
            .and_then(|index| lock(&self.nodes).paths.get(index).cloned())
            .ok_or(Errno::ENOENT)
    }

    fn attributes(&self, node: INodeNo) -> Result<FileAttr, Errno> {
        let status = fs::symlink_metadata(self.path(node)?).map_err(|_| Errno::ENOENT)?;
        attributes(node, &status).ok_or(Errno::ENOENT)
    }

    fn child(&self, parent: INodeNo, name: &OsStr) -> Result<FileAttr, Errno> {
        let path = self.path(parent)?.join(name);
        fs::symlink_metadata(&path).map_err(|_| Errno::ENOENT)?;
        let number = lock(&self.nodes).number(path);
        self.attributes(INodeNo(number))
    }

    /// What a read of so many bytes at this place costs.
    fn wait(&self, node: u64, offset: u64, bytes: u64) {
        let by_rate = if self.args.rate > 0.0 {
            bytes as f64 / self.args.rate / 1000.0
        } else {
            0.0
        };
        if self.args.seek > 0.0 {
            // One at a time, whoever asks.
            let mut head = lock(&self.head);
            let seek = if *head == (node, offset) { 0.0 } else { self.args.seek };
            *head = (node, offset + bytes);
            sleep(self.args.latency + seek + by_rate);
        } else {
            sleep(self.args.latency + by_rate);
        }
        if self.args.bandwidth > 0.0 {
            let on_its_way = Duration::from_secs_f64(bytes as f64 / self.args.bandwidth / 1e6);
            let arrives = {
                let mut free = lock(&self.line);
                *free = (*free).max(Instant::now()) + on_its_way;
                *free
            };
            std::thread::sleep(arrives.saturating_duration_since(Instant::now()));
        }
    }
}

fn sleep(milliseconds: f64) {
    std::thread::sleep(Duration::from_secs_f64(milliseconds.max(0.0) / 1000.0));
}

fn attributes(node: INodeNo, status: &Metadata) -> Option<FileAttr> {
    let time = |seconds: i64, rest: i64| {
        SystemTime::UNIX_EPOCH + Duration::new(seconds.max(0).cast_unsigned(), u32::try_from(rest).unwrap_or(0))
    };
    Some(FileAttr {
        ino: node,
        size: status.size(),
        blocks: status.blocks(),
        atime: time(status.atime(), status.atime_nsec()),
        mtime: time(status.mtime(), status.mtime_nsec()),
        ctime: time(status.ctime(), status.ctime_nsec()),
        crtime: SystemTime::UNIX_EPOCH,
        kind: FileType::from_std(status.file_type())?,
        perm: (status.mode() & 0o7777) as u16,
        nlink: u32::try_from(status.nlink()).unwrap_or(u32::MAX),
        uid: status.uid(),
        gid: status.gid(),
        rdev: 0,
        blksize: 4096,
        flags: 0,
    })
}

impl Filesystem for Tree {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.child(parent, name) {
            Ok(found) => reply.entry(&BELIEVED, &found, Generation(0)),
            Err(error) => reply.error(error),
        }
    }

    fn getattr(&self, _: &Request, node: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(node) {
            Ok(found) => reply.attr(&BELIEVED, &found),
            Err(error) => reply.error(error),
        }
    }

    fn readlink(&self, _: &Request, node: INodeNo, reply: ReplyData) {
        let target = self
            .path(node)
            .and_then(|path| fs::read_link(path).map_err(|_| Errno::EINVAL));
        match target {
            Ok(target) => reply.data(target.as_os_str().as_bytes()),
            Err(error) => reply.error(error),
        }
    }

    fn open(&self, _: &Request, node: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let opened = self
            .path(node)
            .and_then(|path| File::open(path).map_err(|_| Errno::ENOENT));
        match opened {
            Ok(file) => {
                let handle = self.next.fetch_add(1, Ordering::Relaxed);
                lock(&self.files).insert(handle, file.into());
                reply.opened(FileHandle(handle), FopenFlags::FOPEN_KEEP_CACHE);
            }
            Err(error) => reply.error(error),
        }
    }

    fn read(
        &self,
        _: &Request,
        node: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let Some(file) = lock(&self.files).get(&handle.0).cloned() else {
            return reply.error(Errno::EBADF);
        };
        let mut bytes = vec![0; size as usize];
        match read_full(&file, &mut bytes, offset) {
            Ok(count) => {
                self.wait(node.0, offset, count as u64);
                reply.data(&bytes[..count]);
            }
            Err(_) => reply.error(Errno::EIO),
        }
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        lock(&self.files).remove(&handle.0);
        reply.ok();
    }

    fn readdir(&self, _: &Request, node: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let listed = self
            .path(node)
            .and_then(|path| fs::read_dir(path).map_err(|_| Errno::ENOENT));
        let Ok(entries) = listed else {
            return reply.error(Errno::ENOENT);
        };
        let mut names: Vec<OsString> = entries.flatten().map(|entry| entry.file_name()).collect();
        names.sort();
        let first = usize::try_from(offset).unwrap_or(usize::MAX);
        for (index, name) in names.iter().enumerate().skip(first) {
            let Ok(found) = self.child(node, name) else { continue };
            if reply.add(found.ino, index as u64 + 1, found.kind, name) {
                break;
            }
        }
        reply.ok();
    }
}

fn read_full(file: &File, bytes: &mut [u8], offset: u64) -> std::io::Result<usize> {
    let mut count = 0;
    while count < bytes.len() {
        match file.read_at(&mut bytes[count..], offset + count as u64)? {
            0 => break,
            read => count += read,
        }
    }
    Ok(count)
}
