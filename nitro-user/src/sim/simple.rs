//! A prefetcher that knows names only: what it has its workers bring in, for the files that readers open and the places where they are.
//!
//! It chooses as [`Baseline`] does and works as the agent does, so that the choice alone is compared: the same workers, the same steps, and no more on its way than they are good for.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    path::PathBuf,
};

use super::{
    Files,
    baseline::{Baseline, Named},
    warmer::Command,
};
use crate::{
    engine::{LoadId, action::Manner},
    units::{ByteRange, STEP},
};

/// Steps on their way at most, for one worker.
const IN_FLIGHT: usize = 8;

/// Steps ahead of a reader that [`Baseline::Sequence`] has brought in.
const AHEAD: u64 = 16;

/// What one worker does.
#[derive(Debug, Default)]
struct Job {
    left: VecDeque<(usize, u64)>,
    in_flight: usize,
    /// What it was given so far.
    given: BTreeSet<(usize, u64)>,
}

/// The prefetcher.
#[derive(Debug)]
pub struct Simple {
    kind: Baseline,
    sizes: Vec<u64>,
    /// For each file what is wanted when it is begun.
    wanted: Vec<Vec<(usize, ByteRange)>>,
    jobs: BTreeMap<LoadId, Job>,
    next: u64,
    /// The job of each process.
    of_process: BTreeMap<u32, LoadId>,
}

impl Simple {
    /// Of this kind, among files with these paths.
    pub fn new(kind: Baseline, files: &Files, names: &[PathBuf]) -> Self {
        let sizes: Vec<u64> = files.parts.iter().map(|part| part.size).collect();
        let named: Vec<Named<'_>> = names
            .iter()
            .zip(&sizes)
            .map(|(path, size)| Named { path, size: *size })
            .collect();
        Self {
            kind,
            wanted: (0..named.len()).map(|read| kind.wanted(&named, read)).collect(),
            sizes,
            jobs: BTreeMap::new(),
            next: 1,
            of_process: BTreeMap::new(),
        }
    }

    /// A process opens a file.
    pub fn opened(&mut self, part: usize) -> Vec<(LoadId, Command)> {
        if self.kind == Baseline::Sequence {
            return Vec::new();
        }
        let files: Vec<usize> = self
            .wanted
            .get(part)
            .into_iter()
            .flatten()
            .map(|(part, _)| *part)
            .collect();
        let mut job = Job::default();
        for file in files {
            // What is being brought in already is not begun again.
            let is_there = |job: &Job| job.left.iter().any(|(part, _)| *part == file);
            if !self.jobs.values().any(is_there) {
                let steps = self.sizes.get(file).copied().unwrap_or(0).div_ceil(STEP);
                job.left.extend((0..steps).map(|step| (file, step)));
            }
        }
        let id = LoadId(self.next);
        self.next += 1;
        self.jobs.insert(id, job);
        self.hand_out(id)
    }

    /// A process is at this step.
    pub fn reached(&mut self, process: u32, part: usize, step: u64) -> Vec<(LoadId, Command)> {
        if self.kind != Baseline::Sequence {
            return Vec::new();
        }
        let next = &mut self.next;
        let id = *self.of_process.entry(process).or_insert_with(|| {
            *next += 1;
            LoadId(*next)
        });
        let ahead = self.ahead(part, step);
        let job = self.jobs.entry(id).or_default();
        // What lay ahead of where the reader was before is not wanted any more.
        for place in std::mem::take(&mut job.left) {
            job.given.remove(&place);
        }
        job.left = ahead.into_iter().filter(|place| job.given.insert(*place)).collect();
        self.hand_out(id)
    }

    /// The steps straight ahead, on into the next file.
    fn ahead(&self, part: usize, step: u64) -> Vec<(usize, u64)> {
        let (mut part, mut step, mut ahead) = (part, step + 1, Vec::new());
        while (ahead.len() as u64) < AHEAD {
            if step * STEP < self.sizes.get(part).copied().unwrap_or(0) {
                ahead.push((part, step));
                step += 1;
            } else if let Some((next, _)) = self.wanted.get(part).and_then(|wanted| wanted.first()) {
                (part, step) = (*next, 0);
            } else {
                break;
            }
        }
        ahead
    }

    /// A step of a job came back.
    pub fn returned(&mut self, id: LoadId) -> Vec<(LoadId, Command)> {
        if let Some(job) = self.jobs.get_mut(&id) {
            job.in_flight = job.in_flight.saturating_sub(1);
        }
        self.hand_out(id)
    }

    fn hand_out(&mut self, id: LoadId) -> Vec<(LoadId, Command)> {
        let Some(job) = self.jobs.get_mut(&id) else {
            return Vec::new();
        };
        let mut commands = Vec::new();
        while job.in_flight < IN_FLIGHT
            && let Some((part, step)) = job.left.pop_front()
        {
            job.in_flight += 1;
            let size = self.sizes.get(part).copied().unwrap_or(0);
            let command = Command {
                position: 0,
                part,
                range: ByteRange::of_step(step, size),
                manner: Manner::default(),
            };
            commands.push((id, command));
        }
        if job.in_flight == 0 && self.kind != Baseline::Sequence {
            self.jobs.remove(&id);
        }
        commands
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{catalog::model::LayoutKind, units::ByteRange};

    fn simple(kind: Baseline, sizes: &[u64]) -> Simple {
        let names: Vec<PathBuf> = (0..sizes.len()).map(|part| format!("/m/{part}").into()).collect();
        Simple::new(kind, &Files::one_model(sizes, LayoutKind::Single, 0), &names)
    }

    fn places(commands: &[(LoadId, Command)]) -> Vec<(usize, u64)> {
        let place = |(_, command): &(LoadId, Command)| (command.part, command.range.start / STEP);
        commands.iter().map(place).collect()
    }

    #[test]
    fn a_file_comes_step_by_step_and_no_more_than_a_few_at_once() {
        let mut simple = simple(Baseline::WholeFile, &[20 * STEP + 5]);
        let first = simple.opened(0);
        assert_eq!(places(&first), (0..8).map(|step| (0, step)).collect::<Vec<_>>());
        assert!(simple.opened(0).is_empty(), "it is on its way");
        let rest: Vec<_> = (0..13).flat_map(|_| simple.returned(LoadId(1))).collect();
        assert_eq!(
            rest.last().map(|(_, command)| command.range),
            Some(ByteRange::new(20 * STEP, 5))
        );
    }

    #[test]
    fn a_sequence_goes_on_into_the_next_file_and_follows_its_reader() {
        let mut simple = simple(Baseline::Sequence, &[4 * STEP, 40 * STEP]);
        let first = simple.reached(7, 0, 1);
        assert_eq!(places(&first)[..4], [(0, 2), (0, 3), (1, 0), (1, 1)]);
        let id = first[0].0;
        // It has jumped: what was not handed out is not.
        assert!(simple.reached(7, 1, 20).is_empty());
        assert_eq!(places(&simple.returned(id)), [(1, 21)]);
        assert!(simple.opened(1).is_empty());
    }
}
