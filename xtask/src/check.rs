//! What must hold before a change lands, beside the tests.

use anyhow::Result;

use crate::{
    build_ebpf, layers,
    workspace::{self, cargo, top},
};

/// Format, lints, documentation, imports, eBPF object.
pub fn run() -> Result<()> {
    workspace::run(cargo().args(["fmt", "--all", "--check"]))?;
    workspace::run(cargo().current_dir(top().join("nitro-ebpf")).args(["fmt", "--check"]))?;
    workspace::run(cargo().args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--quiet",
        "--",
        "-D",
        "warnings",
    ]))?;
    workspace::run(
        cargo()
            .args(["doc", "--workspace", "--no-deps", "--document-private-items", "--quiet"])
            .env("RUSTDOCFLAGS", "-D warnings"),
    )?;
    layers::run()?;
    build_ebpf::check(false)
}
