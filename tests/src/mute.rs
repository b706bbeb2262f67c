//! A FUSE server that answers until it is told to be silent: from then on it takes requests, and whoever waits for an answer cannot be killed.
//!
//! It serves an empty directory, by the kernel's own protocol: the library that serves stores answers whatever it takes. A process that is stopped would not do, since a
//! request that nobody has taken can be given up.

use std::{
    fs::File,
    io::{Read, Write},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
};

use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
};

/// Longest request, and more than the least that the kernel demands.
const MOST: usize = 64 << 10;

/// Requests: `enum fuse_opcode`.
const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const STATFS: u32 = 17;
const INIT: u32 = 26;
const OPENDIR: u32 = 27;
const READDIR: u32 = 28;
const RELEASEDIR: u32 = 29;
const INTERRUPT: u32 = 36;
const BATCH_FORGET: u32 = 42;

/// A mounted directory. Unmounted on drop, and whoever still waits there is told that it is gone.
#[derive(Debug)]
pub struct Mute {
    place: PathBuf,
    is_silent: Arc<AtomicBool>,
    taken: Arc<AtomicU64>,
    server: Option<JoinHandle<()>>,
}

impl Mute {
    /// Mounts it.
    ///
    /// # Errors
    /// When not run as root, or the kernel has no FUSE.
    pub fn mounted(place: &Path) -> Result<Self> {
        let device = File::options()
            .read(true)
            .write(true)
            .open("/dev/fuse")
            .context("open /dev/fuse")?;
        let options = format!(
            "fd={},rootmode=40000,user_id=0,group_id=0,allow_other",
            device.as_raw_fd()
        );
        mount(
            Some("mute"),
            place,
            Some("fuse"),
            MsFlags::MS_NODEV | MsFlags::MS_NOSUID,
            Some(options.as_str()),
        )
        .with_context(|| format!("mount on {}", place.display()))?;
        let (is_silent, taken) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (silent, count) = (is_silent.clone(), taken.clone());
        let server = std::thread::spawn(move || serve(&device, &silent, &count));
        Ok(Self {
            place: place.to_owned(),
            is_silent,
            taken,
            server: Some(server),
        })
    }

    /// From now on nothing is answered.
    pub fn be_silent(&self) {
        self.is_silent.store(true, Ordering::SeqCst);
    }

    /// Requests that were taken and not answered.
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::SeqCst)
    }
}

impl Drop for Mute {
    fn drop(&mut self) {
        // By force: requests end with an error. The server's device says that it is over.
        if let Err(error) = umount2(&self.place, MntFlags::MNT_FORCE) {
            eprintln!("rig: unmount {}: {error}", self.place.display());
            let _ = umount2(&self.place, MntFlags::MNT_FORCE | MntFlags::MNT_DETACH);
        }
        if let Some(server) = self.server.take() {
            let _ = server.join();
        }
    }
}

/// Until it is unmounted.
fn serve(mut device: &File, is_silent: &AtomicBool, taken: &AtomicU64) {
    let mut request = vec![0; MOST];
    loop {
        match device.read(&mut request) {
            Ok(count) if count >= 40 => {}
            Ok(_) => return,
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN | libc::ENOENT)) => continue,
            Err(_) => return,
        }
        let number = |at: usize| u32::from_ne_bytes([request[at], request[at + 1], request[at + 2], request[at + 3]]);
        let code = number(4);
        if matches!(code, FORGET | BATCH_FORGET | INTERRUPT) {
            continue;
        }
        if is_silent.load(Ordering::SeqCst) {
            taken.fetch_add(1, Ordering::SeqCst);
            continue;
        }
        let (error, body) = match answer(code) {
            Ok(body) => (0, body),
            Err(errno) => (-(errno as i32), Vec::new()),
        };
        let mut reply = Vec::with_capacity(16 + body.len());
        reply.extend((16 + body.len() as u32).to_ne_bytes());
        reply.extend(error.to_ne_bytes());
        reply.extend(&request[8..16]);
        reply.extend(body);
        // Refused where whoever asked has gone.
        let _ = device.write(&reply);
    }
}

/// What is said of an empty directory, as `linux/fuse.h` lays it out.
fn answer(code: u32) -> Result<Vec<u8>, Errno> {
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<u8>>();
    match code {
        // Version 7.31, no readahead, no features, the least that may be written.
        INIT => {
            let mut reply = vec![7, 31, 0, 0, 0, 4096, 1];
            reply.resize(16, 0);
            Ok(words(&reply))
        }
        GETATTR => {
            // Times of validity; then inode 1, no bytes; the mode is the 60th byte of the attributes, the number of links comes after it.
            let mut reply = vec![0; 26];
            reply[4] = 1;
            reply[4 + 15] = libc::S_IFDIR | 0o755;
            reply[4 + 16] = 2;
            reply[4 + 20] = 4096;
            Ok(words(&reply))
        }
        STATFS => {
            let mut reply = vec![0; 20];
            // Sizes of a block and of a name, and of a fragment.
            (reply[10], reply[11], reply[12]) = (4096, 255, 4096);
            Ok(words(&reply))
        }
        OPENDIR => Ok(vec![0; 16]),
        READDIR | RELEASEDIR => Ok(Vec::new()),
        LOOKUP => Err(Errno::ENOENT),
        _ => Err(Errno::ENOSYS),
    }
}
