//! From candidates to directories that are watched.
//!
//! In: what processes, homes and the system suggest. Out: [`Findings`]. Each candidate is walked to as its user could; what is found in another
//! mount namespace is looked for here, since a directory of a volume or a bind mount has a path of ours, too. Where it has none it is reached through
//! the process that named it. What is the same directory counts once.

use std::{
    collections::{HashMap, HashSet},
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
};

use super::{
    Findings, NotWatched, Suggestion,
    facts::{self, Run, Seen},
    judge::{self, Objection},
    places::{self, Candidate},
    walk::{self, Place, Stop, User},
};
use crate::sys::{
    mounts::{self, Mount, Mounts},
    overlay::Overlay,
    top::{Elsewhere, Top},
};

/// Processes whose words are remembered.
const MOST_PROCESSES: usize = 65_536;
/// Directories that the processes of one user other than root may name.
const MOST_OF_A_USER: usize = 16;
/// Candidates that are remembered of the processes of one user other than root, and of all of them: each is a path of up to 4 KiB, and a walk at every look.
const MOST_SAID_BY_A_USER: usize = 1024;
const MOST_SAID: usize = 16_384;
/// Directories found in one look.
const MOST_FOUND: usize = 64;
/// Directories of which it is said that they are not watched.
const MOST_NOT_WATCHED: usize = 32;
/// Views of one file system that are tried for a directory of another mount namespace.
const MOST_VIEWS: usize = 16;

/// A candidate with what is needed to judge it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Asked {
    candidate: Candidate,
    user: User,
    /// The home of whoever says so.
    home: Option<PathBuf>,
    /// A process that sees it, where that is not what we see.
    elsewhere: Option<u32>,
}

/// What is remembered of a process, as long as it runs.
#[derive(Clone, Debug)]
struct Known {
    asked: Vec<Asked>,
    user: u32,
    view: String,
}

/// Finds directories with models.
#[derive(Debug, Default)]
pub struct Finder {
    known: HashMap<Run, Known>,
    /// How many candidates are remembered of each user other than root.
    said: HashMap<u32, usize>,
}

impl Finder {
    /// Looks at all processes, homes and the system.
    pub fn look(&mut self) -> Findings {
        let runs: HashSet<Run> = facts::processes().into_iter().filter_map(facts::run).collect();
        self.forget(|run| !runs.contains(run));
        for run in runs {
            self.meet(run);
        }
        let homes = facts::homes();
        let mut look = Look::new();
        // The processes' own words first: they say best why.
        let mut views = HashMap::new();
        let mut known: Vec<_> = self.known.iter().collect();
        known.sort_unstable_by_key(|(run, _)| run.pid);
        for known in known.into_iter().map(|(_, known)| known) {
            for asked in &known.asked {
                // All processes with one view see the same: the first speaks for them.
                let key = (known.view.as_str(), asked.user.clone(), asked.candidate.path.as_path());
                if views.insert(key, ()).is_none() {
                    look.judge(asked);
                }
            }
        }
        for home in &homes {
            let whose = format!("of user {}", home.name);
            for candidate in places::of_home(&home.path, &whose) {
                look.judge(&Asked {
                    candidate,
                    user: home.user.clone(),
                    home: None,
                    elsewhere: None,
                });
            }
        }
        for candidate in places::of_system() {
            look.judge(&Asked {
                candidate,
                user: User::root(),
                home: None,
                elsewhere: None,
            });
        }
        Findings {
            processes: self.known.len(),
            homes: homes.len(),
            ..look.finish()
        }
    }

    /// Looks at a process that has just begun a program.
    pub fn look_at(&mut self, pid: u32) -> Findings {
        let Some(run) = facts::run(pid) else {
            return Findings::default();
        };
        self.forget(|other| other.pid == pid);
        self.meet(run.clone());
        let Some(known) = self.known.get(&run).filter(|known| !known.asked.is_empty()) else {
            return Findings::default();
        };
        let mut look = Look::new();
        known.asked.iter().for_each(|asked| look.judge(asked));
        look.finish()
    }

    /// Hears what a process says, unless that is known.
    fn meet(&mut self, run: Run) {
        if self.known.contains_key(&run) || self.known.len() >= MOST_PROCESSES {
            return;
        }
        let Some(seen) = facts::look(&run) else { return };
        let mut known = Known {
            asked: asked(&seen),
            user: seen.user.user,
            view: seen.view,
        };
        if known.user != 0 {
            let all: usize = self.said.values().sum();
            let said = self.said.entry(known.user).or_default();
            let left = MOST_SAID_BY_A_USER
                .saturating_sub(*said)
                .min(MOST_SAID.saturating_sub(all));
            known.asked.truncate(left);
            *said += known.asked.len();
        }
        self.known.insert(run, known);
    }

    fn forget(&mut self, is_over: impl Fn(&Run) -> bool) {
        for (_, known) in self.known.extract_if(|run, _| is_over(run)) {
            if let Some(said) = self.said.get_mut(&known.user) {
                *said = said.saturating_sub(known.asked.len());
            }
        }
        self.said.retain(|_, said| *said > 0);
    }
}

/// What a process suggests. Of one in a namespace of its own its home counts, too: the list of users there is another one.
fn asked(seen: &Seen) -> Vec<Asked> {
    let process = &seen.process;
    let home = process.home();
    let mut candidates = places::of_process(process);
    if let Some(home) = home.as_ref().filter(|_| seen.is_elsewhere) {
        let whose = format!("in the home of {} (pid {})", process.name, process.pid);
        candidates.extend(places::of_home(home, &whose));
    }
    let asked = candidates.into_iter().map(|candidate| Asked {
        candidate,
        user: seen.user.clone(),
        home: home.clone(),
        elsewhere: seen.is_elsewhere.then_some(process.pid),
    });
    asked.collect()
}

/// What one look has found so far.
struct Look {
    mounts: Mounts,
    /// The mount tables of others, by process.
    others: HashMap<u32, Option<Mounts>>,
    homes: Vec<PathBuf>,
    found: Vec<Suggestion>,
    /// How many directories each user has named.
    counts: HashMap<u32, usize>,
    not_watched: Vec<NotWatched>,
}

/// A directory that is watched: where it is, and which it is.
type Led = (Top, (u32, u64));

/// Where a candidate led, if not to a directory that is watched.
enum Away {
    /// Nowhere, or to something else.
    Nowhere,
    /// To a directory that is not watched unasked.
    To(PathBuf, Objection),
}

impl Look {
    fn new() -> Self {
        let homes = facts::homes().into_iter().filter(|home| home.is_personal);
        Self {
            mounts: Mounts::read(Path::new(mounts::OWN)).unwrap_or_default(),
            others: HashMap::new(),
            homes: homes.map(|home| home.path).collect(),
            found: Vec::new(),
            counts: HashMap::new(),
            not_watched: Vec::new(),
        }
    }

    fn finish(mut self) -> Findings {
        // What lies in another one comes with it.
        let tops: Vec<PathBuf> = self.found.iter().map(|found| found.top.to_path_buf()).collect();
        self.found
            .retain(|found| !tops.iter().any(|top| *found.top != **top && found.top.starts_with(top)));
        self.not_watched.sort();
        self.not_watched.dedup_by(|one, other| one.path == other.path);
        self.not_watched
            .retain(|not| !tops.iter().any(|top| not.path.starts_with(top)));
        self.not_watched.truncate(MOST_NOT_WATCHED);
        Findings {
            watch: self.found,
            not_watched: self.not_watched,
            ..Findings::default()
        }
    }

    fn judge(&mut self, asked: &Asked) {
        let (path, objection) = match self.lead(asked) {
            Err(Away::Nowhere) => return,
            Err(Away::To(path, objection)) => (path, objection),
            Ok((_, identity)) if self.found.iter().any(|found| found.identity == identity) => return,
            Ok((top, identity)) => {
                let count = self.counts.entry(asked.user.user).or_default();
                let too_many = asked.user.user != 0 && *count >= MOST_OF_A_USER;
                if too_many || self.found.len() >= MOST_FOUND {
                    (top.to_path_buf(), Objection::TooMany)
                } else {
                    *count += 1;
                    self.found.push(Suggestion {
                        top,
                        identity,
                        why: asked.candidate.why.clone(),
                    });
                    return;
                }
            }
        };
        // Anybody can name anything: what is not watched must not fill the memory either.
        if self.not_watched.len() < 16 * MOST_NOT_WATCHED {
            let candidate = &asked.candidate;
            let why = if candidate.is_guess && candidate.path != path && candidate.path.starts_with(&path) {
                "there may be models in it".to_owned()
            } else {
                candidate.why.clone()
            };
            self.not_watched.push(NotWatched {
                path,
                why,
                reason: objection.to_string(),
            });
        }
    }

    /// Goes where a candidate leads, in the namespace of who named it, and finds the place here.
    fn lead(&mut self, asked: &Asked) -> Result<Led, Away> {
        let Some(pid) = asked.elsewhere else {
            let top = facts::own_top().ok_or(Away::Nowhere)?;
            let place = reach(top.as_fd(), &self.mounts, asked)?;
            self.watch(&place, asked)?;
            return Ok((place.path.into(), place.identity));
        };
        let table = || Mounts::read(Path::new(&format!("/proc/{pid}/mountinfo"))).ok();
        let theirs = self.others.entry(pid).or_insert_with(table);
        let theirs = theirs.as_ref().ok_or(Away::Nowhere)?;
        // Held no longer than this look: it keeps a container's file system busy.
        let top = facts::top_of(pid).ok_or(Away::Nowhere)?;
        let place = reach(top.as_fd(), theirs, asked)?;
        drop(top);
        if let Some(here) = self.here(&place) {
            self.watch(&here, asked)?;
            return Ok((here.path.into(), here.identity));
        }
        self.watch(&place, asked)?;
        let elsewhere = Elsewhere::of(pid).ok_or(Away::Nowhere)?;
        Ok((Top::elsewhere(elsewhere, &place.path), place.identity))
    }

    /// Where a place of another namespace is seen from ours.
    fn here(&self, place: &Place) -> Option<Place> {
        let top = facts::own_top()?;
        let below = place.below_file_system()?;
        let paths = self.mounts.places_of(place.mount.device, &below);
        let walk = |path: PathBuf| walk::walk(top.as_fd(), &self.mounts, &path, &User::root()).ok();
        let mut found = paths.into_iter().take(MOST_VIEWS).filter_map(walk);
        found.find(|found| found.identity == place.identity)
    }

    /// Whether nothing speaks against the directory.
    fn watch(&self, place: &Place, asked: &Asked) -> Result<(), Away> {
        let homes: Vec<PathBuf> = self.homes.iter().chain(&asked.home).cloned().collect();
        let objection = if is_opaque(&place.mount) {
            Some(Objection::Overlay)
        } else {
            judge::objection(&place.path, &homes)
        };
        objection.map_or(Ok(()), |objection| Err(Away::To(place.path.clone(), objection)))
    }
}

/// Whether the pages of the files on a mount belong to other files, which cannot be found.
fn is_opaque(mount: &Mount) -> bool {
    match mount.kind.as_str() {
        "overlay" => Overlay::of(mount).is_none_or(|overlay| overlay.is_out_of_reach()),
        kind => matches!(kind, "aufs" | "unionfs"),
    }
}

/// The directory that a candidate means, seen from `top`.
fn reach(top: BorrowedFd<'_>, mounts: &Mounts, asked: &Asked) -> Result<Place, Away> {
    let candidate = &asked.candidate;
    let walk = |path: &Path| walk::walk(top, mounts, path, &asked.user);
    let stopped = |stop| match stop {
        Stop::Nothing => Away::Nowhere,
        // Nobody knows whether it is there at all.
        Stop::Closed if candidate.is_guess => Away::Nowhere,
        Stop::Foreign(at, what, kind) if candidate.is_guess && candidate.path.starts_with(&at) => {
            Away::To(at, Objection::Foreign(what, kind))
        }
        Stop::Foreign(_, what, kind) => Away::To(candidate.path.clone(), Objection::Foreign(what, kind)),
        Stop::Closed => Away::To(candidate.path.clone(), Objection::NotTheirs),
    };
    if candidate.signs.iter().any(|sign| walk(sign).is_err()) {
        return Err(Away::Nowhere);
    }
    let place = walk(&candidate.path).map_err(stopped)?;
    if place.is_directory {
        return Ok(place);
    }
    match place.path.parent().filter(|_| candidate.may_be_file) {
        Some(above) => walk(above).map_err(stopped),
        None => Err(Away::Nowhere),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    fn asked(path: &Path) -> Asked {
        Asked {
            candidate: Candidate {
                path: path.to_owned(),
                why: "because".into(),
                may_be_file: true,
                signs: Vec::new(),
                is_guess: false,
            },
            user: User::root(),
            home: None,
            elsewhere: None,
        }
    }

    fn look(paths: &[PathBuf]) -> Findings {
        let mut look = Look::new();
        for path in paths {
            look.judge(&asked(path));
        }
        look.finish()
    }

    fn directory() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::Builder::new().tempdir_in("/var/tmp").unwrap();
        let path = dir.path().canonicalize().unwrap();
        (dir, path)
    }

    #[test]
    fn one_directory_by_several_paths_is_found_once_and_what_is_below_it_not_at_all() {
        let (_dir, base) = directory();
        fs::create_dir_all(base.join("models/a")).unwrap();
        symlink(base.join("models"), base.join("link")).unwrap();
        fs::write(base.join("models/a/x.gguf"), "x").unwrap();
        let found =
            look(&["models/a", "link", "models", "models/a/x.gguf", "models/../link/."].map(|path| base.join(path)));
        let paths: Vec<_> = found.watch.iter().map(|found| found.top.to_path_buf()).collect();
        assert_eq!(paths, [base.join("models")]);
        assert_eq!(found.not_watched, []);
    }

    #[test]
    fn links_to_what_is_too_wide_or_the_systems_are_told_and_not_watched() {
        let (_dir, base) = directory();
        for (name, target) in [("top", "/"), ("etc", "/etc"), ("proc", "/proc"), ("home", "/root")] {
            symlink(target, base.join(name)).unwrap();
        }
        nix::unistd::mkfifo(&base.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let found = look(&["top", "etc", "proc", "home", "gone", "a\nb"].map(|path| base.join(path)));
        assert_eq!(found.watch, []);
        let told: Vec<_> = found.not_watched.iter().map(|not| not.path.to_str().unwrap()).collect();
        assert!(
            told.contains(&"/") && told.contains(&"/etc") && told.contains(&"/root"),
            "{told:?}"
        );
        assert_eq!(told.len(), 4);
        // The directory of a FIFO is one like any other; the FIFO is not opened.
        assert_eq!(look(&[base.join("pipe")]).watch.len(), 1);
    }

    #[test]
    fn of_homes_on_a_file_system_that_may_hang_one_line_is_said() {
        let (_dir, base) = directory();
        fs::create_dir_all(base.join("net/anna")).unwrap();
        fs::create_dir_all(base.join("bob/.ollama")).unwrap();
        symlink(base.join("net/big"), base.join("bob/.ollama/models")).unwrap();
        let mut look = Look::new();
        let table = format!(
            "1 0 8:1 / / rw - ext4 a rw\n2 1 0:9 / {}/net rw - nfs4 server:/ rw\n",
            base.display()
        );
        look.mounts = Mounts::parse(table.as_bytes());
        for home in ["net/anna", "bob"] {
            for candidate in places::of_home(&base.join(home), "of a user") {
                let path = candidate.path.clone();
                look.judge(&Asked {
                    candidate,
                    ..asked(&path)
                });
            }
        }
        let found = look.finish();
        assert_eq!(found.watch, []);
        let told: Vec<_> = found
            .not_watched
            .iter()
            .map(|not| (not.path.clone(), not.why.as_str()))
            .collect();
        let link = base.join("bob/.ollama/models");
        assert_eq!(
            told,
            [
                (link, "Ollama of a user"),
                (base.join("net"), "there may be models in it")
            ]
        );
    }

    #[test]
    fn one_user_cannot_name_any_number_of_directories() {
        let (_dir, base) = directory();
        let mut look = Look::new();
        fs::set_permissions(&base, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        for number in 0..2 * MOST_OF_A_USER {
            let path = base.join(number.to_string());
            fs::create_dir(&path).unwrap();
            fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
            look.judge(&Asked {
                user: User {
                    user: 4_000_000,
                    groups: vec![],
                },
                ..asked(&path)
            });
        }
        let found = look.finish();
        assert_eq!(
            (found.watch.len(), found.not_watched.len()),
            (MOST_OF_A_USER, MOST_OF_A_USER)
        );
    }

    #[test]
    fn without_its_signs_a_directory_is_another_one() {
        let (_dir, base) = directory();
        fs::create_dir_all(base.join("models")).unwrap();
        let script = |sign: &str| {
            let mut look = Look::new();
            let mut asked = asked(&base.join("models"));
            asked.candidate.signs = vec![base.join(sign)];
            look.judge(&asked);
            look.finish().watch.len()
        };
        assert_eq!((script("comfy"), script(".")), (0, 1));
    }
}
