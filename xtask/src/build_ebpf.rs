//! The eBPF object: built without a nightly compiler, stripped of DWARF, the same bit for bit wherever it is built.
//!
//! Beside the object lies a hash of the sources that made it and of the object itself; `--check` compares both, `--check --rebuild` builds again.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use object::build::elf::{Builder, SectionData};
use sha2::{Digest, Sha256};

use crate::workspace::{self, cargo, target, top};

const LINKER_VERSION: &str = "0.10.3";

/// Flags of `build-ebpf`.
#[derive(clap::Args)]
pub struct Options {
    /// Fail when the checked-in object does not match the sources; change nothing.
    #[arg(long)]
    check: bool,
    /// With --check: build the object again and compare it bit for bit.
    #[arg(long, requires = "check")]
    rebuild: bool,
}

/// Fails when the checked-in object does not match the sources.
pub fn check(rebuild: bool) -> Result<()> {
    let stated =
        fs::read_to_string(hash_file()).context("nitro-ebpf/prebuilt has no hash: run `cargo xtask build-ebpf`")?;
    let object = fs::read(object_file()).context("nitro-ebpf/prebuilt has no object: run `cargo xtask build-ebpf`")?;
    if stated != statement(&object)? {
        bail!(
            "the eBPF object does not match its sources: run `cargo xtask build-ebpf` and commit nitro-ebpf/prebuilt"
        );
    }
    if rebuild && build()? != object {
        bail!("the eBPF object differs from one built now: another compiler or linker? run `cargo xtask build-ebpf`");
    }
    println!("nitro-ebpf/prebuilt matches its sources");
    Ok(())
}

/// `cargo xtask build-ebpf`.
pub fn run(options: &Options) -> Result<()> {
    if options.check {
        return check(options.rebuild);
    }
    let object = build()?;
    fs::create_dir_all(object_file().parent().unwrap_or(Path::new(".")))?;
    fs::write(object_file(), &object).context("cannot write the eBPF object")?;
    fs::write(hash_file(), statement(&object)?).context("cannot write the hash of the eBPF sources")?;
    println!("nitro-ebpf/prebuilt/nitro.bpf.o: {} bytes", object.len());
    Ok(())
}

fn object_file() -> PathBuf {
    top().join("nitro-ebpf/prebuilt/nitro.bpf.o")
}

fn hash_file() -> PathBuf {
    top().join("nitro-ebpf/prebuilt/nitro.bpf.o.sha256")
}

/// Two lines: the hash of the sources, the hash of the object.
fn statement(object: &[u8]) -> Result<String> {
    let mut sources = vec![
        top().join("nitro-ebpf/Cargo.toml"),
        top().join("nitro-ebpf/Cargo.lock"),
        top().join("nitro-common/Cargo.toml"),
    ];
    for folder in ["nitro-ebpf/src", "nitro-common/src"] {
        collect(&top().join(folder), &mut sources)?;
    }
    sources.sort();
    let mut hash = Sha256::new();
    for path in &sources {
        let name = path.strip_prefix(top())?.to_string_lossy().into_owned();
        let text = fs::read(path).with_context(|| format!("cannot read {name}"))?;
        hash.update((name.len() as u64).to_le_bytes());
        hash.update(name);
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    }
    Ok(format!(
        "{}  sources\n{}  nitro.bpf.o\n",
        hex(&hash.finalize()),
        hex(&Sha256::digest(object))
    ))
}

fn collect(folder: &Path, into: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, into)?;
        } else {
            into.push(path);
        }
    }
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Compiles and strips; returns the object's bytes.
fn build() -> Result<Vec<u8>> {
    let linker = linker()?;
    let rustc = || Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    let sysroot = String::from_utf8(
        rustc()
            .args(["--print", "sysroot"])
            .output()
            .context("cannot run rustc")?
            .stdout,
    )?;
    let sysroot = sysroot.trim();
    if !Path::new(sysroot).join("lib/rustlib/src/rust/library/core").exists() {
        workspace::run(Command::new("rustup").args(["component", "add", "rust-src"]))
            .context("the sources of core are needed: `rustup component add rust-src`")?;
    }
    let home = std::env::var("CARGO_HOME").or_else(|_| std::env::var("HOME").map(|home| format!("{home}/.cargo")))?;
    let folder = top().join("nitro-ebpf");
    // Paths of the building machine would end up in the object and make it differ from place to place.
    let flags = [
        "--cfg=bpf_target_arch=\"x86_64\"".to_owned(),
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        format!("-Clinker={}", linker.display()),
        format!("--remap-path-prefix={}=/nitro", top().display()),
        format!("--remap-path-prefix={home}=/cargo"),
        format!("--remap-path-prefix={sysroot}=/rust"),
    ];
    let output = target().join("ebpf");
    workspace::run(
        cargo()
            .current_dir(&folder)
            .args([
                "build",
                "--release",
                "--locked",
                "--quiet",
                "--target",
                "bpfel-unknown-none",
                "-Zbuild-std=core",
                "--target-dir",
            ])
            .arg(&output)
            // Stable rustc accepts the unstable options of a build for eBPF with this.
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
            .env_remove("RUSTFLAGS"),
    )?;
    let built = output.join("bpfel-unknown-none/release/nitro");
    strip(&fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?)
}

/// Removes DWARF; BTF stays, the kernel needs it.
fn strip(object: &[u8]) -> Result<Vec<u8>> {
    let mut builder = Builder::read(object).context("the linker made no ELF object")?;
    for section in &mut builder.sections {
        if section.name.starts_with(b".debug") || section.name.starts_with(b".rel.debug") {
            section.delete = true;
        }
    }
    // LLVM names sections and symbols from one string table; the writer wants one for each.
    let names = builder.sections.add();
    names.name = (&b".shstrtab"[..]).into();
    names.sh_type = object::elf::SHT_STRTAB;
    names.sh_addralign = 1;
    names.data = SectionData::SectionString;
    let mut stripped = Vec::new();
    builder
        .write(&mut stripped)
        .context("cannot write the stripped object")?;
    Ok(stripped)
}

/// The bpf-linker below target/, installed when it is not there yet.
fn linker() -> Result<PathBuf> {
    let root = target().join("tools");
    let linker = root.join("bin/bpf-linker");
    if !linker.exists() {
        eprintln!(
            "installing bpf-linker {LINKER_VERSION} into {} (once, about a minute)",
            root.display()
        );
        workspace::run(
            cargo()
                .args([
                    "install",
                    "bpf-linker",
                    "--version",
                    LINKER_VERSION,
                    "--locked",
                    "--quiet",
                    "--root",
                ])
                .arg(&root),
        )?;
    }
    Ok(linker)
}
