//! A prefetcher that is told what readers do, as a process of its own: it reads what it wants with `read`, and throws it away.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    fs::File,
    io::Write as _,
    os::unix::{fs::FileExt, net::UnixDatagram},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use nitro_user::{
    sim::baseline::{Baseline, Named},
    units::STEP,
};
use serde::{Deserialize, Serialize};

use crate::{limit::IoLimit, sweep, sys};

/// The hidden subcommand.
pub const SUBCOMMAND: &str = "day-warmer";

/// Steps ahead of a reader that a sequence is read, as in the simulator.
const AHEAD: u64 = 16;

/// It is there so soon.
const READY: Duration = Duration::from_secs(5);

/// What a reader tells.
#[derive(Debug, Serialize, Deserialize)]
pub struct Notice {
    pub process: u32,
    pub path: PathBuf,
    pub at: u64,
    pub is_opened: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    Siblings,
    Sequence,
    WholeFile,
}

impl Kind {
    const fn of(baseline: Baseline) -> Self {
        match baseline {
            Baseline::Siblings => Self::Siblings,
            Baseline::Sequence => Self::Sequence,
            Baseline::WholeFile => Self::WholeFile,
        }
    }

    const fn baseline(self) -> Baseline {
        match self {
            Self::Siblings => Baseline::Siblings,
            Self::Sequence => Baseline::Sequence,
            Self::WholeFile => Baseline::WholeFile,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Siblings => "siblings",
            Self::Sequence => "sequence",
            Self::WholeFile => "whole-file",
        }
    }
}

/// What the hidden subcommand takes; paths come through standard input, one in each line.
#[derive(Clone, Debug, Args)]
pub struct WarmerArgs {
    kind: Kind,
    socket: PathBuf,
}

/// A prefetcher at work; ended on drop.
pub struct Warmer {
    child: Child,
    socket: PathBuf,
}

impl Warmer {
    /// Starts one in a group, and waits until it listens.
    pub fn start(program: &Path, kind: Baseline, socket: &Path, paths: &[PathBuf], group: &IoLimit) -> Result<Self> {
        let _ = std::fs::remove_file(socket);
        let mut command = Command::new(program);
        command
            .arg(SUBCOMMAND)
            .arg(Kind::of(kind).name())
            .arg(socket)
            .stdin(Stdio::piped());
        sys::end_with_parent(&mut command);
        group.join(&mut command)?;
        let child = command.spawn().context("start a prefetcher")?;
        sweep::adopt(child.id());
        let mut warmer = Self {
            child,
            socket: socket.to_owned(),
        };
        let lines: String = paths.iter().map(|path| format!("{}\n", path.display())).collect();
        if let Some(mut input) = warmer.child.stdin.take() {
            input
                .write_all(lines.as_bytes())
                .context("tell a prefetcher of the files")?;
        }
        let deadline = Instant::now() + READY;
        while !socket.exists() {
            ensure!(
                Instant::now() < deadline,
                "a prefetcher does not listen at {}",
                socket.display()
            );
            thread::sleep(Duration::from_millis(5));
        }
        Ok(warmer)
    }

    /// Where it listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }
}

impl Drop for Warmer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        sweep::disown(self.child.id());
    }
}

/// A reader: what is left to be read for it, and what was given out so far.
type Reader = (Arc<Queue>, HashSet<(usize, u64)>);

/// Steps of files that one reader's thread is to read.
#[derive(Default)]
struct Queue {
    left: Mutex<VecDeque<(usize, u64)>>,
    more: Condvar,
}

/// A prefetcher in this process, until it is ended.
///
/// # Errors
/// The socket cannot be made.
pub fn warm(args: &WarmerArgs) -> Result<()> {
    let names: Vec<PathBuf> = std::io::stdin()
        .lines()
        .map_while(Result::ok)
        .map(PathBuf::from)
        .collect();
    let sizes: Vec<u64> = names
        .iter()
        .map(|path| path.metadata().map_or(0, |metadata| metadata.len()))
        .collect();
    let named = || -> Vec<Named<'_>> {
        let both = names.iter().zip(&sizes);
        both.map(|(path, size)| Named { path, size: *size }).collect()
    };
    let wanted: Vec<Vec<usize>> = (0..names.len())
        .map(|read| {
            args.kind
                .baseline()
                .wanted(&named(), read)
                .into_iter()
                .map(|(file, _)| file)
                .collect()
        })
        .collect();
    let socket = UnixDatagram::bind(&args.socket).with_context(|| format!("listen at {}", args.socket.display()))?;
    let names: Arc<[PathBuf]> = names.into();
    let mut readers: HashMap<u32, Reader> = HashMap::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let length = socket.recv(&mut buffer).context("hear of a reader")?;
        let Ok(notice) = serde_json::from_slice::<Notice>(&buffer[..length]) else {
            continue;
        };
        let Some(file) = names.iter().position(|name| *name == notice.path) else {
            continue;
        };
        if args.kind != Kind::Sequence {
            if notice.is_opened {
                let steps = wanted[file]
                    .iter()
                    .flat_map(|file| (0..sizes[*file].div_ceil(STEP)).map(|step| (*file, step)));
                let (steps, names) = (steps.collect::<Vec<_>>(), names.clone());
                thread::spawn(move || steps.into_iter().for_each(|(file, step)| read(&names[file], step)));
            }
            continue;
        }
        let (queue, given) = readers.entry(notice.process).or_insert_with(|| {
            let (queue, names) = (Arc::new(Queue::default()), names.clone());
            let work = queue.clone();
            thread::spawn(move || work.read_all(&names));
            (queue, HashSet::new())
        });
        let mut left = queue.left.lock().unwrap_or_else(PoisonError::into_inner);
        left.drain(..).for_each(|place| {
            given.remove(&place);
        });
        let ahead = ahead(file, notice.at / STEP, &sizes, &wanted);
        left.extend(ahead.into_iter().filter(|place| given.insert(*place)));
        queue.more.notify_one();
    }
}

/// The steps straight ahead, on into the next file.
fn ahead(mut file: usize, step: u64, sizes: &[u64], next: &[Vec<usize>]) -> Vec<(usize, u64)> {
    let (mut step, mut steps) = (step + 1, Vec::new());
    while (steps.len() as u64) < AHEAD {
        if step * STEP < sizes[file] {
            steps.push((file, step));
            step += 1;
        } else if let Some(next) = next[file].first() {
            (file, step) = (*next, 0);
        } else {
            break;
        }
    }
    steps
}

impl Queue {
    fn read_all(&self, names: &[PathBuf]) {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match left.pop_front() {
                Some((file, step)) => {
                    drop(left);
                    read(&names[file], step);
                    left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
                }
                None => left = self.more.wait(left).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}

/// Reads a step; a file that cannot be read is none of its business.
fn read(path: &Path, step: u64) {
    let Ok(file) = File::open(path) else { return };
    let mut buffer = vec![0; STEP as usize];
    let _ = file.read_at(&mut buffer, step * STEP);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_goes_on_into_the_next_file_and_ends_with_the_last() {
        let sizes = [3 * STEP, STEP + 1];
        let next = [vec![1], vec![]];
        assert_eq!(ahead(0, 1, &sizes, &next), [(0, 2), (1, 0), (1, 1)]);
        assert!(ahead(1, 1, &sizes, &next).is_empty());
    }
}
