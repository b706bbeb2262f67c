//! Which package of a kernel there is, and how apt gets it: from the lists that the machine has, or from lists of our own for a suite that it does not follow.
//!
//! In: the beginning of a package's name, and suites of Debian. Out: names, versions, hashes, and files. Nothing below /etc/apt and /var/lib/apt changes: the lists of
//! other suites lie below the place that is given, and the mirror is the one that the machine's own sources name.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

use crate::workspace::run;

/// What Debian signs its archives with, in all releases of the last years.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Ends the names of Debian's kernels for clouds: their drivers are those of virtual machines.
const FLAVOUR: &str = "-cloud-amd64";

/// How apt is called.
pub struct Apt {
    /// What is read after the machine's own configuration; nothing for the machine's own lists.
    config: Option<PathBuf>,
}

/// A package that apt's lists have.
#[derive(Debug, PartialEq, Eq)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// SHA-256 of its archive, in hexadecimal.
    pub hash: String,
}

impl Apt {
    /// With the lists of the machine.
    pub fn own() -> Self {
        Self { config: None }
    }

    /// With lists of `suite` alone, below `place`. They are what the last [`Apt::update`] left: none at first.
    ///
    /// # Errors
    /// Where no mirror of Debian is known, or nothing can be written.
    pub fn of_suite(suite: &str, place: &Path) -> Result<Self> {
        let place = place.join("apt").join(suite);
        for dir in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(place.join(dir)).with_context(|| format!("make {dir} in {}", place.display()))?;
        }
        let mirror = mirror()?;
        let signed = if Path::new(KEYRING).exists() {
            format!(" signed-by={KEYRING}")
        } else {
            String::new()
        };
        let sources = place.join("sources.list");
        let line = format!("deb [arch=amd64 target=Packages lang=none{signed}] {mirror} {suite} main\n");
        fs::write(&sources, line).with_context(|| format!("write {}", sources.display()))?;
        let config = place.join("apt.conf");
        fs::write(&config, configuration(&place)).with_context(|| format!("write {}", config.display()))?;
        Ok(Self { config: Some(config) })
    }

    /// Fetches its lists, if they are our own.
    ///
    /// # Errors
    /// apt's.
    pub fn update(&self) -> Result<()> {
        match &self.config {
            // Lists that cannot be fetched are no more than a warning otherwise, and then it seems that a suite has no kernel.
            Some(_) => {
                run(self
                    .command("apt-get")
                    .args(["-q", "-q", "--option", "APT::Update::Error-Mode=any", "update"]))
            }
            None => Ok(()),
        }
    }

    /// The newest kernel whose package's name begins with `prefix`; none where the lists have none.
    ///
    /// # Errors
    /// apt's.
    pub fn newest(&self, prefix: &str) -> Result<Option<Package>> {
        let names = said_by(self.command("apt-cache").args(["pkgnames", prefix]))?;
        let Some(name) = newest(&names, prefix) else {
            return Ok(None);
        };
        let about = said_by(self.command("apt-cache").args(["show", "--no-all-versions", name]))?;
        package(name, &about).map(Some)
    }

    /// Puts the archive of a package into `dir`.
    ///
    /// # Errors
    /// apt's.
    pub fn download(&self, package: &Package, dir: &Path) -> Result<()> {
        // Not as the user `_apt`, who may not write there.
        let done = run(self
            .command("apt-get")
            .args(["-q", "-q", "download", "--option", "APT::Sandbox::User=root"])
            .arg(format!("{}={}", package.name, package.version))
            .current_dir(dir));
        done.with_context(|| {
            format!(
                "fetch {} {}: where the mirror has it no more, apt-get update",
                package.name, package.version
            )
        })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        if let Some(config) = &self.config {
            command.arg("--config-file").arg(config);
        }
        command
    }
}

/// What is different from the machine's own configuration; what it says of proxies and the like stays.
fn configuration(place: &Path) -> String {
    let place = place.display();
    format!(
        r#"Dir::Etc::SourceList "{place}/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::State::Lists "{place}/lists";
Dir::State::Status "/dev/null";
Dir::Cache "{place}/cache";
APT::Sandbox::User "root";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
"#
    )
}

/// Where the machine has Debian from.
fn mirror() -> Result<String> {
    let about = fs::read_to_string("/etc/os-release").context("read /etc/os-release")?;
    let codename = codename(&about).context("this is no release of Debian: its kernels are had on Debian alone")?;
    let format = "$(REPO_URI)|$(RELEASE)|$(CODENAME)|$(COMPONENT)";
    let targets = said_by(Command::new("apt-get").args(["indextargets", "--format", format, "Created-By: Packages"]))?;
    mirror_in(&targets, &codename)
        .with_context(|| format!("no source of apt's is Debian {codename}: add one, then apt-get update"))
}

/// The name of this release of Debian; none for other distributions, whose mirrors have other suites.
fn codename(os_release: &str) -> Option<String> {
    let field = |name: &str| {
        let line = os_release.lines().find_map(|line| line.strip_prefix(name));
        line.map(|value| value.trim().trim_matches('"').to_owned())
    };
    (field("ID=")? == "debian").then(|| field("VERSION_CODENAME="))?
}

/// The mirror among lines of URI, release, its code name, and component.
fn mirror_in(targets: &str, codename: &str) -> Option<String> {
    targets.lines().find_map(|line| {
        let mut fields = line.split('|');
        let (uri, release, name, component) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        ((release == codename || name == codename) && component == "main").then(|| uri.to_owned())
    })
}

/// The newest of Debian's kernels for clouds among names that begin with `prefix`.
fn newest<'a>(names: &'a str, prefix: &str) -> Option<&'a str> {
    let numbered = names
        .lines()
        .filter_map(|name| Some((number(name.strip_prefix(prefix)?.strip_suffix(FLAVOUR)?)?, name)));
    numbered.max().map(|(_, name)| name)
}

/// `0-48` and `57+deb13`: the numbers, of which the first counts most.
fn number(version: &str) -> Option<Vec<u32>> {
    let (numbers, release) = version.split_once('+').unwrap_or((version, ""));
    if !release.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.') {
        return None;
    }
    numbers.split(['.', '-']).map(|number| number.parse().ok()).collect()
}

/// What apt-cache says about a package. Names and versions become names of files.
fn package(name: &str, about: &str) -> Result<Package> {
    let field = |field: &str| {
        let value = about.lines().find_map(|line| line.strip_prefix(field)).map(str::trim);
        value.with_context(|| format!("apt-cache does not say the {} of {name}", field.trim_end_matches(':')))
    };
    let (version, hash) = (field("Version:")?, field("SHA256:")?);
    let plain = |text: &str| {
        text.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+-.:~".contains(&byte))
    };
    ensure!(
        plain(name) && plain(version),
        "no name or version of a package: {name:?} {version:?}"
    );
    ensure!(
        hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()),
        "no hash of a package: {hash:?}"
    );
    Ok(Package {
        name: name.to_owned(),
        version: version.to_owned(),
        hash: hash.to_ascii_lowercase(),
    })
}

fn said_by(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        bail!("{command:?} ended with {}: {}", output.status, words.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_kernel_is_told_by_numbers() {
        let names = "linux-image-6.1.0-9-cloud-amd64\nlinux-image-6.1.0-48-cloud-amd64-dbg\nlinux-image-6.1.0-47-cloud-amd64\n\
                     linux-image-6.1.0-47-cloud-amd64-unsigned\nlinux-image-6.1.0-46-amd64\n";
        assert_eq!(
            newest(names, "linux-image-6.1."),
            Some("linux-image-6.1.0-47-cloud-amd64")
        );
        let names = "linux-image-6.12.9+bpo-cloud-amd64\nlinux-image-6.12.57+deb12-cloud-amd64\nlinux-image-6.12.57+deb13-cloud-amd64\n\
                     linux-image-6.12.48+deb13.1-cloud-amd64\nlinux-image-6.12.99+deb13-rt-amd64\n";
        assert_eq!(
            newest(names, "linux-image-6.12."),
            Some("linux-image-6.12.57+deb13-cloud-amd64")
        );
        assert_eq!(newest(names, "linux-image-6.1."), None, "6.12 is no 6.1");
        assert_eq!(newest("", "linux-image-6.12."), None);
    }

    #[test]
    fn other_names_are_no_kernels() {
        for name in [
            "linux-image-6.12.-cloud-amd64",
            "linux-image-6.12.x-cloud-amd64",
            "linux-image-6.12.1+../../x-cloud-amd64",
            "linux-image-6.12.1 2-cloud-amd64",
            "linux-image-6.12.99999999999-cloud-amd64",
            "linux-image-6.12.",
        ] {
            assert_eq!(newest(name, "linux-image-6.12."), None, "{name}");
        }
    }

    #[test]
    fn what_apt_says_of_a_package_is_looked_at() {
        let hash = "0123456789abcdef".repeat(4);
        let said = |version: &str, hash: &str| {
            package(
                "linux",
                &format!("Package: linux\nVersion: {version}\nSHA256: {hash}\n"),
            )
        };
        let found = said("6.12.57-1~bpo12+1", &hash).unwrap();
        assert_eq!(found.version, "6.12.57-1~bpo12+1");
        assert_eq!(found.hash, hash);
        assert!(said("1/../../etc", &hash).is_err());
        assert!(said("1", "../../x").is_err());
        assert!(package("linux", "Package: linux\n").is_err());
        assert!(package("../linux", &format!("Version: 1\nSHA256: {hash}\n")).is_err());
    }

    #[test]
    fn the_mirror_is_that_of_this_release() {
        let targets = "http://a/security/|twelve-security|twelve-security|main\nhttp://a/debian/|twelve|$(CODENAME)|contrib\n\
                       http://a/debian/|twelve|$(CODENAME)|main\nhttp://b/debian/|eleven|eleven|main\n";
        assert_eq!(mirror_in(targets, "twelve").as_deref(), Some("http://a/debian/"));
        assert_eq!(mirror_in(targets, "thirteen"), None);
        let by_kind = "http://a/debian/|oldstable|twelve|main\n";
        assert_eq!(mirror_in(by_kind, "twelve").as_deref(), Some("http://a/debian/"));
        let debian = "PRETTY_NAME=\"Debian\"\nVERSION_CODENAME=twelve\nID=debian\n";
        assert_eq!(codename(debian).as_deref(), Some("twelve"));
        assert_eq!(codename("ID=ubuntu\nVERSION_CODENAME=noble\n"), None);
    }
}
