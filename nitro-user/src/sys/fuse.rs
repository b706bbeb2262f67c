//! Whether the kernel's FUSE could be used: the device is opened, and nothing is mounted.

use std::{
    fs::{File, OpenOptions},
    io,
    os::fd::AsRawFd,
    path::Path,
};

/// Where the kernel takes the other end of a file system in user space.
pub const DEVICE: &str = "/dev/fuse";

/// `struct fuse_backing_map` of linux/fuse.h.
#[repr(C)]
struct BackingMap {
    fd: i32,
    flags: u32,
    padding: u64,
}

mod request {
    nix::ioctl_write_ptr!(
        /// `FUSE_DEV_IOC_BACKING_OPEN`, 6.9.
        backing_open,
        229,
        1,
        super::BackingMap
    );
}

/// Opens the FUSE device and tells whether the kernel knows the request that hands it a file for passthrough. No file is handed over: a device behind which nothing is
/// mounted is refused with `EPERM` by a kernel that knows the request, and with `ENOTTY` by an older one. Whether passthrough was built in is not told.
///
/// # Errors
/// The device is not there (`ENOENT`), its module is not (`ENODEV`), or it may not be opened (`EACCES`, `EPERM`).
pub fn knows_passthrough() -> io::Result<bool> {
    let device = OpenOptions::new().read(true).write(true).open(Path::new(DEVICE))?;
    Ok(knows(&device))
}

fn knows(device: &File) -> bool {
    let nothing = BackingMap {
        fd: -1,
        flags: 0,
        padding: 0,
    };
    // SAFETY: the descriptor is open for the borrow and the kernel reads one `fuse_backing_map` at most.
    let answer = unsafe { request::backing_open(device.as_raw_fd(), &raw const nothing) };
    !matches!(
        answer,
        Err(nix::errno::Errno::ENOTTY | nix::errno::Errno::ENOSYS | nix::errno::Errno::EINVAL)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_fuse_device_knows_no_passthrough() {
        assert!(!knows(&File::open("/dev/null").unwrap()));
    }

    #[test]
    fn the_kernels_version_and_its_answer_agree() {
        let Ok(knows) = knows_passthrough() else {
            // No FUSE, or not for us: that much is told.
            return;
        };
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
        let version = (numbers.next().unwrap(), numbers.next().unwrap());
        // An older kernel may have it from its distribution, a newer one has it.
        assert!(knows || version < (6, 9), "{release}");
    }
}
