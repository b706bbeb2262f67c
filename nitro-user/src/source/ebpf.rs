//! The eBPF side, loaded and attached: events, watched files, cursors, counters.
//!
//! Inputs: which files to watch. Outputs: wire events as they are. Owned by the one task that owns the engine; no call here blocks.

mod devices;
mod usage;

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    os::fd::{AsFd, BorrowedFd},
};

use aya::{
    Btf, Ebpf, EbpfError, EbpfLoader,
    maps::{Array, HashMap as BpfHashMap, MapData, MapError, PerCpuArray, RingBuf},
};
use aya_log::EbpfLogger;
use nitro_common::{
    AccessEvent, Counters, CursorKey, CursorState, FileKey, WatchedFile,
    settings::{FILTER_BITS, filter_bit, globals, maps},
};

pub use self::usage::Usage;
use super::{
    attach::{Attachment, EventChoice, EventMode, attach},
    btf::{BtfError, KernelTypes},
    fanotify::FanotifyError,
    price::Price,
    refusal, tracefs,
};
use crate::units::FileId;

/// The object that `cargo xtask build-ebpf` made.
static OBJECT: &[u8] = aya::include_bytes_aligned!("../../../nitro-ebpf/prebuilt/nitro.bpf.o");

/// Where the kernel shows its types.
const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

/// Why there is no event source.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// No BTF: the kernel's structures are unknown.
    #[error(
        "cannot read {KERNEL_BTF}: {0}: use a kernel built with CONFIG_DEBUG_INFO_BTF (every distribution's is, since 2021)"
    )]
    NoBtf(std::io::Error),
    /// BTF that lacks something every program needs.
    #[error(transparent)]
    Btf(#[from] BtfError),
    /// The object or a map was refused.
    #[error("cannot load the eBPF programs: {reason}: run as root, or with CAP_BPF and CAP_PERFMON", reason = refusal::in_one_line(.0.as_ref()))]
    Load(Box<EbpfError>),
    /// A map is missing or of another shape: the object is not the one this binary was made with.
    #[error("the eBPF object lacks the map {0}: rebuild it with `cargo xtask build-ebpf`")]
    Map(&'static str),
    /// A map operation failed.
    #[error("cannot {operation} the eBPF map {map}: {source}")]
    MapAccess {
        /// What was tried.
        operation: &'static str,
        /// On which map.
        map: &'static str,
        /// Why not.
        source: MapError,
    },
    /// The fanotify mode was asked for, and there is none.
    #[error(transparent)]
    Fanotify(#[from] FanotifyError),
    /// No mode could be attached.
    #[error("no event mode works here: {0}")]
    NoMode(String),
}

/// What the source must know before it loads.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Which mode.
    pub events: EventChoice,
    /// Room for so many watched files.
    pub capacity: u32,
    /// Programs that return at once: the yardstick of the cost bench.
    pub empty: bool,
    /// In syscalls mode: nothing but the system calls, and an event for each.
    pub exact: bool,
}

/// What one thread did in one file, removed from or read in the kernel.
#[derive(Clone, Copy, Debug)]
pub struct ThreadCounts {
    /// Which file.
    pub file: FileId,
    /// Which thread.
    pub thread: u32,
    /// Its cursor.
    pub state: CursorState,
}

/// The loaded programs. Dropping it detaches them.
pub struct EbpfSource {
    ring: RingBuf<MapData>,
    watched: BpfHashMap<MapData, FileKey, WatchedFile>,
    filter: Array<MapData, u64>,
    devices: devices::Devices,
    /// Files per bit of the filter, so that a bit is cleared with its last file; 255 stays set.
    bit_users: Vec<u8>,
    cursors: BpfHashMap<MapData, CursorKey, CursorState>,
    counters: PerCpuArray<MapData, Counters>,
    /// Cursors known from events, by process.
    known: HashMap<u32, HashSet<CursorKey>>,
    received: u64,
    logger: Option<EbpfLogger<&'static dyn log::Log>>,
    usage: Usage,
    // Holds the programs and links.
    ebpf: Ebpf,
}

impl EbpfSource {
    /// Loads the object, patches it for this kernel and attaches the first mode that works.
    ///
    /// # Errors
    /// [`SourceError`], each with its remedy.
    pub fn open(options: Options) -> Result<(Self, Attachment), SourceError> {
        let bytes = std::fs::read(KERNEL_BTF).map_err(SourceError::NoBtf)?;
        let types = KernelTypes::parse(&bytes)?;
        let (modes, typed) = match options.events {
            EventChoice::Auto => (vec![EventMode::PageCache, EventMode::Fentry, EventMode::Syscalls], true),
            EventChoice::Classic => (vec![EventMode::PageCache, EventMode::Syscalls], false),
            EventChoice::Only(mode) => (vec![mode], true),
        };
        let mut refusals = Vec::new();
        for mode in modes {
            let mut ebpf = load(&types, mode, options)?;
            let btf = Btf::parse(&bytes, aya::Endianness::default())
                .map_err(|error| SourceError::Load(Box::new(error.into())))?;
            match attach(&mut ebpf, &btf, mode, typed, options.exact) {
                Ok((programs, price)) => {
                    let attachment = Attachment {
                        mode,
                        why: why(options.events, &refusals, price),
                        price,
                        programs,
                    };
                    return Ok((Self::over(ebpf, options.capacity)?, attachment));
                }
                Err(reason) => refusals.push(format!("{mode}: {reason}")),
            }
        }
        Err(SourceError::NoMode(refusals.join("; ")))
    }

    fn over(mut ebpf: Ebpf, capacity: u32) -> Result<Self, SourceError> {
        macro_rules! take {
            ($kind:ident, $name:expr) => {
                $kind::try_from(ebpf.take_map($name).ok_or(SourceError::Map($name))?)
                    .map_err(|_| SourceError::Map($name))?
            };
        }
        let ring = take!(RingBuf, maps::EVENTS);
        let watched = take!(BpfHashMap, maps::WATCHED);
        let filter = take!(Array, maps::FILTER);
        let devices = devices::Devices::new(take!(Array, maps::DEVICES));
        let cursors = take!(BpfHashMap, maps::CURSORS);
        let counters = take!(PerCpuArray, maps::COUNTERS);
        // Programs without a log line leave no log map; that is no fault.
        let logger = EbpfLogger::init(&mut ebpf).ok();
        let bit_users = vec![0; FILTER_BITS as usize];
        Ok(Self {
            ring,
            watched,
            filter,
            devices,
            bit_users,
            cursors,
            counters,
            known: HashMap::new(),
            received: 0,
            logger,
            usage: Usage {
                capacity: u64::from(capacity),
                ..Usage::default()
            },
            ebpf,
        })
    }

    /// Starts watching files. Returns how many found no room in the map.
    ///
    /// # Errors
    /// [`SourceError::MapAccess`] when the kernel refuses for another reason than a full map.
    pub fn watch(&mut self, files: impl IntoIterator<Item = FileId>) -> Result<usize, SourceError> {
        let mut without_room = 0;
        let mut words = HashSet::new();
        for file in files {
            let key = FileKey {
                inode: file.inode,
                device: file.device,
                zero: 0,
            };
            // BPF_NOEXIST: a file that is watched already must not be counted twice in its bit.
            const NO_EXIST: u64 = 1;
            match self.watched.insert(key, WatchedFile::default(), NO_EXIST) {
                Ok(()) => {
                    self.usage.watched += 1;
                    let bit = filter_bit(file.device, file.inode);
                    if let Some(users) = self.bit_users.get_mut(bit as usize) {
                        *users = users.saturating_add(1);
                    }
                    words.insert(bit / 64);
                }
                Err(MapError::SyscallError(call)) if call.io_error.raw_os_error() == Some(libc::EEXIST) => {}
                Err(MapError::SyscallError(call))
                    if matches!(call.io_error.raw_os_error(), Some(libc::E2BIG | libc::ENOMEM)) =>
                {
                    without_room += 1;
                    self.usage.without_room += 1;
                }
                Err(source) => {
                    return Err(SourceError::MapAccess {
                        operation: "insert into",
                        map: maps::WATCHED,
                        source,
                    });
                }
            }
        }
        self.write_words(words)?;
        Ok(without_room)
    }

    /// Stops watching files and forgets their cursors.
    ///
    /// # Errors
    /// [`SourceError::MapAccess`].
    pub fn unwatch(&mut self, files: impl IntoIterator<Item = FileId>) -> Result<(), SourceError> {
        let mut words = HashSet::new();
        for file in files {
            let key = FileKey {
                inode: file.inode,
                device: file.device,
                zero: 0,
            };
            if self.watched.remove(&key).is_err() {
                continue;
            }
            self.usage.watched = self.usage.watched.saturating_sub(1);
            let bit = filter_bit(file.device, file.inode);
            if let Some(users) = self.bit_users.get_mut(bit as usize)
                && *users != u8::MAX
            {
                *users = users.saturating_sub(1);
                words.insert(bit / 64);
            }
            let Self { known, cursors, .. } = self;
            for keys in known.values_mut() {
                keys.retain(|key| {
                    let stays = key.inode != file.inode || key.device != file.device;
                    if !stays {
                        let _ = cursors.remove(key);
                    }
                    stays
                });
            }
        }
        self.write_words(words)
    }

    /// Watches all files of these devices, and of no other device.
    ///
    /// # Errors
    /// [`SourceError::MapAccess`].
    pub fn watch_devices(&mut self, devices: &BTreeSet<u32>) -> Result<(), SourceError> {
        self.devices.set(&mut self.watched, devices)
    }

    fn write_words(&mut self, words: HashSet<u32>) -> Result<(), SourceError> {
        for word in words {
            let users = self.bit_users.iter().skip(word as usize * 64).take(64);
            let bits = users
                .enumerate()
                .fold(0u64, |bits, (bit, users)| bits | u64::from(*users > 0) << bit);
            let source = self.filter.set(word, bits, 0);
            source.map_err(|source| SourceError::MapAccess {
                operation: "write",
                map: maps::FILTER,
                source,
            })?;
        }
        Ok(())
    }

    /// Hands over at most `most` events; returns how many. Fewer than `most` means that the ring is empty.
    ///
    /// Log lines of the programs are passed on as well: what they have to say comes with accesses, and nobody wakes up for it alone.
    pub fn drain(&mut self, most: usize, mut take: impl FnMut(AccessEvent)) -> usize {
        let mut count = 0;
        while count < most {
            let Some(item) = self.ring.next() else { break };
            count += 1;
            self.received += 1;
            let Ok(event) = bytemuck::try_pod_read_unaligned::<AccessEvent>(&item) else {
                continue;
            };
            if event.inode != 0 {
                let key = CursorKey {
                    inode: event.inode,
                    device: event.device,
                    thread: event.thread,
                };
                self.known.entry(event.process).or_default().insert(key);
            }
            take(event);
        }
        self.flush_log();
        count
    }

    /// Takes the cursors of a process on some files: what its threads did since the last time.
    pub fn take_counts(&mut self, process: u32, concerns: impl Fn(FileId) -> bool) -> Vec<ThreadCounts> {
        let Some(keys) = self.known.get_mut(&process) else {
            return Vec::new();
        };
        let mut counts = Vec::new();
        let cursors = &mut self.cursors;
        keys.retain(|key| {
            let file = FileId {
                device: key.device,
                inode: key.inode,
            };
            if !concerns(file) {
                return true;
            }
            if let Ok(state) = cursors.get(key, 0) {
                counts.push(ThreadCounts {
                    file,
                    thread: key.thread,
                    state,
                });
            }
            let _ = cursors.remove(key);
            false
        });
        if keys.is_empty() {
            self.known.remove(&process);
        }
        counts
    }

    /// Bytes that a process has brought into the page cache of the files that `concerns` wants, the kernel's readahead for it included.
    pub fn added_by(&self, process: u32, concerns: impl Fn(FileId) -> bool) -> u64 {
        let keys = self.known.get(&process).into_iter().flatten();
        let concerned = keys.filter(|key| {
            concerns(FileId {
                device: key.device,
                inode: key.inode,
            })
        });
        let states = concerned.filter_map(|key| self.cursors.get(key, 0).ok());
        states.map(|state| state.added_bytes).sum()
    }

    /// Sum over the processors, and events received from the ring.
    ///
    /// # Errors
    /// [`SourceError::MapAccess`].
    pub fn counters(&self) -> Result<(Counters, u64), SourceError> {
        let each = self.counters.get(&0, 0);
        let each = each.map_err(|source| SourceError::MapAccess {
            operation: "read",
            map: maps::COUNTERS,
            source,
        })?;
        let mut sum = Counters::default();
        for counters in each.iter() {
            sum.seen += counters.seen;
            sum.filtered += counters.filtered;
            sum.coalesced += counters.coalesced;
            sum.delivered += counters.delivered;
            sum.dropped += counters.dropped;
            sum.cursors_full += counters.cursors_full;
        }
        Ok((sum, self.received))
    }

    /// Passes the log lines of the eBPF programs on; looks at one word when there are none.
    fn flush_log(&mut self) {
        if let Some(logger) = &mut self.logger {
            logger.flush();
        }
    }

    /// Removes the cursors of threads that have ended without our hearing of it.
    pub fn sweep(&mut self, lives: impl Fn(u32) -> bool) {
        let dead: Vec<CursorKey> = self.cursors.keys().flatten().filter(|key| !lives(key.thread)).collect();
        for key in &dead {
            let _ = self.cursors.remove(key);
        }
        for keys in self.known.values_mut() {
            keys.retain(|key| !dead.contains(key));
        }
        self.known.retain(|_, keys| !keys.is_empty());
    }
}

impl AsFd for EbpfSource {
    /// Readable when the ring holds events.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}

/// Why this mode, and at what price.
fn why(asked: EventChoice, refusals: &[String], price: Option<Price>) -> String {
    let mut reasons: Vec<String> = match asked {
        EventChoice::Only(_) => vec!["as asked".into()],
        _ => refusals.to_vec(),
    };
    match price {
        Some(price) => reasons.push(price.to_string()),
        None if reasons.is_empty() => reasons.push("nothing is paid by other system calls".into()),
        None => {}
    }
    reasons.join("; ")
}

fn load(types: &KernelTypes<'_>, mode: EventMode, options: Options) -> Result<Ebpf, SourceError> {
    let mut offsets = Vec::new();
    for &(global, structure, field) in globals::OFFSETS {
        offsets.push((global, types.offset(structure, field)?));
    }
    let order = globals::FOLIO_ORDER_FIELDS
        .iter()
        .find_map(|field| types.offset("folio", field).ok());
    let registers = types.offset("pt_regs", globals::REGISTERS_SYSCALL_FIELD)?;
    let mut arguments = Vec::new();
    for &(global, field, offset) in globals::REGISTERS {
        arguments.push((global, types.offset("pt_regs", field)? + offset));
    }
    let calls = [
        (globals::CALL_READ, libc::SYS_read),
        (globals::CALL_PREAD64, libc::SYS_pread64),
        (globals::CALL_READV, libc::SYS_readv),
        (globals::CALL_PREADV, libc::SYS_preadv),
        (globals::CALL_PREADV2, libc::SYS_preadv2),
    ]
    // System calls have small numbers.
    .map(|(global, number)| (global, u32::try_from(number).unwrap_or(u32::MAX)));
    let head_mask = 1u64 << (types.enumerator("PG_head")? & 63);
    let own = std::process::id();
    let page_shift = crate::sys::page_size().trailing_zeros();
    let empty = u32::from(options.empty);
    let exact = u32::from(options.exact);
    let adds_wake = u32::from(mode == EventMode::Syscalls);
    let order = order.unwrap_or_default();
    let direct = libc::O_DIRECT.cast_unsigned();
    let records = tracefs::record_offsets();

    let mut loader = EbpfLoader::new();
    // Programs that a mode does not use leave their globals out of the object.
    for (global, offset) in offsets.iter().chain(&arguments) {
        loader.override_global(global, offset, false);
    }
    for (global, offset) in &records {
        loader.override_global(global, offset, false);
    }
    for (global, number) in &calls {
        loader.override_global(global, number, false);
    }
    loader
        .override_global(globals::FOLIO_ORDER, &order, false)
        .override_global(globals::REGISTERS_SYSCALL, &registers, false)
        .override_global(globals::DIRECT_FLAG, &direct, false)
        .override_global(globals::HEAD_MASK, &head_mask, false)
        .override_global(globals::SELF_PROCESS, &own, true)
        .override_global(globals::PAGE_SHIFT, &page_shift, true)
        .override_global(globals::EMPTY, &empty, true)
        .override_global(globals::EXACT, &exact, true)
        .override_global(globals::ADDS_WAKE, &adds_wake, true)
        .map_max_entries(maps::WATCHED, options.capacity);
    loader.load(OBJECT).map_err(|error| SourceError::Load(Box::new(error)))
}
