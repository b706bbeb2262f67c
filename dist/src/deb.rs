//! A Debian package, made without Debian's tools.
//!
//! In: the products, by name. Out: the bytes of a `.deb`: an `ar` archive of `debian-binary`, `control.tar.gz` and `data.tar.gz`, everything root's and of one time.

use std::{collections::BTreeSet, io::Write, path::Path};

use anyhow::{Context, Result};
use flate2::{Compression, GzBuilder};
use md5::{Digest, Md5};

use crate::Product;

/// The configuration: kept when it was changed, removed by a purge.
const CONFIGURATION: &str = "etc/nitro-agent/nitro-agent.conf";

/// What goes into a package beside its files.
pub struct Package {
    /// Of the agent.
    pub version: &'static str,
    /// By Debian's name.
    pub architecture: &'static str,
    /// Whether the agent needs no library.
    pub is_static: bool,
    /// Seconds since 1970.
    pub time: u64,
}

struct Installed {
    path: String,
    mode: u32,
    bytes: Vec<u8>,
}

impl Package {
    /// `nitro-agent_0.1.0_amd64.deb`.
    pub fn file_name(&self) -> String {
        format!("nitro-agent_{}_{}.deb", self.version, self.architecture)
    }

    /// The package's bytes.
    ///
    /// # Errors
    /// A product is missing.
    pub fn build(&self, products: &[Product]) -> Result<Vec<u8>> {
        let files = self.files(products)?;
        let control = self.control(&files);
        let mut package = ar::Builder::new(Vec::new());
        let data = self.archive(&files)?;
        for (name, bytes) in [
            ("debian-binary", b"2.0\n".to_vec()),
            ("control.tar.gz", self.archive(&control)?),
            ("data.tar.gz", data),
        ] {
            let mut header = ar::Header::new(name.into(), bytes.len() as u64);
            header.set_mode(0o100_644);
            header.set_mtime(self.time);
            package.append(&header, bytes.as_slice())?;
        }
        Ok(package.into_inner()?)
    }

    /// Where each product goes.
    fn files(&self, products: &[Product]) -> Result<Vec<Installed>> {
        let mut files = Vec::new();
        let take = |name: &str| {
            let product = products.iter().find(|product| product.name == name);
            product.with_context(|| format!("{name} was not made"))
        };
        for (name, path) in [
            ("nitro-agent", "usr/bin/nitro-agent"),
            ("nitro-agent.service", "usr/lib/systemd/system/nitro-agent.service"),
            ("nitro-agent.conf", CONFIGURATION),
            ("LICENSE", "usr/share/doc/nitro-agent/copyright"),
            (
                "completions/nitro-agent.bash",
                "usr/share/bash-completion/completions/nitro-agent",
            ),
            (
                "completions/_nitro-agent",
                "usr/share/zsh/vendor-completions/_nitro-agent",
            ),
            (
                "completions/nitro-agent.fish",
                "usr/share/fish/vendor_completions.d/nitro-agent.fish",
            ),
        ] {
            let product = take(name)?;
            files.push(Installed {
                path: path.into(),
                mode: product.mode(),
                bytes: product.bytes.clone(),
            });
        }
        for product in products {
            if let Some(page) = product.name.strip_prefix("man/") {
                files.push(Installed {
                    path: format!("usr/share/man/man1/{page}.gz"),
                    mode: 0o644,
                    bytes: self.compressed(&product.bytes)?,
                });
            }
        }
        let changes = include_bytes!("../../CHANGELOG.md");
        files.push(Installed {
            path: "usr/share/doc/nitro-agent/changelog.gz".into(),
            mode: 0o644,
            bytes: self.compressed(changes)?,
        });
        files.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(files)
    }

    fn control(&self, files: &[Installed]) -> Vec<Installed> {
        let kib: usize = files.iter().map(|file| file.bytes.len().div_ceil(1024)).sum();
        let depends = if self.is_static { "" } else { "Depends: libc6\n" };
        let fields = format!(
            "Package: nitro-agent\nVersion: {}\nArchitecture: {}\nMaintainer: The nitro-agent authors <nitro-agent@localhost>\nInstalled-Size: {kib}\n{depends}Section: admin\nPriority: optional\nDescription: {}\n",
            self.version,
            self.architecture,
            include_str!("../files/debian/description").trim_end(),
        );
        let sum = |file: &Installed| {
            let digest = Md5::digest(&file.bytes);
            let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{hex}  {}\n", file.path)
        };
        // Of a configuration, dpkg keeps the sum itself.
        let kept = files.iter().filter(|file| file.path != CONFIGURATION);
        let sums: String = kept.map(sum).collect();
        let part = |path: &str, mode, bytes: &str| Installed {
            path: path.into(),
            mode,
            bytes: bytes.into(),
        };
        vec![
            part("control", 0o644, &fields),
            part("conffiles", 0o644, &format!("/{CONFIGURATION}\n")),
            part("md5sums", 0o644, &sums),
            part("postinst", 0o755, include_str!("../files/debian/postinst")),
            part("prerm", 0o755, include_str!("../files/debian/prerm")),
            part("postrm", 0o755, include_str!("../files/debian/postrm")),
        ]
    }

    /// A compressed archive of the files and of the directories that lead to them.
    fn archive(&self, files: &[Installed]) -> Result<Vec<u8>> {
        let mut archive = tar::Builder::new(Vec::new());
        let mut made = BTreeSet::new();
        for file in files {
            let mut above: Vec<&Path> = Path::new(&file.path).ancestors().skip(1).collect();
            above.reverse();
            for folder in above {
                if made.insert(folder.to_owned()) {
                    let name = format!("./{}/", folder.display()).replace("//", "/");
                    let mut header = self.header(tar::EntryType::Directory, 0o755, 0);
                    archive.append_data(&mut header, name, std::io::empty())?;
                }
            }
            let mut header = self.header(tar::EntryType::Regular, file.mode, file.bytes.len() as u64);
            archive.append_data(&mut header, format!("./{}", file.path), file.bytes.as_slice())?;
        }
        self.compressed(&archive.into_inner()?)
    }

    fn header(&self, kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(size);
        header.set_mtime(self.time);
        header.set_uid(0);
        header.set_gid(0);
        header
    }

    /// Without a name or a time in it.
    fn compressed(&self, bytes: &[u8]) -> Result<Vec<u8>> {
        let mut writer = GzBuilder::new().write(Vec::new(), Compression::best());
        writer.write_all(bytes)?;
        Ok(writer.finish()?)
    }
}
