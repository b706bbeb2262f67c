//! Where access events come from.
//!
//! Inputs: the kernel. Outputs: [`nitro_common::AccessEvent`]s, counters and cursors as they are on the wire, and what is known of a process. [`events`] is the
//! way in; behind it are eBPF programs ([`ebpf`]) or, without them, [`fanotify`].
//! Nothing here interprets an event.

pub mod attach;
pub mod btf;
pub mod ebpf;
pub mod events;
pub mod fanotify;
pub mod price;
pub mod process;
mod refusal;
pub mod tracefs;
pub mod users;
