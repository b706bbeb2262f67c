//! The eBPF programs of nitro-agent.
//!
//! Job: tell user space who accesses, brings in and evicts pages of the watched files, at a price that nobody else notices.
//! Inputs: kernel hooks (`probes/`), settings patched into read-only globals. Outputs: the ring buffer and the maps of `maps.rs`.
//! What it does not do: decide anything beyond "is this file watched" and "does this access say anything new".
#![no_std]
#![no_main]

mod call;
mod cursor;
mod descriptor;
mod emit;
mod guard;
mod kernel;
mod maps;
mod probes;

// The programs contain no reachable panic; a panic path that survived would fail the build or the verifier, not run.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

/// The kernel lets GPL-compatible programs alone use the tracing helpers.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
