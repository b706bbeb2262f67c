//! The socket's file: made without ever being more open than asked for, never in place of something else, removed at the end if it is still ours.
//!
//! In: a path and perhaps a group. Out: a listening socket, or who has it already. A socket that nobody listens on is what a dead agent left
//! behind and is replaced; anything else stays as it is. Blocking, for a few system calls and at most a second for an agent that does not
//! answer: not for the executor.

use std::{
    fs::{File, Permissions},
    io::{self, BufRead, BufReader, Read, Write},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{
            ffi::OsStrExt,
            fs::{FileTypeExt, MetadataExt, PermissionsExt},
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::{AtFlags, Flock, FlockArg, OFlag, open},
    sys::{
        socket::{
            AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, getsockopt, listen, socket, sockopt,
        },
        stat::{Mode, fchmod},
    },
    unistd::{Gid, Group, fchownat},
};

use super::protocol::{self, Reply, Request};

/// `sun_path` holds 108 bytes, the last of them a zero.
pub const MOST_PATH_BYTES: usize = 107;

/// How long an agent that has the socket is waited for, and another agent that is starting.
const PATIENCE: Duration = Duration::from_secs(1);

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 16;

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// The kernel takes no longer path.
    #[error("the socket path {path} has {bytes} bytes, the kernel takes {MOST_PATH_BYTES}: give a shorter --socket")]
    TooLong {
        /// The path.
        path: String,
        /// Its length.
        bytes: usize,
    },
    /// Something that is no socket has the name.
    #[error("{path} is a {kind}, not a socket: it was left as it is; give another --socket")]
    NotASocket {
        /// The path.
        path: String,
        /// What it is.
        kind: &'static str,
    },
    /// Somebody listens there.
    #[error("{who} has {path}: stop it first, or give this one another --socket")]
    Taken {
        /// The path.
        path: String,
        /// Who, as far as it is known.
        who: String,
    },
    /// No such group.
    #[error(
        "there is no group {0:?} to give the socket to: create it with `groupadd {0}`, or leave --socket-group away"
    )]
    NoGroup(String),
    /// The file system or the kernel refused.
    #[error("cannot {operation} {path}: {source}: {remedy}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The path.
        path: String,
        /// Why not.
        source: io::Error,
        /// What to do.
        remedy: &'static str,
    },
}

/// A listening socket and its file. Dropping it removes the file if it is still this socket's.
#[derive(Debug)]
pub struct Claimed {
    pub(super) listener: UnixListener,
    pub(super) file: SocketFile,
}

/// The file of a socket of ours.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and inode, by which it is known again.
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = std::fs::symlink_metadata(&self.path)
            .is_ok_and(|file| file.file_type().is_socket() && (file.dev(), file.ino()) == self.identity);
        if ours && let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}

/// Makes the socket `path` and listens on it: mode 0600, or 0660 and of group `group`.
///
/// # Errors
/// [`ClaimError`]; in each case whatever had the name before has it still.
pub fn claim(path: &Path, group: Option<&str>) -> Result<Claimed, ClaimError> {
    let bytes = path.as_os_str().as_bytes().len();
    if bytes > MOST_PATH_BYTES {
        return Err(ClaimError::TooLong {
            path: name(path),
            bytes,
        });
    }
    let group = group.map(find_group).transpose()?;
    // Two agents that start together: the second looks after the first has made its socket.
    let _alone = lock_directory(path);
    clear(path)?;
    create(path, group)
}

/// Listens on a new socket. Nobody can connect before `listen`, and the file's mode has been narrow since `bind`.
fn create(path: &Path, group: Option<Gid>) -> Result<Claimed, ClaimError> {
    let failed = |operation| move |errno| refused(operation, path, errno);
    let socket = socket(
        AddressFamily::Unix,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        None,
    )
    .map_err(failed("create a socket for"))?;
    // `bind` gives the file the mode of the socket's own inode, less the umask: no process-wide umask to change and put back.
    fchmod(&socket, Mode::S_IRUSR | Mode::S_IWUSR).map_err(failed("restrict"))?;
    let address = UnixAddr::new(path).map_err(failed("name"))?;
    bind(socket.as_raw_fd(), &address).map_err(failed("create the control socket"))?;
    let handle = open(
        path,
        OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC,
        Mode::empty(),
    );
    let handle = File::from(handle.map_err(failed("open"))?);
    let made = handle
        .metadata()
        .map_err(|source| failed("look at")(errno_of(&source)))?;
    let file = SocketFile {
        path: path.to_owned(),
        identity: (made.dev(), made.ino()),
    };
    if let Some(group) = group {
        fchownat(&handle, "", None, Some(group), AtFlags::AT_EMPTY_PATH).map_err(failed("change the group of"))?;
    }
    // The last step opens it to the group. Through /proc, since the name may mean something else by now and this descriptor cannot.
    let mode = if group.is_some() { 0o660 } else { 0o600 };
    std::fs::set_permissions(
        format!("/proc/self/fd/{}", handle.as_raw_fd()),
        Permissions::from_mode(mode),
    )
    .map_err(|source| failed("set the mode of")(errno_of(&source)))?;
    let backlog = Backlog::new(BACKLOG).map_err(failed("listen on"))?;
    listen(&socket, backlog).map_err(failed("listen on"))?;
    Ok(Claimed {
        listener: UnixListener::from(socket),
        file,
    })
}

/// Makes sure that nothing has the name: removes a socket nobody listens on.
fn clear(path: &Path) -> Result<(), ClaimError> {
    let found = match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(refused("look at", path, errno_of(&error))),
        Ok(found) => found,
    };
    if !found.file_type().is_socket() {
        return Err(ClaimError::NotASocket {
            path: name(path),
            kind: kind(found.file_type()),
        });
    }
    match connect_at_once(path) {
        Ok(stream) => Err(ClaimError::Taken {
            path: name(path),
            who: who_listens(stream),
        }),
        Err(Errno::EAGAIN) => Err(ClaimError::Taken {
            path: name(path),
            who: "something that listens and does not answer".into(),
        }),
        Err(Errno::ENOENT) => Ok(()),
        Err(Errno::ECONNREFUSED) => {
            let same = std::fs::symlink_metadata(path)
                .is_ok_and(|now| (now.dev(), now.ino()) == (found.dev(), found.ino()) && now.file_type().is_socket());
            match std::fs::remove_file(path) {
                _ if !same => Ok(()),
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(refused(
                    "replace the socket of an agent that has ended,",
                    path,
                    errno_of(&error),
                )),
                _ => Ok(()),
            }
        }
        Err(Errno::EPROTOTYPE) => Err(ClaimError::NotASocket {
            path: name(path),
            kind: "socket of another type",
        }),
        Err(errno) => Err(refused("connect to", path, errno)),
    }
}

/// Connects without waiting for a listener that has no room.
fn connect_at_once(path: &Path) -> Result<UnixStream, Errno> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket: OwnedFd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(UnixStream::from(socket))
}

/// `another agent (pid 4711, watching /models)`, or as much of it as can be found out.
fn who_listens(stream: UnixStream) -> String {
    // Of the process that called `listen`; 0 when it is in a namespace that we cannot see.
    let pid = getsockopt(&stream, sockopt::PeerCredentials)
        .ok()
        .map(|peer| peer.pid())
        .filter(|pid| *pid > 0);
    let pid = pid.map_or_else(|| "pid unknown".to_owned(), |pid| format!("pid {pid}"));
    match roots_of(stream) {
        Ok(roots) => {
            let roots: Vec<String> = roots.iter().map(|root| crate::units::printable(root)).collect();
            format!("another agent ({pid}, watching {})", roots.join(", "))
        }
        Err(_) => format!("another agent or program ({pid}, does not answer)"),
    }
}

fn roots_of(mut stream: UnixStream) -> io::Result<Vec<String>> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(&protocol::encode_request(&Request::Status)?)?;
    let mut line = Vec::new();
    BufReader::new(stream.take(1 << 20)).read_until(b'\n', &mut line)?;
    match serde_json::from_slice(&line)? {
        Reply::Status(status) => Ok(status.roots),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Holds the directory for as long as the socket is looked for and made. Where somebody else holds it for long, or where it cannot be locked,
/// two agents that start in the same millisecond could still meet: `bind` then refuses the second.
fn lock_directory(path: &Path) -> Option<Flock<File>> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let mut directory = File::open(parent.unwrap_or(Path::new("."))).ok()?;
    let until = Instant::now() + PATIENCE;
    loop {
        match Flock::lock(directory, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Some(lock),
            Err((back, Errno::EWOULDBLOCK)) if Instant::now() < until => directory = back,
            Err(_) => return None,
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn find_group(name: &str) -> Result<Gid, ClaimError> {
    match Group::from_name(name) {
        Ok(Some(group)) => Ok(group.gid),
        _ => Err(ClaimError::NoGroup(crate::units::printable(name))),
    }
}

fn kind(kind: std::fs::FileType) -> &'static str {
    if kind.is_file() {
        "regular file"
    } else if kind.is_dir() {
        "directory"
    } else if kind.is_symlink() {
        "symbolic link"
    } else {
        "device or pipe"
    }
}

fn refused(operation: &'static str, path: &Path, errno: Errno) -> ClaimError {
    let remedy = match errno {
        Errno::EACCES | Errno::EPERM => "run with sudo, or give --socket a path in a directory that you may write to",
        Errno::ENOENT | Errno::ENOTDIR => "create its directory, or give another --socket",
        Errno::EADDRINUSE => "another agent took it just now: stop that one, or give another --socket",
        _ => "give another --socket",
    };
    ClaimError::Io {
        operation,
        path: name(path),
        source: errno.into(),
        remedy,
    }
}

fn errno_of(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}

fn name(path: &Path) -> String {
    crate::units::printable(&path.to_string_lossy())
}
