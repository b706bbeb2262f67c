//! One process that has watched files open, looked at from time to time.
//!
//! Two kinds of looks: a *survey* finds what it has open and mapped, a *look* how far it has come in that. A descriptor has a position, a mapping shows in the
//! process's page tables, and a thread that waits in `pread` shows where it began. The longer a process is silent the rarer they become, and they take a
//! twentieth of the time at most.

use std::{
    collections::{HashMap, HashSet},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use nitro_common::{Hook, flags};

use super::{
    cursor::Cursor,
    files::Files,
    mapped::Mapped,
    outlet::Outlet,
    proc::{self, Io, PageTables},
};
use crate::{
    sys,
    units::{ByteRange, FileId, STEP},
};

/// Soonest that a process which reads is looked at again: a reader of 2 GB/s comes five steps further meanwhile.
const LOOK: Duration = Duration::from_millis(5);

/// Soonest that a process which has opened a file is surveyed again: it may map it next.
const SURVEY: Duration = Duration::from_millis(1);

/// A process that has been silent for long, and may read on.
const RARELY: Duration = Duration::from_secs(1);

/// Mappings of one process that are followed.
const MOST_MAPPINGS: usize = 256;

/// Threads whose calls are remembered.
const MOST_CALLERS: usize = 256;

/// A descriptor.
#[derive(Debug)]
struct Descriptor {
    number: u32,
    file: FileId,
    /// Bytes of the file.
    size: u64,
    thread: u32,
    /// What goes through it passes the page cache by, and is not told.
    direct: bool,
    cursor: Cursor,
    /// Where a large call was seen to begin.
    declared: Option<u64>,
}

/// A thread that reads at places of its own.
#[derive(Debug, Default)]
struct Caller {
    cursor: Cursor,
    /// Byte at which the last call began.
    began: Option<u64>,
    /// Bytes that its process had read by then.
    read: u64,
}

/// When it is due again.
#[derive(Debug)]
struct Due {
    at: Instant,
    /// When there was something to see last.
    heard: Instant,
    /// Not before, whatever happens: the last one cost as much.
    rest: Instant,
}

impl Due {
    fn now(now: Instant) -> Self {
        Self {
            at: now,
            heard: now,
            rest: now,
        }
    }

    /// Something has happened: it is due as soon as may be.
    fn soon(&mut self, now: Instant) {
        (self.at, self.heard) = (self.rest.max(now), now);
    }

    /// One look has been taken since `began`: the next comes after a share of the silence, not before `least`, and not before twenty times what this one cost.
    fn again(&mut self, began: Instant, heard: bool, least: Duration) {
        let now = Instant::now();
        if heard {
            self.heard = now;
        }
        let silence = (now - self.heard) / 8;
        self.rest = now + (now - began) * 20;
        self.at = self.rest.max(now + silence.min(RARELY).max(least));
    }
}

/// The process.
#[derive(Debug)]
pub struct Reader {
    process: u32,
    end: OwnedFd,
    descriptors: Vec<Descriptor>,
    mappings: Vec<Mapped>,
    callers: HashMap<(u32, FileId), Caller>,
    /// Files that it may write to.
    writes: HashSet<FileId>,
    io: Option<Io>,
    /// What it read last: what devices are asked for on its behalf is put down to this file.
    latest: Option<FileId>,
    /// Numbers given to descriptors and mappings.
    given: u32,
    survey: Due,
    look: Due,
}

impl Reader {
    /// A process that was just met.
    ///
    /// # Errors
    /// It has ended.
    pub fn meet(process: u32) -> std::io::Result<Self> {
        let now = Instant::now();
        Ok(Self {
            process,
            end: sys::process::end_of(process)?,
            descriptors: Vec::new(),
            mappings: Vec::new(),
            callers: HashMap::new(),
            writes: HashSet::new(),
            io: None,
            latest: None,
            given: 0,
            survey: Due::now(now),
            look: Due::now(now),
        })
    }

    /// Readable once it has ended.
    pub fn end(&self) -> BorrowedFd<'_> {
        self.end.as_fd()
    }

    /// Whether it may write to a file.
    pub fn writes(&self) -> impl Iterator<Item = FileId> {
        self.writes.iter().copied()
    }

    /// Whether nothing of it is of interest at present.
    pub fn is_idle(&self) -> bool {
        self.descriptors.is_empty() && self.mappings.is_empty()
    }

    /// It has opened or closed something.
    pub fn stirred(&mut self, now: Instant) {
        self.survey.soon(now);
    }

    /// When it wants to be looked at; never while it has nothing open.
    pub fn due(&self) -> Option<Instant> {
        let silent = self.is_idle() && self.survey.heard.elapsed() > 2 * RARELY;
        (!silent).then(|| self.survey.at.min(self.look.at))
    }

    /// Looks at what is due; `written` are the files that somebody has open for writing.
    pub fn turn(&mut self, now: Instant, files: &Files, written: &HashSet<FileId>, out: &mut Outlet) {
        if self.survey.at <= now {
            let began = Instant::now();
            let found = self.survey(files, written, out);
            self.survey.again(began, found, SURVEY);
            if found {
                self.look.soon(now);
            }
        }
        if self.look.at <= now {
            let began = Instant::now();
            let moved = !self.is_idle() && self.look(written, out);
            self.look.again(began, moved, LOOK);
        }
    }

    /// Finds what it has open by now; whether there was anything new.
    fn survey(&mut self, files: &Files, written: &HashSet<FileId>, out: &mut Outlet) -> bool {
        let process = self.process;
        let open = proc::descriptors(process, files);
        let mapped = proc::mappings(process, files);
        let is_open = |view: &Descriptor| {
            open.iter()
                .any(|found| found.number == view.number && found.file == view.file)
        };
        let mut new = self.closed(&open.iter().map(|found| found.number).collect(), out);
        self.descriptors.retain(is_open);
        self.writes.retain(|file| open.iter().any(|found| found.file == *file));
        self.mappings.retain(|view| mapped.contains(&view.mapping));
        for found in &open {
            if self.descriptors.iter().any(|view| view.number == found.number) {
                continue;
            }
            let Some(opened) = proc::opened(process, found.number) else {
                continue;
            };
            if opened.writes() && self.writes.insert(found.file) {
                new = true;
            }
            if opened.flags & libc::O_ACCMODE == libc::O_WRONLY {
                continue;
            }
            let mut bits = written_flag(opened.writes() || written.contains(&found.file));
            if opened.is_direct() {
                bits |= flags::DIRECT;
            }
            let thread = self.give_number();
            out.file_event(Hook::Open, process, thread, found.file, ByteRange::default(), bits);
            self.descriptors.push(Descriptor {
                number: found.number,
                file: found.file,
                size: found.size,
                thread,
                direct: opened.is_direct(),
                cursor: Cursor::default(),
                declared: None,
            });
            new = true;
        }
        for mapping in mapped {
            if self.mappings.len() >= MOST_MAPPINGS || self.mappings.iter().any(|view| view.mapping == mapping) {
                continue;
            }
            let thread = self.give_number();
            let view = Mapped::new(mapping, thread);
            let bits = written_flag(written.contains(&mapping.file));
            out.file_event(Hook::Map, process, thread, mapping.file, view.range(), bits);
            self.mappings.push(view);
            new = true;
        }
        new
    }

    /// Numbers tell descriptors and mappings apart as threads are told apart; those of processes have 22 bits.
    fn give_number(&mut self) -> u32 {
        self.given = self.given % 1023 + 1;
        self.process | self.given << 22
    }

    /// What it read since the last look through the only descriptor that it had, and has closed: `read` moves the position of that alone. Whether it did.
    fn closed(&mut self, open: &HashSet<u32>, out: &mut Outlet) -> bool {
        let process = self.process;
        let [view] = &mut self.descriptors[..] else {
            return false;
        };
        if open.contains(&view.number) || !self.mappings.is_empty() || view.cursor.at() == 0 {
            return false;
        }
        let Some((now, before)) = proc::io(process).zip(self.io) else {
            return false;
        };
        let start = view.cursor.at();
        let end = (start + now.read.saturating_sub(before.read)).min(view.size);
        if end <= start {
            return false;
        }
        let (file, thread) = (view.file, view.thread);
        view.cursor.accessed(ByteRange { start, end }, 0, |piece| {
            out.access(Hook::Read, process, thread, file, piece, 0);
        });
        out.fetched(process, file, now.fetched.saturating_sub(before.fetched));
        self.io = Some(now);
        true
    }

    /// Looks how far it has come; whether it has moved.
    fn look(&mut self, written: &HashSet<FileId>, out: &mut Outlet) -> bool {
        let process = self.process;
        let io = proc::io(process);
        let before = std::mem::replace(&mut self.io, io);
        let read = io.zip(before).map(|(now, before)| now.read.saturating_sub(before.read));
        let (mut moved, mut closed) = (false, false);
        for view in &mut self.descriptors {
            let Some(opened) = proc::opened(process, view.number) else {
                closed = true;
                continue;
            };
            view.direct = opened.is_direct();
            if view.direct {
                continue;
            }
            if let Some(range) = view.cursor.moved(opened.position.min(view.size), read) {
                (moved, self.latest) = (true, Some(view.file));
                let (file, thread, bits) = (view.file, view.thread, written_flag(written.contains(&view.file)));
                view.cursor.accessed(range, 0, |piece| {
                    out.access(Hook::Read, process, thread, file, piece, bits);
                });
            }
        }
        if closed {
            self.survey.soon(Instant::now());
        }
        if !moved && !self.descriptors.is_empty() && (io != before || before.is_none()) {
            moved |= self.look_at_calls(written, out);
        }
        if let Some(tables) = PageTables::of(process).filter(|_| !self.mappings.is_empty()) {
            for view in &mut self.mappings {
                let (file, thread) = (view.mapping.file, view.thread);
                let bits = written_flag(written.contains(&file));
                for range in view.look(&|start, count| tables.present(start, count)) {
                    (moved, self.latest) = (true, Some(file));
                    view.cursor.accessed(range, STEP, |piece| {
                        out.access(Hook::Fault, process, thread, file, piece, bits);
                    });
                }
            }
        }
        let any = self.descriptors.first().map(|view| view.file);
        let any = any.or_else(|| self.mappings.first().map(|view| view.mapping.file));
        if let (Some((now, before)), Some(file)) = (io.zip(before), self.latest.or(any)) {
            out.fetched(process, file, now.fetched.saturating_sub(before.fetched));
        }
        moved
    }

    /// Looks at the calls that its threads wait in.
    fn look_at_calls(&mut self, written: &HashSet<FileId>, out: &mut Outlet) -> bool {
        let process = self.process;
        let calls = proc::calls(process);
        if self.callers.len() > MOST_CALLERS {
            self.callers.clear();
        }
        let mut moved = false;
        for (thread, call) in &calls {
            let is_its = |view: &&mut Descriptor| view.number == call.descriptor && !view.direct;
            let Some(view) = self.descriptors.iter_mut().find(is_its) else {
                continue;
            };
            let (file, bits) = (view.file, written_flag(written.contains(&view.file)));
            let Some(offset) = call.offset.filter(|offset| *offset < view.size) else {
                // The position moves at the end of the call. Of one that asks for much the beginning is worth telling.
                let at = view.cursor.at();
                if call.offset.is_none() && call.bytes >= 2 * STEP && at < view.size && view.declared != Some(at) {
                    view.declared = Some(at);
                    let end = (at + STEP).min(view.size);
                    let mut cursor = view.cursor.clone();
                    let told = view.thread;
                    cursor.accessed(ByteRange { start: at, end }, 0, |piece| {
                        out.file_event(Hook::Read, process, told, file, piece.0, piece.1 | bits);
                    });
                    (moved, self.latest) = (true, Some(file));
                }
                continue;
            };
            let threads = self.callers.len().max(1) as u64;
            let caller = self.callers.entry((*thread, file)).or_default();
            if caller.began.replace(offset) == Some(offset) {
                continue;
            }
            let all = self.io.map_or(0, |io| io.read);
            let read = all.saturating_sub(caller.read) / threads;
            let mut range = caller.cursor.called(offset, call.bytes, read);
            range.end = range.end.min(view.size);
            caller.read = all;
            caller.cursor.accessed(range, STEP / 16, |piece| {
                out.access(Hook::Read, process, *thread, file, piece, bits);
            });
            (moved, self.latest) = (true, Some(file));
        }
        moved
    }
}

const fn written_flag(written: bool) -> u16 {
    if written { flags::WRITTEN } else { 0 }
}
