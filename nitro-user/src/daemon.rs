//! The only wiring: owns the channels and the order of start and stop.
//!
//! Start: rights given up (before any thread), control socket, roots (with `--watch auto`, a look for them), catalog, eBPF, watch, say ready. Then one task owns the engine and everything that does not block: it drains the ring, hands
//! inputs to the engine and carries its actions out. What blocks has threads: the catalog, /proc, one per load being warmed. Stop: no new
//! steps, detach, threads end; one that hangs in a dead file system does not hold the process. The control socket goes last, so that the next
//! agent finds either this one or nothing.
//!
//! Channels and what happens when they are full: ring buffer, the kernel drops and counts; outcomes and answers, their threads wait for this
//! task; requests to the catalog and to /proc, dropped, since they come again with the next access; queries from the control socket, the
//! asking connection waits, for a bounded time.

mod auto;
mod events;
mod keeping;
mod orders;
mod queries;
mod recording;
pub mod rights;
mod status;
mod stop;
mod telling;
mod wire;
mod wiring;

use std::{
    collections::BTreeMap,
    os::{fd::AsFd, unix::fs::DirBuilderExt},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context;
use serde::Serialize;
use tokio::sync::mpsc;

use self::{
    keeping::Keeping,
    rights::Rights,
    stop::{LetGo, StopSignals},
    wiring::Wiring,
};
use crate::{
    catalog::{
        self, CatalogEvent,
        identity::Devices,
        lent::LentFiles,
        parts::{self, Catalogs},
        report::{RootReport, ScanReport},
    },
    config::{Config, SOCKET},
    control::{self, Server},
    discover,
    engine::happening::Happening,
    observe::{
        history::Kept,
        status::{AutoStatus, DirectoryStatus},
    },
    source::{attach::Attachment, ebpf::Options, events::EventSource, users::UserReader},
    state::store::{Opened, Store},
    sys::{
        clock,
        confine::Confined,
        memory,
        mounts::{self, Mounts},
        readiness,
    },
    units::{ByteCount, FileId},
    warm::{account::Helpers, evict::Evictor, keeper::Keeper, pins::Pins},
};

/// Events taken from the ring before anything else gets its turn.
const DRAIN: usize = 1024;

/// Room for watched files that appear later: at least so many, and as many again as there are now.
const LEAST_CAPACITY: u64 = 1 << 16;
const MOST_CAPACITY: u64 = 1 << 22;

/// How long the start waits for the servers of watched directories.
const SERVERS: Duration = Duration::from_secs(3);

/// How long the clients of the control socket have to hear that the agent stops.
const GOODBYE: Duration = Duration::from_millis(200);

/// How long the agent's end waits for what was learned to be written: a few flushes of a disk that others keep busy.
const WRITTEN: Duration = Duration::from_secs(2);

/// What the agent says of itself when it is ready.
#[derive(Clone, Debug, Serialize)]
pub struct Started {
    /// Version of the agent.
    pub version: &'static str,
    /// Release of the running kernel.
    pub kernel: String,
    /// Event mode, why, and program by program.
    pub attachment: Attachment,
    /// The watch roots and what is in them.
    #[serde(flatten)]
    pub found: Found,
    /// What `--watch auto` looked at; `None` without it.
    pub auto: Option<AutoStatus>,
    /// The ceiling in force.
    pub ceiling: ByteCount,
    /// Nothing is warmed.
    pub dry_run: bool,
    /// What the agent may still do.
    #[serde(skip)]
    pub confined: Confined,
    /// From the start of the process's work to here.
    pub seconds: f64,
}

/// What the catalog found below the watch roots.
#[derive(Clone, Debug, Serialize)]
pub struct Found {
    /// Canonical watch roots; bytes that are not UTF-8 are replaced.
    pub roots: Vec<String>,
    /// The same, with what is in each.
    pub directories: Vec<DirectoryStatus>,
    /// Paths that were unwatched.
    pub unwatched: Vec<String>,
    /// Models, by layout.
    pub models: BTreeMap<String, u64>,
    /// Directories outside that links lead to, and how many links.
    pub outside: Vec<(String, u64)>,
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: ByteCount,
}

impl Found {
    /// As names that JSON can hold: bytes that are not UTF-8 are replaced.
    pub fn of(report: &ScanReport) -> Self {
        let models = report.models.iter();
        let outside = report.outside.iter();
        let directory = |root: &RootReport| DirectoryStatus {
            path: root.path.to_string_lossy().into_owned(),
            present: root.present,
            refused: root.refused,
            why: root.why.as_deref().map(str::to_owned),
            models: root.holds.map(|holds| holds.models),
            files: root.holds.map(|holds| holds.files),
            bytes: root.holds.map(|holds| holds.bytes),
        };
        let directories: Vec<_> = report.roots.iter().map(directory).collect();
        let unwatched = report.unwatched.iter();
        Self {
            roots: directories.iter().map(|directory| directory.path.clone()).collect(),
            directories,
            unwatched: unwatched.map(|path| path.to_string_lossy().into_owned()).collect(),
            models: models.map(|(layout, count)| (layout.name().into(), *count)).collect(),
            outside: outside
                .map(|(folder, count)| (folder.to_string_lossy().into_owned(), *count))
                .collect(),
            files: report.files,
            bytes: report.bytes,
        }
    }
}

/// Who hears what happens.
pub trait Audience {
    /// The agent is ready.
    fn started(&mut self, started: &Started);
    /// Something happened.
    fn happening(&mut self, happening: &Happening);
    /// A directory was found, and is watched from now on.
    fn watching(&mut self, _directory: &DirectoryStatus) {}
    /// A load has ended.
    fn finished(&mut self, _kept: &Kept) {}
    /// The agent stops, on this signal.
    fn stopping(&mut self, _signal: &str) {}
}

/// Runs the agent until SIGINT or SIGTERM, with what [`rights::prepare`] has left.
///
/// # Errors
/// What keeps it from starting; a failure of the event source.
pub fn run(config: Config, rights: Rights, audience: impl Audience) -> anyhow::Result<()> {
    clock::begin();
    let runtime = tokio::runtime::Builder::new_current_thread()
        // Sockets and signals are looked at after every turn of a task: by default it is every 61st, seconds under a storm of events.
        .event_interval(1)
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    let done = runtime.block_on(serve(config, rights, audience));
    // Threads that hang in a dead file system must not keep the process.
    runtime.shutdown_background();
    done
}

/// Makes the directory of the socket where it is missing; why it cannot be made, the socket will say.
fn make_folder(socket: &Path) {
    if let Some(folder) = socket.parent() {
        let _ = std::fs::DirBuilder::new().mode(0o755).create(folder);
    }
}

async fn serve(config: Config, rights: Rights, mut audience: impl Audience) -> anyhow::Result<()> {
    let began = Instant::now();
    let mut signals = StopSignals::take()?;
    let Rights {
        starter,
        confined,
        accountant,
        keeper,
    } = rights;
    for refused in &confined.refused {
        tracing::debug!("a right was not given up: {refused}");
    }

    // Before anything is attached: a second agent would only do what the first does already.
    let (socket, group) = (config.socket.clone(), config.socket_group.clone());
    let claim = move || {
        if socket == Path::new(SOCKET) {
            make_folder(&socket);
        }
        control::socket::claim(&socket, group.as_deref())
    };
    let Some(claimed) = signals.unless(starter.run(claim)).await else {
        return Ok(());
    };
    let (server, mut queries) =
        Server::start(claimed??, control::server::Limits::default()).context("cannot serve the control socket")?;

    let sorted = parts::sort(&config.roots, &Mounts::read(Path::new(mounts::OWN)).unwrap_or_default());
    let (paths, wait) = (sorted.near, config.wait);
    let Some(roots) = signals
        .unless_stopped(move || catalog::open_roots(&paths, wait))
        .await?
    else {
        return Ok(());
    };
    let mut roots = roots?;
    let (tell, mut findings) = mpsc::channel(16);
    let found = if config.auto {
        signals.unless_stopped(auto::look).await?
    } else {
        None
    };
    if config.auto && found.is_none() {
        return Ok(());
    }
    let (finder, auto) = match found {
        Some((finder, found)) => {
            catalog::add_suggested(&mut roots, found.watch.iter().map(auto::root_of));
            let service = discover::service::Service::start(finder, tell).context("cannot start a thread")?;
            (Some(LetGo::new(service)), Some(auto::status_of(&found)))
        }
        None => (None, None),
    };
    let (tell, mut catalog_events) = mpsc::channel(256);
    let devices = std::sync::Arc::new(Devices::default().fetching(config.fetch.clone()));
    let catalog = Catalogs::start(roots, sorted.far, &devices, &config.exclude, &tell)?;
    let lent = LentFiles::new(devices, &tell);
    drop(tell);
    let catalog = LetGo::new(catalog);

    // The map of watched files cannot grow: its capacity follows from the first scan.
    let mut found: Vec<FileId> = Vec::new();
    let mut reports: BTreeMap<usize, ScanReport> = BTreeMap::new();
    let mut refused = Vec::new();
    let patience = tokio::time::sleep(SERVERS);
    tokio::pin!(patience);
    // Servers are waited for, for a while; what they hold is watched when they answer.
    while reports.len() < catalog.count() && !(reports.contains_key(&0) && patience.is_elapsed()) {
        tokio::select! {
            event = catalog_events.recv() => match event.context("the catalog ended before its first scan")? {
                CatalogEvent::Watched(files) => found.extend(files.iter().map(|(file, _)| *file)),
                CatalogEvent::Warning(warning) => tracing::warn!("{warning}"),
                CatalogEvent::Scanned(report) => {
                    report.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
                    reports.insert(report.part, report);
                }
                CatalogEvent::Refused(refusals) => refused.push(refusals),
                _ => {}
            },
            () = &mut patience, if !patience.is_elapsed() => {}
            _ = signals.next() => return Ok(()),
        }
    }
    if reports.len() < catalog.count() {
        tracing::warn!("a server of a watched directory does not answer: its files are watched once it does");
    }
    let capacity = (found.len() as u64 * 2)
        .clamp(LEAST_CAPACITY, MOST_CAPACITY)
        .next_power_of_two();
    let options = Options {
        events: config.events,
        capacity: u32::try_from(capacity).unwrap_or(u32::MAX),
        empty: config.empty_probes,
        exact: false,
    };
    let opened = signals.unless(starter.run(move || EventSource::open(options))).await;
    let Some(opened) = opened else {
        return Ok(());
    };
    let (mut source, attachment) = opened??;
    // From here on nobody has more rights than the work takes.
    starter.end();
    let mut ring = readiness::of(source.as_fd()).context("cannot wait for the event ring")?;

    let (tell, mut outcomes) = mpsc::channel(1024);
    let (answer, mut answers) = mpsc::channel(1024);
    let directory = config.state.clone();
    let (store, learned) = if config.dry_run {
        (Store::forgetful(), Vec::new())
    } else {
        let Some(opened) = signals.unless_stopped(move || Store::open(&directory)).await? else {
            return Ok(());
        };
        let Opened { store, rows, troubles } = opened.context("cannot keep what is learned")?;
        for trouble in troubles {
            tracing::warn!("{trouble}");
        }
        (store, rows)
    };
    let (tell_pins, mut pin_events) = mpsc::channel(256);
    let (tell_evicted, mut evictions) = mpsc::channel(16);
    let (tell_users, mut users) = mpsc::channel(1);
    if let Some(doubt) = keeper.as_ref().and_then(Keeper::doubt) {
        tracing::warn!("{doubt}");
    }
    let own = match (&keeper, &accountant) {
        (Some(keeper), _) => keeper.processes(),
        (None, Some(accountant)) => accountant.helpers(),
        (None, None) => Helpers::default(),
    };
    let keeping = Keeping::new(
        keeper.map(|keeper| Pins::new(keeper, tell_pins)),
        Evictor::new(tell_evicted, own.clone()),
        UserReader::start(tell_users).context("cannot start a thread")?,
        own,
    );
    let mut wiring = Wiring::new(
        &config,
        attachment.mode,
        (catalog, lent),
        tell,
        answer,
        (store, learned),
        (accountant, keeping),
    )?;
    wiring.finder = finder;
    wiring.reports = reports.clone();
    wiring.watch(&mut source, found)?;
    for refusals in refused {
        wiring.refuse(&mut source, refusals)?;
    }
    while wiring.is_placing(&source) {
        tokio::select! {
            event = catalog_events.recv() => {
                wiring.catalog_event(&mut source, event.context("the catalog ended")?)?;
            }
            ready = ring.readable_mut() => {
                wiring.drain(&mut source, DRAIN);
                ready.context("cannot wait for the event ring")?.clear_ready();
            }
            _ = signals.next() => return Ok(()),
        }
    }
    source.look_around();

    let started = Started {
        version: env!("CARGO_PKG_VERSION"),
        kernel: nix::sys::utsname::uname()
            .map(|name| name.release().to_string_lossy().into_owned())
            .unwrap_or_default(),
        attachment,
        found: Found::of(&ScanReport::joined(reports.values())),
        auto,
        ceiling: config.ceiling,
        dry_run: config.dry_run,
        confined,
        seconds: began.elapsed().as_secs_f64(),
    };
    memory::trim();
    audience.started(&started);
    wiring.started(started);
    let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Ready]);

    let signal = loop {
        let timer = wiring.timer();
        tokio::select! {
            biased;
            signal = signals.next() => break signal,
            ready = ring.readable_mut() => {
                let mut ready = ready.context("cannot wait for the event ring")?;
                let drained = wiring.drain(&mut source, DRAIN);
                if drained < DRAIN {
                    ready.clear_ready();
                } else {
                    // Others get their turn under a storm.
                    tokio::task::yield_now().await;
                }
            }
            Some(outcome) = outcomes.recv() => wiring.outcome(outcome),
            Some(answer) = answers.recv() => wiring.answer(answer),
            Some(event) = pin_events.recv() => wiring.pin_event(event),
            Some(outcomes) = evictions.recv() => wiring.evicted(outcomes),
            Some(found) = users.recv() => wiring.users_found(found),
            Some(query) = queries.recv() => wiring.query(query, &source),
            Some(found) = findings.recv() => wiring.found(found),
            event = catalog_events.recv() => {
                wiring.catalog_event(&mut source, event.context("the catalog ended")?)?;
            }
            () = timer => {}
        }
        // One turn takes what else is there, so that a busy ring starves nobody.
        while let Ok(outcome) = outcomes.try_recv() {
            wiring.outcome(outcome);
        }
        while let Ok(answer) = answers.try_recv() {
            wiring.answer(answer);
        }
        if let Ok(event) = catalog_events.try_recv() {
            wiring.catalog_event(&mut source, event)?;
        }
        if let Ok(query) = queries.try_recv() {
            wiring.query(query, &source);
        }
        if wiring.is_due() {
            // What was put on the ring without a wake-up, and a wake-up that two processors lost between them.
            wiring.drain(&mut source, DRAIN);
            wiring.tick();
        }
        wiring.carry_out(&mut source, &mut audience);
        wiring.hand_over(&mut source);
    };
    let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Stopping]);
    let kept = wiring.stop(&source, &mut audience);
    let written = tokio::task::spawn_blocking(move || drop(kept));
    audience.stopping(signal);
    drop(source);
    server.stop(GOODBYE).await;
    // A disk that hangs does not keep the agent.
    let _ = tokio::time::timeout(WRITTEN, written).await;
    Ok(())
}
