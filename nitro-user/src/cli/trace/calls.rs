//! Exact system calls beside what the agent sees: eBPF programs of our own, on the tracepoints of system calls, as long as the recording goes on.

use std::{
    collections::HashSet,
    os::fd::{AsFd, BorrowedFd},
    path::PathBuf,
    sync::Arc,
};

use anyhow::Context;
use nitro_common::{AccessEvent, Hook, flags};

use crate::{
    catalog::{Catalog, exclude::Exclude, identity::Devices, open_roots},
    source::{
        attach::{EventChoice, EventMode},
        ebpf::{EbpfSource, Options},
        price::Price,
    },
    trace::{CallKind, Record},
    units::{ByteRange, FileId, Moment},
};

/// Calls taken at once.
const MOST: usize = 4096;

/// The files below some directories, as they were when the recording began.
pub struct Files {
    catalog: Catalog,
}

impl Files {
    /// Looks through the directories.
    ///
    /// # Errors
    /// One of them cannot be looked at.
    pub fn below(directories: &[PathBuf]) -> anyhow::Result<Self> {
        let roots = open_roots(directories, true)?;
        let (catalog, report) = Catalog::scan(&roots, Arc::new(Devices::default()), Exclude::default());
        report.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        Ok(Self { catalog })
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = FileId> + '_ {
        self.catalog.files().map(|(file, _)| file)
    }

    fn record(&self, file: FileId, at: Moment) -> Option<Record> {
        let place = self.catalog.place(file)?;
        let (_, size) = self.catalog.files().find(|(known, _)| *known == file)?;
        let path = place.root.join(&place.below);
        Some(Record::File { at, file, path, size })
    }
}

/// The programs at work. Dropping this detaches them.
pub struct Calls {
    source: EbpfSource,
    files: Files,
    /// Whose calls are no news.
    agent: u32,
    named: HashSet<FileId>,
    /// What others pay.
    pub price: Option<Price>,
}

impl Calls {
    /// Attaches the programs.
    ///
    /// # Errors
    /// The kernel refuses them, or this user.
    pub fn start(files: Files, agent: u32) -> anyhow::Result<Self> {
        let count = files.all().count() as u64;
        let options = Options {
            events: EventChoice::Only(EventMode::Syscalls),
            capacity: u32::try_from((count * 2).max(1024)).unwrap_or(u32::MAX),
            empty: false,
            exact: true,
        };
        let (mut source, attachment) = EbpfSource::open(options).context("--syscalls")?;
        source.watch(files.all()).context("--syscalls")?;
        Ok(Self {
            source,
            files,
            agent,
            named: HashSet::new(),
            price: attachment.price,
        })
    }

    /// Takes the calls that there are.
    pub fn take(&mut self) -> Vec<Record> {
        let mut events = Vec::new();
        self.source.drain(MOST, |event| events.push(event));
        let mut records = Vec::with_capacity(events.len());
        for event in events.into_iter().filter(|event| event.process != self.agent) {
            let Some(call) = call_of(&event) else { continue };
            if let Record::Call { file, at, .. } = call
                && self.named.insert(file)
            {
                records.extend(self.files.record(file, at));
            }
            records.push(call);
        }
        records
    }

    /// Calls that the kernel had no room for.
    pub fn dropped(&self) -> u64 {
        self.source.counters().map_or(0, |(counters, _)| counters.dropped)
    }
}

impl AsFd for Calls {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.source.as_fd()
    }
}

fn call_of(event: &AccessEvent) -> Option<Record> {
    let kind = match Hook::from_number(event.hook)? {
        Hook::Open => CallKind::Open,
        Hook::Read => CallKind::Read,
        Hook::Map => CallKind::Map,
        _ => return None,
    };
    Some(Record::Call {
        at: Moment(event.time_ns),
        process: event.process,
        thread: event.thread,
        file: FileId {
            device: event.device,
            inode: event.inode,
        },
        kind,
        direct: event.flags & flags::DIRECT != 0,
        range: ByteRange::new(event.offset, u64::from(event.length)),
    })
}
