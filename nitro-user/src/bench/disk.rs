//! A disk of a bench's own: ext4 on a loop device on a sparse file, with the small readahead of an ordinary disk.
//!
//! The loop device reads its file with direct I/O where the file system below allows it, so that dropping the caches leaves
//! no copy below the one that is measured. (Buffered on tmpfs the device is faster, and its copying takes a processor from the
//! reader; direct on a virtual disk it reaches 2.5 GB/s without.)

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};

use super::{
    limit::{DeviceNumber, IoLimit, Limit},
    scratch::ScratchDir,
    sweep, tools,
};

/// What the kernel reads ahead on an ordinary disk, in KiB. Virtual disks come with megabytes, which hides the effect.
const READ_AHEAD_KB: u32 = 128;

/// File system of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// What most have.
    Ext4,
    /// Of 300 MiB at least.
    Xfs,
    /// Of 128 MiB at least.
    Btrfs,
}

impl Format {
    const fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
        }
    }

    /// Whether this machine can make it.
    pub fn is_available(self) -> bool {
        tools::find(&format!("mkfs.{}", self.name())).is_some()
    }

    /// Options of its `mkfs`. Everything is initialised now: a lazy kernel thread would read and write beside the measurement.
    const fn options(self) -> &'static [&'static str] {
        match self {
            Self::Ext4 => &[
                "-q",
                "-F",
                "-m",
                "0",
                "-i",
                "65536",
                "-E",
                "lazy_itable_init=0,lazy_journal_init=0",
            ],
            Self::Xfs | Self::Btrfs => &["-q", "-f"],
        }
    }
}

/// A mounted disk. Unmounted, detached and removed on drop.
#[derive(Debug)]
pub struct TestDisk {
    mount_point: PathBuf,
    device: PathBuf,
    number: DeviceNumber,
    direct: bool,
    format: Format,
    // Last: its drop removes the image, when nothing holds it any more.
    dir: ScratchDir,
}

impl TestDisk {
    /// Makes a disk of `bytes` whose sparse image is in `base`.
    ///
    /// # Errors
    /// When not run as root, or a loop device, mkfs.ext4 or the mount fails.
    pub fn new(base: &Path, bytes: u64) -> Result<Self> {
        Self::formatted(base, bytes, Format::Ext4)
    }

    /// The same with another file system.
    ///
    /// # Errors
    /// As [`TestDisk::new`]; when the machine lacks its `mkfs`.
    pub fn formatted(base: &Path, bytes: u64, format: Format) -> Result<Self> {
        sweep::remember_base(base);
        let dir = ScratchDir::new(base)?;
        let image = dir.path().join("image");
        let file = File::create(&image).with_context(|| format!("create {}", image.display()))?;
        file.set_len(bytes)
            .with_context(|| format!("size {}", image.display()))?;
        drop(file);

        let device = attach(&image)?;
        // From here on a failure must free the device: the value's drop does.
        let mut disk = Self {
            mount_point: dir.path().join("disk"),
            device,
            number: (0, 0),
            direct: false,
            format,
            dir,
        };
        disk.number = disk.read_number()?;
        disk.direct = disk.sysfs("loop/dio")? == "1";
        let mut mkfs = tools::command(&format!("mkfs.{}", format.name()));
        tools::run(mkfs.args(format.options()).arg(&disk.device))?;
        fs::create_dir(&disk.mount_point).with_context(|| format!("create {}", disk.mount_point.display()))?;
        disk.mount()?;
        disk.set_read_ahead_kb(READ_AHEAD_KB)?;
        Ok(disk)
    }

    fn mount(&self) -> Result<()> {
        sweep::rest_if_interrupted();
        mount(
            Some(&self.device),
            &self.mount_point,
            Some(self.format.name()),
            MsFlags::MS_NOATIME,
            None::<&str>,
        )
        .with_context(|| format!("mount {} on {}", self.device.display(), self.mount_point.display()))
    }

    /// Mounts it anew: dropped caches leave the kernel's notes of what was evicted from each file, and to it what is read for the first time then had to be read again.
    ///
    /// # Errors
    /// When somebody uses it, or the mount fails.
    pub fn remount(&self) -> Result<()> {
        sweep::unmount(&self.mount_point);
        self.mount()
    }

    /// Its mount point.
    pub fn path(&self) -> &Path {
        &self.mount_point
    }

    /// The file that its bytes are in.
    pub fn image(&self) -> PathBuf {
        self.dir.path().join("image")
    }

    /// Number of its block device.
    pub fn number(&self) -> DeviceNumber {
        self.number
    }

    /// Whether the loop device reads its image past the page cache.
    pub fn is_direct(&self) -> bool {
        self.direct
    }

    /// Writes back and drops every clean page on the machine: there is no narrower way that also drops metadata.
    ///
    /// # Errors
    /// When not run as root.
    pub fn drop_caches(&self) -> Result<()> {
        nix::unistd::sync();
        fs::write("/proc/sys/vm/drop_caches", "3").context("drop the caches")
    }

    /// Bytes read from the device since it was made.
    ///
    /// # Errors
    /// When sysfs cannot be read.
    pub fn device_bytes_read(&self) -> Result<u64> {
        // Sectors of 512 bytes whatever the device's own size.
        Ok(self.stat(2)? * 512)
    }

    /// Read requests the device has completed.
    ///
    /// # Errors
    /// When sysfs cannot be read.
    pub fn device_reads(&self) -> Result<u64> {
        self.stat(0)
    }

    /// Limits what members of `group` read from this disk.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn limit(&self, group: &IoLimit, limit: Limit) -> Result<()> {
        group.set(self.number, limit)
    }

    /// Sets how far the kernel itself reads ahead.
    ///
    /// # Errors
    /// When sysfs cannot be written.
    pub fn set_read_ahead_kb(&self, kib: u32) -> Result<()> {
        let path = self.sysfs_path("queue/read_ahead_kb");
        fs::write(&path, kib.to_string()).with_context(|| format!("write {}", path.display()))
    }

    fn stat(&self, field: usize) -> Result<u64> {
        let text = self.sysfs("stat")?;
        text.split_whitespace()
            .nth(field)
            .and_then(|word| word.parse().ok())
            .with_context(|| format!("field {field} of {}: {text:?}", self.sysfs_path("stat").display()))
    }

    fn read_number(&self) -> Result<DeviceNumber> {
        let text = self.sysfs("dev")?;
        let (major, minor) = text
            .split_once(':')
            .with_context(|| format!("device number {text:?}"))?;
        Ok((
            major.parse().context("major number")?,
            minor.parse().context("minor number")?,
        ))
    }

    fn sysfs(&self, file: &str) -> Result<String> {
        let path = self.sysfs_path(file);
        Ok(fs::read_to_string(&path)
            .with_context(|| format!("read {}", path.display()))?
            .trim()
            .to_owned())
    }

    fn sysfs_path(&self, file: &str) -> PathBuf {
        Path::new("/sys/block")
            .join(self.device.file_name().unwrap_or_default())
            .join(file)
    }
}

impl Drop for TestDisk {
    fn drop(&mut self) {
        if sweep::is_mounted(&self.mount_point) {
            sweep::unmount(&self.mount_point);
        }
        sweep::detach(&self.device);
    }
}

/// Attaches the image to a free loop device, with direct I/O where that is possible.
fn attach(image: &Path) -> Result<PathBuf> {
    let losetup = |direct: &str| tools::run(tools::command("losetup").args(["--find", "--show", direct]).arg(image));
    let device = losetup("--direct-io=on").or_else(|_| losetup("--direct-io=off"))?;
    Ok(PathBuf::from(device.trim()))
}
