//! What the service sees of the file system, and what of it it may write.

use std::{
    fs::{self, Permissions},
    io::ErrorKind,
    os::unix::fs::{PermissionsExt, chown, symlink},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use nix::mount::{MsFlags, mount};

use super::{Unit, rights::USER};

/// Devices that every service has.
const DEVICES: [&str; 5] = ["null", "zero", "full", "random", "urandom"];

/// Arranges the mounts below `root`, in a namespace of this process's own.
pub fn arrange(unit: &Unit, root: &Path) -> Result<()> {
    // What is mounted on the machine later is seen; what is mounted here is not.
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | MsFlags::MS_SLAVE,
        None::<&str>,
    )
    .context("own mounts")?;
    let own = folders(unit, root)?;
    if unit.yes("PrivateTmp")? {
        for folder in ["tmp", "var/tmp"] {
            memory(&root.join(folder), "mode=1777")?;
        }
    }
    if unit.yes("PrivateDevices")? {
        let devices = root.join("dev");
        memory(&devices, "mode=755")?;
        for name in DEVICES {
            let device = devices.join(name);
            fs::write(&device, "").with_context(|| format!("make {}", device.display()))?;
            bind(&Path::new("/dev").join(name), &device)?;
        }
    }
    if unit.yes("ProtectKernelModules")? && root.join("usr/lib/modules").is_dir() {
        memory(&root.join("usr/lib/modules"), "mode=000")?;
    }
    if unit.yes("ProtectKernelLogs")? && root.join("proc/kmsg").exists() {
        bind(Path::new("/dev/null"), &root.join("proc/kmsg"))?;
    }
    let kernels = |path: &Path| ["proc", "sys"].iter().any(|top| path.starts_with(root.join(top)));
    if unit.yes("ProtectKernelTunables")? {
        bind(&root.join("proc/sys"), &root.join("proc/sys"))?;
        read_only(&root.join("proc/sys"))?;
        for point in below(&root.join("sys"))? {
            read_only(&point)?;
        }
    } else {
        ensure!(
            !unit.yes("ProtectControlGroups")?,
            "ProtectControlGroups= alone is not known here"
        );
    }
    match (unit.last("ProtectSystem"), unit.last("ProtectHome")) {
        // All is read-only, homes among it.
        (Some("strict"), None | Some("read-only")) => {
            let private = [root.join("tmp"), root.join("var/tmp"), root.join("dev")];
            let points = below(root)?;
            for point in points.iter().filter(|point| !kernels(point)) {
                if !private.iter().any(|private| point.starts_with(private)) {
                    read_only(point)?;
                }
            }
        }
        other => bail!("ProtectSystem= and ProtectHome= of {other:?} are not known here"),
    }
    for folder in own {
        bind(&folder, &folder)?;
        let writable = MsFlags::MS_BIND | MsFlags::MS_REMOUNT;
        mount(None::<&str>, &folder, None::<&str>, writable, None::<&str>)
            .with_context(|| format!("write to {}", folder.display()))?;
    }
    Ok(())
}

/// Makes the directories that are the service's own, where systemd makes them for a user that exists while the service runs.
fn folders(unit: &Unit, root: &Path) -> Result<Vec<PathBuf>> {
    let mut own = Vec::new();
    if let Some(name) = unit.last("StateDirectory") {
        let private = root.join("var/lib/private");
        make(&private, 0o700, None)?;
        make(&private.join(name), unit.mode("StateDirectoryMode", 0o755)?, Some(USER))?;
        let link = root.join("var/lib").join(name);
        match symlink(Path::new("private").join(name), &link) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(error).with_context(|| format!("make {}", link.display()));
            }
            _ => own.push(private.join(name)),
        }
    }
    if let Some(name) = unit.last("RuntimeDirectory") {
        let folder = root.join("run").join(name);
        make(&folder, unit.mode("RuntimeDirectoryMode", 0o755)?, Some(USER))?;
        own.push(folder);
    }
    Ok(own)
}

fn make(folder: &Path, mode: u32, owner: Option<u32>) -> Result<()> {
    let made = fs::create_dir(folder)
        .or_else(|error| if folder.is_dir() { Ok(()) } else { Err(error) })
        .and_then(|()| fs::set_permissions(folder, Permissions::from_mode(mode)))
        .and_then(|()| chown(folder, owner, owner));
    made.with_context(|| format!("make {}", folder.display()))
}

fn memory(on: &Path, options: &str) -> Result<()> {
    mount(Some("tmpfs"), on, Some("tmpfs"), MsFlags::MS_NOSUID, Some(options))
        .with_context(|| format!("an empty {}", on.display()))
}

fn bind(from: &Path, on: &Path) -> Result<()> {
    mount(Some(from), on, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .with_context(|| format!("{} on {}", from.display(), on.display()))
}

fn read_only(point: &Path) -> Result<()> {
    let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(None::<&str>, point, None::<&str>, flags, None::<&str>)
        .with_context(|| format!("make {} read-only", point.display()))
}

/// The mount points at and below `top`.
fn below(top: &Path) -> Result<Vec<PathBuf>> {
    let table = fs::read_to_string("/proc/self/mountinfo").context("read the mount table")?;
    let points = table.lines().filter_map(|line| line.split(' ').nth(4));
    Ok(points
        .map(PathBuf::from)
        .filter(|point| point.starts_with(top))
        .collect())
}
