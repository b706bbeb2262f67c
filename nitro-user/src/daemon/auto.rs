//! `--watch auto`: what was found becomes roots, and is told.
//!
//! In: findings of `discover`. Out: requests to the catalog, which takes up what is news, and warnings about what is not watched unasked.

use super::wiring::Wiring;
use crate::{
    catalog::{CatalogRequest, WatchRoot},
    discover::{Findings, NotWatched, Suggestion, finder::Finder},
    observe::status::{AutoStatus, DirectoryStatus, NotWatchedStatus},
};

/// Directories of which it is remembered that they are not watched.
const MOST_NOT_WATCHED: usize = 64;

/// The first look. Reads /proc: call it on a thread that may wait.
pub fn look() -> (Finder, Findings) {
    let mut finder = Finder::default();
    let found = finder.look();
    (finder, found)
}

/// The root that a suggestion means.
pub fn root_of(suggestion: &Suggestion) -> WatchRoot {
    WatchRoot::suggested(suggestion.top.clone(), suggestion.identity, &suggestion.why)
}

/// What is said of a look at everything.
pub fn status_of(found: &Findings) -> AutoStatus {
    AutoStatus {
        processes: found.processes as u64,
        homes: found.homes as u64,
        not_watched: found.not_watched.iter().map(not_watched).collect(),
    }
}

fn not_watched(not: &NotWatched) -> NotWatchedStatus {
    NotWatchedStatus {
        path: not.path.to_string_lossy().into_owned(),
        why: not.why.clone(),
        reason: not.reason.clone(),
    }
}

impl Wiring {
    /// Another look found something.
    pub fn found(&mut self, found: Findings) {
        let Some((started, _)) = &mut self.started else { return };
        let Some(auto) = &mut started.auto else { return };
        let news = found.not_watched.iter().map(not_watched);
        let news: Vec<_> = news
            .filter(|not| auto.not_watched.iter().all(|known| known.path != not.path))
            .collect();
        for NotWatchedStatus { path, why, reason } in &news {
            tracing::warn!("{path:?} ({why}) {reason}");
        }
        if found.processes > 0 {
            *auto = status_of(&found);
        } else {
            auto.not_watched.extend(news);
            auto.not_watched.truncate(MOST_NOT_WATCHED);
        }
        let known = |suggestion: &Suggestion| {
            let path = suggestion.top.to_string_lossy();
            started.found.roots.iter().any(|root| *root == path)
        };
        for suggestion in found.watch.iter().filter(|suggestion| !known(suggestion)) {
            // Busy: the next look finds it again.
            let _ = self.catalog.ask(CatalogRequest::Watch(root_of(suggestion)));
        }
    }

    /// Notes which directories of `now` were found since `before`, to be told.
    pub fn note_news(&mut self, before: &[DirectoryStatus], now: &[DirectoryStatus]) {
        let is_new = |directory: &&DirectoryStatus| {
            let known = before.iter().any(|other| other.present && other.path == directory.path);
            directory.present && directory.why.is_some() && !known
        };
        self.news.extend(now.iter().filter(is_new).cloned());
        // Reached through a process that has ended: another one of its namespace may be there.
        let is_gone = |directory: &DirectoryStatus| {
            let known = now.iter().any(|other| other.path == directory.path);
            directory.why.is_some() && directory.path.starts_with("/proc/") && !known
        };
        if before.iter().any(is_gone)
            && let Some(finder) = &self.finder
        {
            finder.look();
        }
    }
}
