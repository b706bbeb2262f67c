//! The engine and what carries its actions out. Owned by the daemon's one task; nothing here blocks.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    future::Future,
    time::Duration,
};

use tokio::sync::mpsc::Sender;

use super::{
    Audience, DRAIN, Found, Started,
    keeping::Keeping,
    orders::Orders,
    queries::Unwatching,
    recording::Recording,
    stop::LetGo,
    telling::Telling,
    wire::{counts_of, memory_of},
};
use crate::{
    catalog::{
        BATCH, CatalogEvent, CatalogRequest, lent::LentFiles, parts::Catalogs, refused::Refusals, report::ScanReport,
    },
    config::Config,
    discover::service::Service,
    engine::{
        Action, Engine, Input, Outcome, Policy,
        learn::row::{Change, Row},
    },
    observe::{
        history::{History, Kept},
        status::DirectoryStatus,
    },
    source::{
        attach::EventMode,
        ebpf::{SourceError, ThreadCounts},
        events::EventSource,
        fanotify::Named,
        process::{Answer, ProcessReader, Question},
    },
    state::store::Store,
    sys::{clock, threads},
    trace::Record,
    units::{FileId, Moment},
    warm::{
        account::{Accountant, Helpers},
        workers::Workers,
    },
};

/// What the kernel calls the processes of this program.
const OWN_NAME: &str = "nitro-agent";

/// Everything that the daemon's task owns, but the channels' receiving ends.
pub struct Wiring {
    pub(super) mode: EventMode,
    /// Events dropped when the kernel's cursors were last looked through.
    dropped: u64,
    pub(super) engine: Engine,
    pub(super) workers: Workers,
    /// Who warms on others' account.
    pub(super) helpers: Option<Helpers>,
    pub(super) processes: LetGo<ProcessReader>,
    pub(super) catalog: LetGo<Catalogs>,
    /// Files that are known by their readers alone.
    pub(super) lent: LentFiles,
    /// What each part of it has found last.
    pub(super) reports: BTreeMap<usize, ScanReport>,
    pub(super) actions: VecDeque<Action>,
    /// Processes that named a file whose description is on its way.
    named: HashMap<FileId, Vec<u32>>,
    /// Files to be watched whose places are not known yet, and whether some were asked for.
    unplaced: VecDeque<FileId>,
    placing: bool,
    store: Store,
    /// All that was kept when the agent began.
    pub(super) learned: Vec<Row>,
    /// What identifies a device beyond a restart, by its number.
    identities: HashMap<u32, String>,
    pub(super) history: History,
    telling: Telling,
    pub(super) recording: Recording,
    /// What was said when the agent was ready, and when that was.
    pub(super) started: Option<(Started, Moment)>,
    /// Looks for directories with models, if that is wanted.
    pub(super) finder: Option<LetGo<Service>>,
    /// Directories that were found and not told of yet.
    pub(super) news: Vec<DirectoryStatus>,
    /// Who waits for what is unwatched, in the order of the requests to the catalog.
    pub(super) unwatching: VecDeque<Unwatching>,
    pub(super) orders: Orders,
    pub(super) keeping: Keeping,
}

impl Wiring {
    /// Everything at rest.
    ///
    /// # Errors
    /// No thread to be had.
    pub fn new(
        config: &Config,
        mode: EventMode,
        catalog: (LetGo<Catalogs>, LentFiles),
        outcomes: Sender<Outcome>,
        answers: Sender<Answer>,
        (store, learned): (Store, Vec<Row>),
        (accountant, keeping): (Option<Accountant>, Keeping),
    ) -> std::io::Result<Self> {
        let (catalog, lent) = catalog;
        Ok(Self {
            mode,
            dropped: 0,
            engine: Engine::new(Policy {
                ceiling: config.ceiling,
                reserve: config.reserve,
                dry_run: config.dry_run,
                ignored: config.ignored_programs.clone(),
                inferred: mode.is_inferred(),
                charge_consumer: config.charge_consumer,
                retain: config.retain,
                booted: clock::booted(),
                holdout: config.holdout,
            }),
            helpers: Some(keeping.own()),
            workers: Workers::new(outcomes, accountant, lent.lenders()),
            processes: LetGo::new(ProcessReader::start(answers, config.power_supplies.clone())?),
            catalog,
            lent,
            reports: BTreeMap::new(),
            actions: VecDeque::new(),
            named: HashMap::new(),
            unplaced: VecDeque::new(),
            placing: false,
            store,
            learned,
            identities: HashMap::new(),
            history: History::default(),
            telling: Telling::default(),
            recording: Recording::default(),
            started: None,
            finder: None,
            news: Vec::new(),
            unwatching: VecDeque::new(),
            orders: Orders::default(),
            keeping,
        })
    }

    /// Starts watching files.
    pub fn watch(&mut self, source: &mut EventSource, files: Vec<FileId>) -> Result<(), SourceError> {
        if source.needs_places() {
            self.unplaced.extend(files);
            self.place(source);
            return Ok(());
        }
        let without_room = source.watch(files)?;
        if without_room > 0 {
            tracing::warn!(
                "{without_room} files found no room in the kernel's map and are not watched: restart the agent to make room"
            );
        }
        Ok(())
    }

    /// What is read on file systems on which something is refused is known by its readers: all of them is watched.
    ///
    /// # Errors
    /// [`SourceError::MapAccess`].
    pub fn refuse(&mut self, source: &mut EventSource, refusals: Refusals) -> Result<(), SourceError> {
        let (gone, done) = self.lent.refuse(refusals);
        gone.into_iter().for_each(|file| self.feed(Input::Gone { file }));
        if let Err(error) = done {
            tracing::warn!("some of what root is refused is not watched: {error}");
        }
        if !source.watch_devices(&self.lent.devices())? {
            tracing::warn!("what root is refused is not watched in this event mode: it takes one with eBPF programs");
        }
        Ok(())
    }

    /// Asks where the next files are that are to be watched, when the ones before are.
    pub(super) fn place(&mut self, source: &EventSource) {
        if self.placing || self.unplaced.is_empty() || !source.is_settled() {
            return;
        }
        let batch: Vec<FileId> = self.unplaced.drain(..self.unplaced.len().min(BATCH)).collect();
        match self.catalog.ask(CatalogRequest::Places(batch.clone())) {
            Ok(()) => self.placing = true,
            // It is behind with telling something, after which this is called again.
            Err(_) => self.unplaced.extend(batch),
        }
    }

    /// Whether files are still to be watched that were found.
    pub fn is_placing(&self, source: &EventSource) -> bool {
        self.placing || !self.unplaced.is_empty() || !source.is_settled()
    }

    /// A worker is done with a step.
    pub fn outcome(&mut self, outcome: Outcome) {
        tracing::trace!(?outcome);
        self.step_done(outcome);
    }

    /// /proc was read.
    pub fn answer(&mut self, answer: Answer) {
        match answer {
            Answer::Program { process, name, user } => {
                self.telling.named(process, &name);
                self.feed(Input::Program { process, name, user });
            }
            // Describing what they name reads headers.
            Answer::Arguments { .. } if self.engine.paused().is_some() => {}
            // `nitro-agent warm FILE` names it, and reads nothing.
            Answer::Arguments { name, .. } if name == OWN_NAME || self.engine.ignores(&name) => {}
            Answer::Arguments { process, arguments, .. } => {
                // Full or stopping: what the process reads will be seen when it reads.
                let _ = self.catalog.ask(CatalogRequest::Match { process, arguments });
            }
            Answer::Direct {
                process,
                file,
                direct: Some(true),
            } => self.feed(Input::Direct { process, file }),
            Answer::Direct { .. } => {}
            Answer::Power { on_battery } => self.feed(Input::Battery(on_battery)),
            Answer::Memory(memory) => self.feed(Input::Memory(memory_of(&memory))),
            Answer::Device { device, identity } => {
                let Some(identity) = identity else { return };
                if let Some(knowledge) = self.store.recall(&identity) {
                    self.feed(Input::Recalled { device, knowledge });
                }
                self.identities.insert(device, identity);
            }
            Answer::Ended { process } => self.feed(Input::Ended { process }),
        }
    }

    /// Something changed on disk, or the catalog answers.
    pub fn catalog_event(&mut self, source: &mut EventSource, event: CatalogEvent) -> Result<(), SourceError> {
        match event {
            CatalogEvent::Scanned(report) => {
                tracing::info!(files = report.files, "the watch roots were looked through again");
                for warning in &report.warnings {
                    tracing::warn!("{warning}");
                }
                if let Some((started, _)) = &mut self.started {
                    self.reports.insert(report.part, report);
                    let now = Found::of(&ScanReport::joined(self.reports.values()));
                    let before = std::mem::replace(&mut started.found, now.clone());
                    self.note_news(&before.directories, &now.directories);
                }
            }
            CatalogEvent::Watched(files) => self.watch(source, files.into_iter().map(|(file, _)| file).collect())?,
            CatalogEvent::Unwatched(files) => {
                for file in &files {
                    self.feed(Input::Gone { file: *file });
                }
                source.unwatch(files)?;
            }
            CatalogEvent::Places(places) => {
                self.placing = false;
                let named = places.into_iter().map(|(file, place)| Named {
                    file,
                    root: place.root,
                    below: place.below,
                });
                source.watch_at(named.collect());
            }
            CatalogEvent::Left(path, left) => self.left(&path, left),
            CatalogEvent::Changed(file) => self.feed(Input::Changed { file }),
            CatalogEvent::Described(description, file) => {
                for process in self.named.remove(&file).unwrap_or_default() {
                    if let Some(description) = description.clone() {
                        self.feed(Input::Named { process, description });
                    }
                }
                self.feed(Input::Described { file, description });
            }
            CatalogEvent::Matched { process, file } => {
                self.processes.ask(Question::Power);
                let waiting = self.named.entry(file).or_default();
                waiting.push(process);
                if waiting.len() == 1 && self.catalog.ask(CatalogRequest::Describe(file)).is_err() {
                    self.named.remove(&file);
                }
            }
            CatalogEvent::Below(number, found) => self.found_below(number, found),
            CatalogEvent::Found(path, description) => self.feed(Input::Found { path, description }),
            CatalogEvent::Refused(refusals) => self.refuse(source, refusals)?,
            CatalogEvent::Warning(warning) => tracing::warn!("{warning}"),
        }
        self.place(source);
        Ok(())
    }

    /// The agent is ready.
    pub fn started(&mut self, started: Started) {
        let rows = std::mem::take(&mut self.learned);
        tracing::debug!(rows = rows.len(), "learned before");
        self.feed(Input::Learned(rows));
        self.started = Some((started, clock::now()));
        self.processes.ask(Question::Power);
    }

    /// What is recorded is handed over when it is due, with what is on the ring and woke nobody.
    pub fn hand_over(&mut self, source: &mut EventSource) {
        if self.recording.deadline().is_some_and(|due| due <= clock::now()) {
            self.drain(source, DRAIN);
            self.recording.turn(source);
        }
    }

    /// The engine's deadline has come.
    pub fn tick(&mut self) {
        self.feed(Input::Tick);
    }

    /// Ends when the engine wants to be told the time; never while nothing goes on.
    pub fn timer(&self) -> impl Future<Output = ()> + use<> {
        let deadlines = [
            self.engine.deadline(),
            self.telling.deadline(),
            self.recording.deadline(),
        ];
        let left = deadlines.into_iter().flatten().min();
        let left = left.map(|deadline| deadline.since(clock::now()));
        async move {
            match left {
                // A millisecond of grace: a deadline met a hair too early would only come again.
                Some(left) => tokio::time::sleep(left + Duration::from_millis(1)).await,
                None => std::future::pending().await,
            }
        }
    }

    /// Whether the engine's deadline has passed while a busy ring kept its timer from being looked at.
    pub fn is_due(&self) -> bool {
        self.engine.deadline().is_some_and(|deadline| deadline <= clock::now())
    }

    pub(super) fn feed(&mut self, input: Input) {
        let at = clock::now();
        self.recording.input(at, &input);
        self.actions.extend(self.engine.handle(at, input));
    }

    /// Carries out what the engine asked for.
    pub fn carry_out(&mut self, source: &mut EventSource, audience: &mut impl Audience) {
        while let Some(action) = self.actions.pop_front() {
            match action {
                Action::Describe(file) => {
                    let asked = self.lent.describe(file);
                    let asked = asked.unwrap_or_else(|| self.catalog.ask(CatalogRequest::Describe(file)));
                    if asked.is_err() {
                        // Forgotten, the file is asked for again with its next access.
                        self.feed(Input::Changed { file });
                    }
                }
                Action::AskProgram { process } => self.processes.ask(Question::Program(process)),
                Action::AskDirect { process, file } => self.processes.ask(Question::Direct(process, file)),
                Action::AskMemory => self.processes.ask(Question::Memory),
                Action::Warm {
                    load,
                    model,
                    part,
                    range,
                    manner,
                } => self.begin_step(load, model, part, range, manner),
                Action::Release { pin } => self.release(pin),
                Action::AskUsers { files, processes } => self.keeping.ask_users(files, processes),
                Action::Find { path } => {
                    if self.catalog.ask(CatalogRequest::Find(path.clone())).is_err() {
                        // It is not looked for again: there are others.
                        let description = None;
                        self.feed(Input::Found { path, description });
                    }
                }
                Action::Learn(change) => self.keep(change),
                Action::Progress { order, progress } => self.progressed(order, progress),
                Action::Recall { device } => self.processes.ask(Question::Device(device)),
                Action::Keep { device, knowledge } => {
                    if let Some(identity) = self.identities.get(&device).cloned() {
                        let at = clock::unix_now() as u64;
                        self.keep(Change::Put(Row::Device {
                            identity,
                            knowledge,
                            at,
                        }));
                    }
                }
                Action::Cancel { load } => self.workers.cancel(load),
                Action::Close { load } => {
                    self.workers.close(load);
                    self.keeping.close(load);
                }
                Action::Count { load, processes, model } => {
                    let concerns = |file| model.parts.iter().any(|part| part.file == file);
                    let counts = processes
                        .iter()
                        .flat_map(|process| source.take_counts(*process, concerns));
                    let counts: Vec<ThreadCounts> = counts.collect();
                    self.recording.counts(clock::now(), &counts);
                    // What our own threads brought in for it, the outcomes told; their cursors would fill the map in time.
                    source.take_counts(std::process::id(), concerns);
                    self.feed(Input::Counted {
                        load,
                        counts: counts.iter().map(counts_of).collect(),
                    });
                    self.sweep(source);
                }
                Action::AskAdded { load, processes, model } => {
                    let concerns = |file| model.parts.iter().any(|part| part.file == file);
                    let added = processes
                        .iter()
                        .map(|process| source.added_by(*process, concerns))
                        .sum();
                    self.feed(Input::Added { load, added });
                }
                Action::Forget { process } => {
                    source.take_counts(process, |_| true);
                }
                Action::Tell(happening) => self.telling.tell(clock::now(), happening, audience),
                Action::Finish(receipt) => {
                    let kept = Kept {
                        time: clock::unix_time_of(receipt.ended),
                        receipt: *receipt,
                    };
                    self.recording.note(|| Record::Receipt {
                        at: clock::now(),
                        receipt: Box::new(kept.receipt.clone()),
                    });
                    audience.finished(&kept);
                    self.history.keep(kept);
                }
            }
        }
        for directory in self.news.drain(..) {
            audience.watching(&directory);
        }
        self.telling.release(clock::now(), audience);
    }

    /// A process whose end was dropped with other events leaves its cursors behind, and the map of cursors cannot grow.
    fn sweep(&mut self, source: &mut EventSource) {
        let dropped = source.counters().map_or(0, |(counters, _)| counters.dropped);
        if dropped > self.dropped {
            self.dropped = dropped;
            source.sweep(threads::lives);
        }
    }

    /// No new steps; what blocks is left to the end of the process. What is still to be written comes back.
    pub fn stop(mut self, source: &EventSource, audience: &mut impl Audience) -> Store {
        self.telling.finish(audience);
        self.recording.end(None);
        self.recording.turn(source);
        self.workers.close_all();
        self.store
    }

    /// Keeps something beyond the agent's end.
    pub(super) fn keep(&mut self, change: Change) {
        self.store.keep(change);
    }
}
