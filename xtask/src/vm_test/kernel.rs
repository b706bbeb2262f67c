//! A packaged kernel: found in apt's lists, fetched, verified, unpacked, and kept for the next time.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

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

/// The newest package in apt's lists whose name begins with `prefix`, unpacked below `place`.
pub fn fetch(prefix: &str, place: &Path) -> Result<Files> {
    let package = newest(prefix)?;
    let about = said_by(Command::new("apt-cache").args(["show", "--no-all-versions", &package]))?;
    let field = |name: &str| about.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let wanted = field("SHA256:").with_context(|| format!("apt-cache does not say the hash of {package}"))?;
    let version = field("Version:").with_context(|| format!("apt-cache does not say the version of {package}"))?;

    let packages = place.join("packages");
    fs::create_dir_all(&packages)?;
    let archive = packages.join(format!("{package}_{}.deb", version.replace(':', "%3a")));
    let found = || -> Option<PathBuf> {
        let names = fs::read_dir(&packages).ok()?.flatten().map(|entry| entry.path());
        names
            .filter(|path| {
                path.file_name()
                    .is_some_and(|name| name.to_string_lossy().starts_with(&format!("{package}_{version}")))
            })
            .find(|path| hash_of(path).is_ok_and(|hash| hash == wanted))
    };
    let archive = match found() {
        Some(kept) => kept,
        None => {
            eprintln!("fetching {package} {version}");
            // Not as the user `_apt`, who may not write here.
            run(Command::new("apt-get")
                .args(["download", "--quiet", "--option", "APT::Sandbox::User=root"])
                .arg(format!("{package}={version}"))
                .current_dir(&packages))?;
            found().with_context(|| format!("{} is not what apt's lists say: remove it", archive.display()))?
        }
    };
    let unpacked = place.join("kernels").join(format!("{package}_{version}"));
    if !unpacked.exists() {
        let new = unpacked.with_extension("new");
        let _ = fs::remove_dir_all(&new);
        fs::create_dir_all(&new)?;
        run(Command::new("dpkg-deb").arg("--extract").arg(&archive).arg(&new))?;
        fs::rename(&new, &unpacked)?;
    }
    files_in(&unpacked)
}

/// The newest of Debian's kernels for clouds: their drivers are those of virtual machines.
fn newest(prefix: &str) -> Result<String> {
    let names = said_by(Command::new("apt-cache").args(["pkgnames", prefix]))?;
    let number = |name: &str| -> Option<u32> { name.strip_prefix(prefix)?.strip_suffix("-cloud-amd64")?.parse().ok() };
    let newest = names.lines().filter_map(|name| Some((number(name)?, name))).max();
    match newest {
        Some((_, name)) => Ok(name.to_owned()),
        None => bail!("apt's lists have no {prefix}*-cloud-amd64: run apt-get update on a Debian that has it"),
    }
}

fn files_in(unpacked: &Path) -> Result<Files> {
    let modules = unpacked.join("lib/modules");
    let release = fs::read_dir(&modules)
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

fn said_by(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?} ended with {}", output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
