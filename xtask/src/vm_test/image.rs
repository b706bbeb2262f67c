//! What a machine boots from: a file system in memory with two programs and a few modules, and an empty disk.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use super::kernel::Files;
use crate::workspace::run;

/// The driver of the disk and what it needs; what a kernel has built in, its package lacks.
const MODULES: &[&str] = &[
    "virtio",
    "virtio_ring",
    "virtio_pci_modern_dev",
    "virtio_pci_legacy_dev",
    "virtio_pci",
    "virtio_blk",
    "crc16",
    "libcrc32c",
    "crc32c_generic",
    "mbcache",
    "jbd2",
    "ext4",
];

/// Bytes of the disk, whose file is sparse.
const DISK: u64 = 768 << 20;

/// A machine that can be started.
pub struct Image {
    /// What its kernel is called.
    pub release: String,
    /// The kernel.
    pub kernel: PathBuf,
    /// Its first file system.
    pub initramfs: PathBuf,
    /// Its disk.
    pub disk: Disk,
}

/// The file of a disk: hundreds of megabytes that nobody reads again, gone when this is dropped.
pub struct Disk(pub PathBuf);

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Puts a machine together below `place`.
pub fn build(kernel: &Files, programs: &[PathBuf], place: &Path) -> Result<Image> {
    let root = place.join("root");
    let _ = fs::remove_dir_all(&root);
    for dir in ["bin", "dev", "modules", "proc", "sys", "tmp"] {
        fs::create_dir_all(root.join(dir))?;
    }
    for program in programs {
        let name = program.file_name().context("a program has a name")?;
        fs::copy(program, root.join("bin").join(name)).with_context(|| format!("copy {}", program.display()))?;
    }
    for (index, module) in MODULES.iter().enumerate() {
        if let Some(found) = find(&kernel.modules, module)? {
            copy_module(&found, &root.join("modules").join(format!("{index:02}-{module}.ko")))?;
        }
    }
    let initramfs = place.join("initramfs.cpio");
    pack(&root, &initramfs)?;
    let disk = Disk(place.join("disk.img"));
    let _ = fs::remove_file(&disk.0);
    File::create(&disk.0)?.set_len(DISK)?;
    run(Command::new("mkfs.ext4")
        // Nothing is left for a thread of the kernel to write beside the scenarios.
        .args(["-q", "-F", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0"])
        .arg(&disk.0)
        .env("PATH", with_sbin()))?;
    Ok(Image {
        release: kernel.release.clone(),
        kernel: kernel.image.clone(),
        initramfs,
        disk,
    })
}

fn with_sbin() -> String {
    format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default())
}

/// The file of a module, packed or not.
fn find(dir: &Path, module: &str) -> Result<Option<PathBuf>> {
    for entry in fs::read_dir(dir)
        .with_context(|| format!("list {}", dir.display()))?
        .flatten()
    {
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            if let Some(found) = find(&path, module)? {
                return Ok(Some(found));
            }
        } else {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.split_once(".ko").is_some_and(|(stem, _)| stem == module) {
                return Ok(Some(path));
            }
        }
    }
    Ok(None)
}

fn copy_module(from: &Path, to: &Path) -> Result<()> {
    if from.extension().is_some_and(|extension| extension == "xz") {
        return run(Command::new("xz")
            .args(["--decompress", "--stdout"])
            .arg(from)
            .stdout(File::create(to)?));
    }
    fs::copy(from, to).with_context(|| format!("copy {}", from.display()))?;
    Ok(())
}

/// Packs a directory as the kernel unpacks it; not compressed, since unpacking is emulated as well.
fn pack(root: &Path, to: &Path) -> Result<()> {
    let mut names = Vec::new();
    list(root, Path::new("."), &mut names)?;
    let mut cpio = Command::new("cpio")
        .args(["--create", "--format=newc", "--owner=0:0", "--quiet"])
        .current_dir(root)
        .stdin(Stdio::piped())
        .stdout(File::create(to)?)
        .spawn()
        .context("cannot start cpio")?;
    let mut input = cpio.stdin.take().context("cpio has an input")?;
    for name in names {
        writeln!(input, "{}", name.display())?;
    }
    drop(input);
    let status = cpio.wait()?;
    if !status.success() {
        bail!("cpio ended with {status}");
    }
    Ok(())
}

/// Names below a directory, each after that of the directory it is in.
fn list(root: &Path, below: &Path, names: &mut Vec<PathBuf>) -> Result<()> {
    names.push(below.to_owned());
    for entry in fs::read_dir(root.join(below))?.flatten() {
        let name = below.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            list(root, &name, names)?;
        } else {
            names.push(name);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_disk_outlives_its_machine_however_that_ends() {
        let path = std::env::temp_dir().join(format!("nitro-vm-disk-{}", std::process::id()));
        let failing = |path: &Path| -> Result<Disk> {
            let disk = Disk(path.to_owned());
            File::create(&disk.0)?;
            run(&mut Command::new("false"))?;
            Ok(disk)
        };
        assert!(failing(&path).is_err());
        assert!(!path.exists());
    }
}
