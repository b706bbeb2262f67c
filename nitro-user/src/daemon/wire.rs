//! From the wire of the event source to the values of the engine. Pure.

use nitro_common::{AccessEvent, Hook, flags};

use crate::{
    engine::{
        Access, AccessKind,
        input::{FileCounts, MachineMemory},
    },
    source::{attach::EventMode, ebpf::ThreadCounts},
    sys::memory::MemoryState,
    units::{ByteRange, FileId, Moment},
};

/// The file that an event is about.
pub(super) fn file_of(event: &AccessEvent) -> FileId {
    FileId {
        device: event.device,
        inode: event.inode,
    }
}

/// Its bytes.
pub(super) fn range_of(event: &AccessEvent) -> ByteRange {
    ByteRange::new(event.offset, u64::from(event.length))
}

/// The access that an event stands for; `None` for one that is none.
pub(super) fn access_of(mode: EventMode, hook: Hook, event: &AccessEvent) -> Option<Access> {
    let kind = match hook {
        // The page cache has no part in it: as good as opened.
        _ if event.flags & flags::DIRECT != 0 => AccessKind::Open,
        Hook::GetPages | Hook::Read => AccessKind::Read,
        Hook::MapPages | Hook::Fault if event.flags & flags::IN_SYSCALL != 0 => AccessKind::MapPopulate,
        Hook::MapPages | Hook::Fault => AccessKind::MapTouch,
        Hook::Map => AccessKind::Map,
        Hook::Open => AccessKind::Open,
        // The page-cache mode sees the touches themselves.
        Hook::Add if mode == EventMode::Syscalls && event.process != std::process::id() => AccessKind::Brought,
        Hook::Add | Hook::Delete | Hook::Exec | Hook::Exit | Hook::Met => return None,
    };
    Some(Access {
        at: Moment(event.time_ns),
        process: event.process,
        thread: event.thread,
        file: file_of(event),
        generation: event.generation,
        range: range_of(event),
        kind,
        jump: event.flags & flags::JUMP != 0,
        in_order: event.flags & flags::IN_ORDER != 0,
        written: event.flags & flags::WRITTEN != 0,
    })
}

/// The machine's memory as the engine sees it.
pub(super) fn memory_of(state: &MemoryState) -> MachineMemory {
    MachineMemory {
        available: state.available,
        free: state.free,
        room: state.room,
        stalled: state.stalled,
        devices_stalled: state.devices_stalled,
        reclaimed: state.reclaimed,
        restored: state.restored,
    }
}

/// A thread's cursor as the engine counts.
pub(super) fn counts_of(counts: &ThreadCounts) -> FileCounts {
    let state = &counts.state;
    FileCounts {
        file: Some(counts.file),
        calls: state.calls,
        bytes: state.bytes,
        added: state.added_bytes,
        missed: state.missed_bytes,
    }
}
