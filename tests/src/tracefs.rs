//! Tracefs for as long as a test needs it, where the machine has none mounted.

use std::path::Path;

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// Where the kernel wants it.
const PLACE: &str = "/sys/kernel/tracing";

/// Tracefs is mounted; unmounted on drop if it was not before.
#[derive(Debug)]
pub struct Tracefs {
    ours: bool,
}

impl Tracefs {
    /// Mounts it if it is not.
    ///
    /// # Errors
    /// When not run as root, or the kernel has none.
    pub fn mounted() -> Result<Self> {
        let ours = !Path::new(PLACE).join("events").exists();
        if ours {
            mount(Some("tracefs"), PLACE, Some("tracefs"), MsFlags::empty(), None::<&str>)
                .with_context(|| format!("mount tracefs on {PLACE}"))?;
        }
        Ok(Self { ours })
    }
}

impl Drop for Tracefs {
    fn drop(&mut self) {
        if self.ours
            && let Err(error) = umount2(PLACE, MntFlags::MNT_DETACH)
        {
            eprintln!("rig: unmount {PLACE}: {error}");
        }
    }
}
