//! Few rights after the start: the first thread gives up what the agent's work does not need before it starts any other, and one thread keeps
//! everything for as long as the start takes.
//!
//! In: the configuration, which says which features are on. Out: a thread that does the privileged steps, and what is left to everybody else. Threads inherit
//! rights from whoever starts them, so that nothing has to be synchronised: all but the starter have few from their first instruction, and when the agent says that it
//! is ready the starter has ended. A program that has to be started is started before all of it.

use std::{
    os::unix::fs::MetadataExt,
    path::Path,
    sync::mpsc::{Receiver, Sender, channel},
    thread::JoinHandle,
};

use anyhow::Context;

use crate::{
    config::Config,
    sys::{
        capability::{self, Feature},
        confine::{self, Confined},
    },
    units::ByteCount,
    warm::{
        account::{Accountant, Helpers},
        keeper::Keeper,
    },
};

/// What is left after the rights have been given up, and who still has all.
#[derive(Debug)]
pub struct Rights {
    /// Does what takes more.
    pub(super) starter: Starter,
    /// What everybody else has.
    pub(super) confined: Confined,
    /// Makes the processes that warm on others' account, where that was asked for: another program, with rights of its own.
    pub(super) accountant: Option<Accountant>,
    /// Makes the processes that hold pins, where something is to be held: another program, too.
    pub(super) keeper: Option<Keeper>,
}

/// Gives up what `config` does not need, for this thread and all that it will start. To be called before there is another thread.
///
/// # Errors
/// A capability is missing that nothing works without; no thread to be had.
pub fn prepare(config: &Config) -> anyhow::Result<Rights> {
    capability::check(config.events.needs_ebpf())?;
    // A program: none can be started any more below.
    let accountant = match config.charge_consumer && !config.dry_run {
        true => Some(Accountant::start().context("cannot start the process that warms on others' account")?),
        false => None,
    };
    // The same, and who is charged for pages is to be seen by none who has given up CAP_SYS_ADMIN. Both kinds of processes are the agent's own to whoever hears of accesses.
    let keeper = match config.retain.pin > ByteCount(0) && !config.dry_run {
        true => {
            let own = accountant.as_ref().map_or_else(Helpers::default, Accountant::helpers);
            let started = Keeper::start(config.retain.pin, own);
            Some(started.context("cannot start the process that holds what is pinned")?)
        }
        false => None,
    };
    let starter = Starter::begin().context("cannot start a thread")?;
    let confined = confine::confine(&features(config));
    Ok(Rights {
        starter,
        confined,
        accountant,
        keeper,
    })
}

/// What of the agent's work that takes rights of its own is on.
fn features(config: &Config) -> Vec<Feature> {
    let mut features = Vec::new();
    let socket = config.socket.parent().is_some_and(|folder| !is_ours(folder));
    if socket || !is_ours(&config.state) {
        features.push(Feature::Elsewhere);
    }
    features
}

/// Whether names in `folder` can be made and removed without a capability; of one that is not there yet, whether it can be made.
fn is_ours(folder: &Path) -> bool {
    const OWNER: u32 = 0o300;
    const OTHERS: u32 = 0o003;
    let folder = if folder.as_os_str().is_empty() {
        Path::new(".")
    } else {
        folder
    };
    let us = nix::unistd::geteuid().as_raw();
    match folder.metadata() {
        Ok(found) => found.mode() & OTHERS == OTHERS || found.uid() == us && found.mode() & OWNER == OWNER,
        Err(_) => folder.parent().is_none_or(is_ours),
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// A thread that has the rights of the process as it was started, until it ends. A thread that is started there begins with all of them, and has to confine itself.
#[derive(Debug)]
pub(super) struct Starter {
    jobs: Sender<Job>,
    thread: JoinHandle<()>,
}

impl Starter {
    fn begin() -> std::io::Result<Self> {
        let (jobs, inbox): (_, Receiver<Job>) = channel();
        let thread = std::thread::Builder::new().name("nitro-start".into()).spawn(move || {
            while let Ok(job) = inbox.recv() {
                job();
            }
            // The kernel may show it for a moment longer than it lives.
            let _ = capability::keep_none();
        })?;
        Ok(Self { jobs, thread })
    }

    /// Does something there and waits for it, without blocking. One step at a time is asked for, so its queue holds no more than one.
    ///
    /// # Errors
    /// It panicked.
    pub(super) async fn run<T: Send + 'static>(&self, what: impl FnOnce() -> T + Send + 'static) -> anyhow::Result<T> {
        let (tell, done) = tokio::sync::oneshot::channel();
        // Whoever asked may have gone: then nobody wants to know.
        let job = move || drop(tell.send(what()));
        let _ = self.jobs.send(Box::new(job));
        done.await.context("a thread of the start has failed")
    }

    /// Ends it. To be called when nothing is being done there, so that it takes no time.
    pub(super) fn end(self) {
        drop(self.jobs);
        let _ = self.thread.join();
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_directory_is_ours_if_names_can_be_removed_from_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        assert!(is_ours(path));
        assert!(is_ours(&path.join("not/there yet")));
        assert!(is_ours(Path::new("/tmp")));
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o500)).unwrap();
        assert!(!is_ours(path) && !is_ours(&path.join("not/there yet")));
        if nix::unistd::geteuid().is_root() {
            std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
            std::os::unix::fs::chown(path, Some(65534), None).unwrap();
            assert!(!is_ours(path));
        }
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o700)).unwrap();
    }

    #[tokio::test]
    async fn the_starter_keeps_what_the_thread_that_began_it_gives_up() {
        let permitted = || caps::read(None, caps::CapSet::Permitted).unwrap();
        let (before, starter) = (permitted(), Starter::begin().unwrap());
        let there = starter.run(permitted).await.unwrap();
        assert_eq!(there, before);
        let name = starter.run(|| std::thread::current().name().map(str::to_owned)).await;
        assert_eq!(name.unwrap().as_deref(), Some("nitro-start"));
        starter.end();
    }

    #[tokio::test]
    async fn a_step_that_panics_is_an_error() {
        let starter = Starter::begin().unwrap();
        assert!(starter.run(|| panic!("on purpose")).await.is_err());
    }
}
