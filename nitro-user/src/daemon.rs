//! The only wiring: owns the channels and the order of start and stop.
//!
//! Start: roots, catalog, eBPF, watch, say ready. Then one task owns the engine and everything that does not block: it drains the ring, hands
//! inputs to the engine and carries its actions out. What blocks has threads: the catalog, /proc, one per load being warmed. Stop: no new
//! steps, detach, threads end; one that hangs in a dead file system does not hold the process.
//!
//! Channels and what happens when they are full: ring buffer, the kernel drops and counts; outcomes and answers, their threads wait for this
//! task; requests to the catalog and to /proc, dropped, since they come again with the next access.

mod wiring;

use std::{os::fd::AsFd, path::PathBuf, time::Instant};

use anyhow::Context;
use serde::Serialize;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use self::wiring::Wiring;
use crate::{
    catalog::{self, CatalogEvent, identity::Devices, service::CatalogService},
    config::Config,
    engine::happening::Happening,
    source::{
        attach::Attachment,
        ebpf::{EbpfSource, Options},
    },
    sys::readiness,
    units::{ByteCount, FileId},
};

/// Events taken from the ring before anything else gets its turn.
const DRAIN: usize = 4096;

/// Room for watched files that appear later: at least so many, and as many again as there are now.
const LEAST_CAPACITY: u64 = 1 << 16;
const MOST_CAPACITY: u64 = 1 << 22;

/// What the agent says of itself when it is ready.
#[derive(Clone, Debug, Serialize)]
pub struct Started {
    /// Version of the agent.
    pub version: &'static str,
    /// Release of the running kernel.
    pub kernel: String,
    /// Event mode, why, and program by program.
    pub attachment: Attachment,
    /// Canonical watch roots.
    pub roots: Vec<PathBuf>,
    /// What was found in them, in lines for people.
    pub scan: Vec<String>,
    /// Files in the catalog.
    pub files: u64,
    /// Their bytes.
    pub bytes: ByteCount,
    /// The ceiling in force.
    pub ceiling: ByteCount,
    /// Nothing is warmed.
    pub dry_run: bool,
    /// From the start of the process's work to here.
    pub seconds: f64,
}

/// Who hears what happens.
pub trait Audience {
    /// The agent is ready.
    fn started(&mut self, started: &Started);
    /// Something happened.
    fn happening(&mut self, happening: &Happening);
}

/// Runs the agent until SIGINT or SIGTERM.
///
/// # Errors
/// What keeps it from starting; a failure of the event source.
pub fn run(config: Config, audience: impl Audience) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    let done = runtime.block_on(serve(config, audience));
    // Threads that hang in a dead file system must not keep the process.
    runtime.shutdown_background();
    done
}

async fn serve(config: Config, mut audience: impl Audience) -> anyhow::Result<()> {
    let began = Instant::now();
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot take SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot take SIGTERM")?;

    let roots = catalog::open_roots(&config.roots, config.wait)?;
    let root_paths = roots.iter().map(|root| root.path.to_path_buf()).collect();
    let (tell, mut catalog_events) = mpsc::channel(256);
    let catalog = CatalogService::start(roots, std::sync::Arc::new(Devices::default()), tell)?;

    // The map of watched files cannot grow: its capacity follows from the first scan.
    let mut found: Vec<FileId> = Vec::new();
    let report = loop {
        tokio::select! {
            event = catalog_events.recv() => match event.context("the catalog ended before its first scan")? {
                CatalogEvent::Watched(files) => found.extend(files.iter().map(|(file, _)| *file)),
                CatalogEvent::Warning(warning) => tracing::warn!("{warning}"),
                CatalogEvent::Scanned(report) => break report,
                _ => {}
            },
            _ = interrupt.recv() => return Ok(()),
            _ = terminate.recv() => return Ok(()),
        }
    };
    for warning in &report.warnings {
        tracing::warn!("{warning}");
    }
    let capacity = (found.len() as u64 * 2)
        .clamp(LEAST_CAPACITY, MOST_CAPACITY)
        .next_power_of_two();
    let options = Options {
        events: config.events,
        capacity: u32::try_from(capacity).unwrap_or(u32::MAX),
        empty: config.empty_probes,
    };
    let (mut source, attachment) = EbpfSource::open(options)?;
    let mut ring = readiness::of(source.as_fd()).context("cannot wait for the event ring")?;

    let (tell, mut outcomes) = mpsc::channel(1024);
    let (answer, mut answers) = mpsc::channel(1024);
    let mut wiring = Wiring::new(&config, catalog, tell, answer)?;
    wiring.watch(&mut source, found)?;

    let started = Started {
        version: env!("CARGO_PKG_VERSION"),
        kernel: nix::sys::utsname::uname()
            .map(|name| name.release().to_string_lossy().into_owned())
            .unwrap_or_default(),
        attachment,
        roots: root_paths,
        scan: report.lines(),
        files: report.files,
        bytes: report.bytes,
        ceiling: config.ceiling,
        dry_run: config.dry_run,
        seconds: began.elapsed().as_secs_f64(),
    };
    audience.started(&started);
    let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Ready]);

    loop {
        let timer = wiring.timer();
        tokio::select! {
            biased;
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
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
            event = catalog_events.recv() => {
                wiring.catalog_event(&mut source, event.context("the catalog ended")?)?;
            }
            () = timer => wiring.tick(),
        }
        // One turn takes what else is there, so that a busy ring does not starve the outcomes.
        while let Ok(outcome) = outcomes.try_recv() {
            wiring.outcome(outcome);
        }
        wiring.carry_out(&mut source, &mut audience);
    }
    let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Stopping]);
    wiring.stop();
    Ok(())
}
