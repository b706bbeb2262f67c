//! The maps; their names and sizes are part of the contract in nitro-common.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    btf_maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf},
    macros::btf_map,
};
use nitro_common::{
    AccessEvent, Counters, CursorKey, CursorState, FileKey, WatchedFile,
    settings::{CURSORS as CURSOR_COUNT, FILTER_BITS, RING_BYTES},
};

/// Events for user space.
#[btf_map]
pub static EVENTS: RingBuf<AccessEvent, { RING_BYTES as usize }> = RingBuf::new();

/// Watched files. User space alone inserts, so that allocation on demand is safe; it sets the capacity before loading.
#[btf_map]
pub static WATCHED: HashMap<FileKey, WatchedFile, 65536, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();

/// One bit per hashed file: most foreign accesses end here.
#[btf_map]
pub static FILTER: Array<u64, { (FILTER_BITS / 64) as usize }> = Array::new();

/// One bit per hashed device of those that are watched as a whole; 0 nearly always.
#[btf_map]
pub static DEVICES: Array<u64, 1> = Array::new();

/// Where each thread is in each file.
#[btf_map]
pub static CURSORS: HashMap<CursorKey, CursorState, { CURSOR_COUNT as usize }> = HashMap::new();

/// Processes whose end is worth an event. Least-recently-used goes first: losing one costs a late receipt, no more.
#[btf_map]
pub static READERS: LruHashMap<u32, u32, 8192> = LruHashMap::new();

/// Outcomes of the hook hits.
#[btf_map]
pub static COUNTERS: PerCpuArray<Counters, 1> = PerCpuArray::new();
