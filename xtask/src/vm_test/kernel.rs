//! A packaged kernel: found, fetched, verified, unpacked, and kept for the next time.

use std::{
    fs, iter,
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

/// The newest kernel whose package's name begins with `prefix`, unpacked below `place`: the one in the lists of the machine, or where these have none, or none that can be
/// had, that of the first of `suites` which has one.
pub fn fetch(prefix: &str, suites: &[&str], place: &Path) -> Result<Files> {
    let packages = place.join("packages");
    fs::create_dir_all(&packages).with_context(|| format!("make {}", packages.display()))?;
    let own = iter::once_with(|| ("apt's own lists", of_own_lists(prefix, &packages, place)));
    let others = suites
        .iter()
        .map(|suite| (*suite, of_suite(prefix, suite, &packages, place)));
    first(own.chain(others)).with_context(|| format!("no package {prefix}* of a kernel for clouds can be had"))
}

/// What the first place has that has it; they are asked one after the other. Else what is wrong with each.
fn first<'a, T>(places: impl Iterator<Item = (&'a str, Result<T>)>) -> Result<T> {
    let mut troubles = Vec::new();
    for (place, had) in places {
        match had {
            Ok(had) => return Ok(had),
            Err(error) => troubles.push(format!("{place}: {error:#}")),
        }
    }
    bail!("{}", troubles.join("; "))
}

/// From the lists that the machine has, however old they are.
fn of_own_lists(prefix: &str, packages: &Path, place: &Path) -> Result<Files> {
    let own = Apt::own();
    let package = own.newest(prefix)?.context("they have none")?;
    unpacked(&own, &package, packages, place)
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

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn where_the_machines_own_lists_are_broken_the_suites_are_asked() {
        let mut asked = Vec::new();
        let places = ["own", "bookworm", "trixie"].into_iter().map(|place| {
            asked.push(place);
            let had = match place {
                "own" => Err(anyhow!("apt-cache ended with 100")),
                other => Ok(other),
            };
            (place, had)
        });
        assert_eq!(first(places).unwrap(), "bookworm");
        assert_eq!(asked, ["own", "bookworm"], "nobody is asked without need");
    }

    #[test]
    fn where_none_has_it_what_is_wrong_with_each_is_told() {
        let places = ["own", "bookworm"].map(|place| (place, Err::<(), _>(anyhow!("no network in {place}"))));
        let words = format!("{:#}", first(places.into_iter()).unwrap_err());
        assert_eq!(words, "own: no network in own; bookworm: no network in bookworm");
    }
}
