//! The catalog on real directories and real inotify.

mod changes;
mod churn;
mod describe;
mod links;
mod matching;
mod presence;
mod scan;
mod suggest;
mod unwatch;

use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::mpsc::{Receiver, channel};

use super::{
    Catalog, CatalogEvent, CatalogRequest, ScanReport, exclude::Exclude, identity::Devices, model::Description,
    open_roots, service::CatalogService,
};
use crate::units::FileId;

/// Far more than anything takes; a test that waits this long has failed.
const DEADLINE: Duration = Duration::from_secs(10);

/// Creates a sparse file, with the directories above it.
fn create(path: &Path, size: u64) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    File::create(path).unwrap().set_len(size).unwrap();
}

fn write(path: &Path, bytes: impl AsRef<[u8]>) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

fn id(path: &Path) -> FileId {
    Devices::default().version_of(File::open(path).unwrap()).unwrap().file
}

/// A temporary directory, by its canonical path.
fn directory() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().canonicalize().unwrap();
    (dir, path)
}

fn scan(dirs: &[&Path]) -> (Catalog, ScanReport) {
    let dirs: Vec<_> = dirs.iter().map(|dir| dir.to_path_buf()).collect();
    Catalog::scan(&open_roots(&dirs, false).unwrap(), Arc::default(), Exclude::default())
}

/// A running service.
struct Running {
    service: CatalogService,
    events: Receiver<CatalogEvent>,
}

impl Running {
    /// Starts the service and waits for its first scan.
    fn start(dirs: &[&Path]) -> (Self, Vec<CatalogEvent>, ScanReport) {
        let dirs: Vec<_> = dirs.iter().map(|dir| dir.to_path_buf()).collect();
        let (sender, events) = channel(64);
        let service = CatalogService::start(
            open_roots(&dirs, true).unwrap(),
            Arc::default(),
            Exclude::default(),
            sender,
        )
        .unwrap();
        let mut running = Self { service, events };
        let mut before = Vec::new();
        let report = running.wait_for("the first scan", |event| match event {
            CatalogEvent::Scanned(report) => Some(report),
            other => {
                before.push(other);
                None
            }
        });
        (running, before, report)
    }

    /// Waits for the event that `pick` takes.
    fn wait_for<T>(&mut self, what: &str, mut pick: impl FnMut(CatalogEvent) -> Option<T>) -> T {
        let deadline = Instant::now() + DEADLINE;
        while Instant::now() < deadline {
            match self.events.try_recv() {
                Ok(event) => {
                    if let Some(picked) = pick(event) {
                        return picked;
                    }
                }
                Err(_) => std::thread::sleep(Duration::from_millis(2)),
            }
        }
        panic!("waited in vain for {what}");
    }

    fn watched(&mut self, file: FileId) -> u64 {
        self.wait_for(&format!("{file:?} to be watched"), |event| match event {
            CatalogEvent::Watched(files) => files.iter().find(|(other, _)| *other == file).map(|(_, size)| *size),
            _ => None,
        })
    }

    fn unwatched(&mut self, file: FileId) {
        self.wait_for(&format!("{file:?} to go"), |event| match event {
            CatalogEvent::Unwatched(files) => files.contains(&file).then_some(()),
            _ => None,
        });
    }

    fn changed(&mut self, file: FileId) {
        self.wait_for(&format!("{file:?} to change"), |event| {
            matches!(event, CatalogEvent::Changed(other) if other == file).then_some(())
        });
    }

    fn describe(&mut self, file: FileId) -> Option<Description> {
        self.service.ask(CatalogRequest::Describe(file)).unwrap();
        self.wait_for("a description", |event| match event {
            CatalogEvent::Described(description, other) if other == file => Some(description),
            _ => None,
        })
    }
}
