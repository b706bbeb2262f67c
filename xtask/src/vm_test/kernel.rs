//! A packaged kernel: found, fetched, verified, unpacked, and kept for the next time.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use super::apt::{Apt, Package};
use crate::workspace::run;

/// What the machine needs of a kernel.
pub struct Files {
    /// As `uname -r` says.
    pub release: String,
    /// What QEMU boots.
    pub image: PathBuf,
    /// Directory of its modules.
    pub modules: PathBuf,
}

/// The newest kernel whose package's name begins with `prefix`, unpacked below `place`: the one in the lists of the machine, or where these have none that of the first
/// of `suites` which has one.
pub fn fetch(prefix: &str, suites: &[&str], place: &Path) -> Result<Files> {
    let packages = place.join("packages");
    fs::create_dir_all(&packages).with_context(|| format!("make {}", packages.display()))?;
    let own = Apt::own();
    if let Some(package) = own.newest(prefix)? {
        return unpacked(&own, &package, &packages, place);
    }
    let mut troubles = Vec::new();
    for suite in suites {
        match of_suite(prefix, suite, &packages, place) {
            Ok(files) => return Ok(files),
            Err(error) => troubles.push(format!("{suite}: {error:#}")),
        }
    }
    bail!("no {prefix}* for clouds: not in apt's lists; {}", troubles.join("; "))
}

/// From a suite that the machine does not follow. What was had before is taken as it is, without the network.
fn of_suite(prefix: &str, suite: &str, packages: &Path, place: &Path) -> Result<Files> {
    let apt = Apt::of_suite(suite, place)?;
    let known = apt.newest(prefix)?;
    if let Some(package) = known.filter(|package| kept(package, packages).is_some()) {
        return unpacked(&apt, &package, packages, place);
    }
    eprintln!("fetching the lists of {suite}");
    apt.update()?;
    let package = apt.newest(prefix)?.context("it has none")?;
    unpacked(&apt, &package, packages, place)
}

fn unpacked(apt: &Apt, package: &Package, packages: &Path, place: &Path) -> Result<Files> {
    let Package { name, version, .. } = package;
    let archive = match kept(package, packages) {
        Some(kept) => kept,
        None => {
            eprintln!("fetching {name} {version}");
            apt.download(package, packages)?;
            kept(package, packages).with_context(|| {
                let packages = packages.display();
                format!("what was fetched as {name} is not what apt's lists say: remove {packages}")
            })?
        }
    };
    let unpacked = place.join("kernels").join(format!("{name}_{version}"));
    if !unpacked.exists() {
        let new = unpacked.with_extension("new");
        let _ = fs::remove_dir_all(&new);
        fs::create_dir_all(&new)?;
        run(Command::new("dpkg-deb").arg("--extract").arg(&archive).arg(&new))?;
        fs::rename(&new, &unpacked)?;
    }
    files_in(&unpacked)
}

/// The archive of a package that was fetched before, if it is the one that the lists mean. apt writes a colon in its name in another way.
fn kept(package: &Package, packages: &Path) -> Option<PathBuf> {
    let begins = format!("{}_", package.name);
    let entries = fs::read_dir(packages).ok()?.flatten();
    let mut archives = entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&begins))
        .map(|entry| entry.path());
    archives.find(|path| hash_of(path).is_ok_and(|hash| hash == package.hash))
}

fn files_in(unpacked: &Path) -> Result<Files> {
    // In usr/ since Debian 13.
    let places = ["lib/modules", "usr/lib/modules"].map(|place| unpacked.join(place));
    let modules = places.iter().find(|place| place.is_dir());
    let modules = modules.with_context(|| format!("no modules in {}", unpacked.display()))?;
    let release = fs::read_dir(modules)
        .with_context(|| format!("list {}", modules.display()))?
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .next()
        .context("the package holds no modules")?;
    Ok(Files {
        image: unpacked.join("boot").join(format!("vmlinuz-{release}")),
        modules: modules.join(&release),
        release,
    })
}

fn hash_of(path: &Path) -> Result<String> {
    let digest = Sha256::digest(fs::read(path)?);
    Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
}
