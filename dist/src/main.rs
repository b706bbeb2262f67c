//! Puts together what is handed out, for `cargo xtask dist`.
//!
//! In: a built agent, the files in `dist/files`, and the agent's own command line. Out: a directory with the binary, the unit and its configuration, man pages,
//! completions, scripts that install and uninstall them, a Debian package, and SHA256SUMS over all. The same inputs give the same bytes: times are
//! `SOURCE_DATE_EPOCH`, or that of the last commit.

mod deb;
mod pages;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use clap::Parser;
use object::read::elf::{FileHeader, ProgramHeader};
use sha2::{Digest, Sha256};

/// Puts together what is handed out.
#[derive(Parser)]
struct Options {
    /// The agent's binary.
    #[arg(long)]
    agent: PathBuf,
    /// Directory for what is made; what was in it goes.
    #[arg(long)]
    out: PathBuf,
}

/// A file that is handed out.
pub struct Product {
    /// Below the directory that is made.
    pub name: String,
    /// What it holds.
    pub bytes: Vec<u8>,
    /// May be executed.
    pub program: bool,
}

impl Product {
    fn new(name: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            name: name.into(),
            bytes: bytes.into(),
            program: false,
        }
    }

    fn program(name: &str, bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            program: true,
            ..Self::new(name, bytes)
        }
    }

    fn mode(&self) -> u32 {
        if self.program { 0o755 } else { 0o644 }
    }
}

fn main() -> Result<()> {
    let options = Options::parse();
    let agent = fs::read(&options.agent).with_context(|| format!("cannot read {}", options.agent.display()))?;
    let is_static = is_static(&agent).with_context(|| format!("{} is no program", options.agent.display()))?;
    let mut products = vec![
        Product::program("nitro-agent", agent),
        Product::new("nitro-agent.service", include_str!("../files/nitro-agent.service")),
        Product::new("nitro-agent.conf", include_str!("../files/nitro-agent.conf")),
        Product::program("install.sh", include_str!("../files/install.sh")),
        Product::program("uninstall.sh", include_str!("../files/uninstall.sh")),
        Product::new("LICENSE", include_str!("../../LICENSE")),
    ];
    products.extend(pages::manual()?);
    products.extend(pages::completions());
    let package = deb::Package {
        version: env!("CARGO_PKG_VERSION"),
        architecture: match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        },
        is_static,
        time: time()?,
    };
    products.push(Product::new(package.file_name(), package.build(&products)?));
    products.push(Product::new("SHA256SUMS", sums(&products)));
    write(&options.out, &products)?;
    let kind = if is_static { "static" } else { "dynamically linked" };
    println!(
        "{}: {} files, the agent is {kind}",
        options.out.display(),
        products.len()
    );
    Ok(())
}

/// Whether a program asks for no loader.
fn is_static(program: &[u8]) -> Result<bool> {
    type Elf = object::elf::FileHeader64<object::Endianness>;
    let header = Elf::parse(program)?;
    let endian = header.endian()?;
    let segments = header.program_headers(endian, program)?;
    Ok(segments
        .iter()
        .all(|segment| segment.p_type(endian) != object::elf::PT_INTERP))
}

/// Seconds since 1970 that all files bear.
fn time() -> Result<u64> {
    if let Ok(given) = std::env::var("SOURCE_DATE_EPOCH") {
        return given.parse().context("SOURCE_DATE_EPOCH is not a number of seconds");
    }
    let commit = Command::new("git")
        .args(["log", "-1", "--format=%ct"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output();
    let commit = commit
        .ok()
        .and_then(|output| String::from_utf8(output.stdout).ok()?.trim().parse().ok());
    // Outside of a repository: when the sources were unpacked.
    let unpacked = || {
        let manifest = fs::metadata(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")).ok()?;
        let time = manifest.modified().ok()?.duration_since(std::time::UNIX_EPOCH);
        Some(time.ok()?.as_secs())
    };
    commit
        .or_else(unpacked)
        .context("no time for the files: set SOURCE_DATE_EPOCH")
}

fn sums(products: &[Product]) -> String {
    let line = |product: &Product| {
        let digest = Sha256::digest(&product.bytes);
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{hex}  {}\n", product.name)
    };
    products.iter().map(line).collect()
}

fn write(out: &Path, products: &[Product]) -> Result<()> {
    if out.exists() {
        fs::remove_dir_all(out).with_context(|| format!("cannot empty {}", out.display()))?;
    }
    for product in products {
        let path = out.join(&product.name);
        let written = path
            .parent()
            .map_or(Ok(()), fs::create_dir_all)
            .and_then(|()| fs::write(&path, &product.bytes))
            .and_then(|()| fs::set_permissions(&path, PermissionsExt::from_mode(product.mode())));
        written.with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
