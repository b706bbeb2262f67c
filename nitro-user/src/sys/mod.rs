//! The only home of `unsafe` and raw system calls; everything above it calls safe functions with owned descriptors.

// In tests a failed unwrap is a failed test; the build without tests still refuses it.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod accounts;
pub mod aside;
pub mod block;
pub mod call_cost;
pub mod capability;
pub mod cgroup;
pub mod charged;
pub mod clock;
pub mod confine;
pub mod evict;
pub mod filter;
pub mod fork;
pub mod fuse;
pub mod holds;
pub mod lent;
pub mod locked;
pub mod measure;
pub mod memory;
pub mod mounts;
pub mod open;
pub mod overlay;
pub mod page_cache;
pub mod pass;
pub mod power;
pub mod proc;
pub mod process;
pub mod readiness;
pub mod stat;
pub mod terminal;
pub mod threads;
pub mod top;
pub mod users;

/// Bytes of a page, from the running kernel.
pub fn page_size() -> u64 {
    use std::sync::OnceLock;
    static SIZE: OnceLock<u64> = OnceLock::new();
    *SIZE.get_or_init(|| {
        let size = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten();
        size.and_then(|size| u64::try_from(size).ok())
            .filter(|size| size.is_power_of_two())
            .unwrap_or(4096)
    })
}
