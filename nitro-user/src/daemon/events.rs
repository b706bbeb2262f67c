//! Events of the source on their way to whoever is concerned: the engine, the readers of /proc, the finder of directories. Nothing here blocks.

use std::collections::VecDeque;

use nitro_common::{Hook, flags};

use super::{
    recording::Recording,
    wire::{access_of, file_of, range_of},
    wiring::Wiring,
};
use crate::{
    engine::{Action, Engine, Input},
    source::{events::EventSource, process::Question},
    sys::clock,
    trace::Record,
    units::Moment,
};

/// Who is told of accesses.
struct Told<'a> {
    engine: &'a mut Engine,
    recording: &'a mut Recording,
    actions: &'a mut VecDeque<Action>,
}

impl Told<'_> {
    fn tell(&mut self, at: Moment, input: Input) {
        self.recording.input(at, &input);
        self.actions.extend(self.engine.handle(at, input));
    }
}

impl Wiring {
    /// Takes at most `most` events from the ring; returns how many there were.
    pub fn drain(&mut self, source: &mut EventSource, most: usize) -> usize {
        let Self {
            processes,
            finder,
            mode,
            helpers,
            lent,
            ..
        } = self;
        let mut told = Told {
            engine: &mut self.engine,
            recording: &mut self.recording,
            actions: &mut self.actions,
        };
        let mode = *mode;
        let is_helper = |process| helpers.as_ref().is_some_and(|all| all.contains(process));
        let mut ended = Vec::new();
        let drained = source.drain(most, |event| match Hook::from_number(event.hook) {
            // What leaves the page cache is told by whoever makes room.
            Some(Hook::Delete) => {
                let (file, range) = (file_of(&event), range_of(&event));
                tracing::trace!(?file, ?range, thread = event.thread, "removed");
                told.tell(Moment(event.time_ns), Input::Removed { file, range });
            }
            Some(Hook::Exit) if event.flags & flags::LAST_THREAD != 0 && is_helper(event.process) => {
                ended.push(event.process);
            }
            // What a helper reads is our own doing.
            Some(_) if is_helper(event.process) => {}
            Some(Hook::Met) => {
                let keep = told.engine.paused().is_none();
                lent.met(file_of(&event), event.process, event.offset, keep);
            }
            Some(Hook::Exec) => {
                processes.ask(Question::Arguments(event.process));
                if let Some(finder) = finder {
                    finder.begun(event.process);
                }
            }
            Some(Hook::Exit) if event.flags & flags::LAST_THREAD != 0 => {
                told.tell(clock::now(), Input::Ended { process: event.process });
            }
            Some(hook) => {
                if hook == Hook::Add {
                    told.recording.note(|| Record::Brought {
                        at: Moment(event.time_ns),
                        process: event.process,
                        thread: event.thread,
                        file: file_of(&event),
                        range: range_of(&event),
                    });
                }
                if let Some(access) = access_of(mode, hook, &event) {
                    tracing::trace!(?access);
                    let (at, process, file) = (access.at, access.process, access.file);
                    told.tell(at, Input::Access(access));
                    // After the access, which begins the load that is to stand down.
                    if event.flags & flags::DIRECT != 0 {
                        told.tell(at, Input::Direct { process, file });
                    }
                }
            }
            None => {}
        });
        for process in ended {
            if let Some(helpers) = &self.helpers {
                helpers.ended(process);
            }
            source.take_counts(process, |_| true);
        }
        self.place(source);
        drained
    }
}
