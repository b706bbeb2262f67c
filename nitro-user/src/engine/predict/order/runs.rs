//! Runs of steps in an order, and where a step is in it.

use crate::engine::learn::row::{MOST_RUNS, Run};

/// Steps of a model of which an order is kept: eight TiB.
pub const MOST_STEPS: u64 = 1 << 22;

/// Adds a run, to the last one if it continues that.
pub fn push(runs: &mut Vec<Run>, run: Run) {
    match runs.last_mut() {
        Some(last) if last.part == run.part && last.first + last.steps == run.first => last.steps += run.steps,
        _ => runs.push(run),
    }
}

/// Fills the smallest holes of runs that are in the file's order until there are few enough. What was not read is then taken for read; the reverse would harm.
pub fn bridge(runs: &mut Vec<Run>) {
    while runs.len() > MOST_RUNS {
        let hole = |pair: &[Run]| {
            let is_hole = pair[0].part == pair[1].part;
            is_hole.then(|| pair[1].first - pair[0].first - pair[0].steps)
        };
        let mut holes: Vec<u32> = runs.windows(2).filter_map(hole).collect();
        let too_many = runs.len() - MOST_RUNS;
        if holes.is_empty() {
            // More parts than runs: the last of them are as if never heard of.
            runs.truncate(MOST_RUNS);
            return;
        }
        let largest = (too_many - 1).min(holes.len() - 1);
        let (_, largest, _) = holes.select_nth_unstable(largest);
        let largest = *largest;
        let mut bridged: Vec<Run> = Vec::with_capacity(MOST_RUNS);
        for run in runs.drain(..) {
            match bridged.last_mut() {
                Some(last) if last.part == run.part && run.first - last.first - last.steps <= largest => {
                    last.steps = run.first + run.steps - last.first;
                }
                _ => bridged.push(run),
            }
        }
        *runs = bridged;
    }
}

/// The steps of all these runs, which may overlap, in the order of the file; not too many runs.
pub fn union(mut runs: Vec<Run>) -> Vec<Run> {
    runs.sort_unstable_by_key(|run| (run.part, run.first));
    let mut joined: Vec<Run> = Vec::with_capacity(runs.len());
    for run in runs {
        match joined.last_mut() {
            Some(last) if last.part == run.part && run.first <= last.first + last.steps => {
                last.steps = last.steps.max(run.first + run.steps - last.first);
            }
            _ => joined.push(run),
        }
    }
    bridge(&mut joined);
    joined
}

/// The same steps in the order of the file.
pub fn ascending(runs: &[Run]) -> Vec<Run> {
    let mut sorted = runs.to_vec();
    sorted.sort_unstable_by_key(|run| (run.part, run.first));
    let mut joined = Vec::with_capacity(sorted.len());
    sorted.into_iter().for_each(|run| push(&mut joined, run));
    joined
}

/// Runs in which a step can be looked up.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ranked {
    runs: Vec<Run>,
    /// How many steps come before each run.
    before: Vec<u32>,
    /// Indices of runs in the order of the file.
    sorted: Vec<u32>,
    steps: u32,
}

impl Ranked {
    /// `None` where it cannot be: a step in two of them, too many.
    pub fn new(runs: Vec<Run>) -> Option<Self> {
        let mut steps = 0_u64;
        let mut before = Vec::with_capacity(runs.len());
        for run in &runs {
            before.push(u32::try_from(steps).ok()?);
            steps += u64::from(run.steps);
            if run.steps == 0 || run.first.checked_add(run.steps).is_none() || steps > MOST_STEPS {
                return None;
            }
        }
        let mut sorted: Vec<u32> = (0..u32::try_from(runs.len()).ok()?).collect();
        sorted.sort_unstable_by_key(|index| (runs[*index as usize].part, runs[*index as usize].first));
        let overlap = |pair: &[u32]| {
            let (one, other) = (runs[pair[0] as usize], runs[pair[1] as usize]);
            one.part == other.part && one.first + one.steps > other.first
        };
        if runs.len() > MOST_RUNS || sorted.windows(2).any(overlap) {
            return None;
        }
        Some(Self {
            runs,
            before,
            sorted,
            steps: u32::try_from(steps).ok()?,
        })
    }

    /// The runs.
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// Steps in all.
    pub fn steps(&self) -> u32 {
        self.steps
    }

    /// The same, as it was made of.
    pub fn into_runs(self) -> Vec<Run> {
        self.runs
    }

    /// How many steps come before one; `None` where it is in none.
    pub fn rank(&self, part: u32, step: u32) -> Option<u32> {
        let index = self.run_of(part, step)?;
        let run = self.runs[index];
        Some(self.before[index] + (step - run.first))
    }

    /// Whether any step of a part is in it.
    pub fn has_part(&self, part: u32) -> bool {
        let found = self
            .sorted
            .binary_search_by_key(&part, |index| self.runs[*index as usize].part);
        found.is_ok()
    }

    /// The run that a step is in.
    pub fn run_of(&self, part: u32, step: u32) -> Option<usize> {
        let after = self.sorted.partition_point(|index| {
            let run = self.runs[*index as usize];
            (run.part, run.first) <= (part, step)
        });
        let index = *self.sorted.get(after.checked_sub(1)?)? as usize;
        let run = self.runs[index];
        (run.part == part && step - run.first < run.steps).then_some(index)
    }

    /// The run that has a rank.
    pub fn run_at(&self, rank: u32) -> Option<usize> {
        let after = self.before.partition_point(|before| *before <= rank);
        after.checked_sub(1).filter(|_| rank < self.steps)
    }

    /// The rank after a run's last step.
    pub fn end(&self, run: usize) -> u32 {
        self.before.get(run + 1).copied().unwrap_or(self.steps)
    }

    /// What comes from rank `rank` on.
    pub fn from(&self, rank: u32) -> impl Iterator<Item = Run> {
        let first = self.run_at(rank).unwrap_or(self.runs.len());
        let passed = rank.saturating_sub(self.before.get(first).copied().unwrap_or(0));
        let rest = self.runs.get(first..).unwrap_or_default();
        rest.iter().enumerate().filter_map(move |(index, run)| {
            let passed = if index == 0 { passed.min(run.steps) } else { 0 };
            (run.steps > passed).then_some(Run {
                part: run.part,
                first: run.first + passed,
                steps: run.steps - passed,
            })
        })
    }

    /// Cuts a run where it is no run in here, and tells for each piece where it begins here, if at all.
    pub fn pieces(&self, run: Run, mut tell: impl FnMut(Run, Option<u32>)) {
        let (mut step, end) = (run.first, run.first + run.steps);
        while step < end {
            let (until, rank) = match self.run_of(run.part, step) {
                Some(index) => {
                    let here = self.runs[index];
                    (here.first + here.steps, Some(self.before[index] + (step - here.first)))
                }
                None => (self.next_run(run.part, step).unwrap_or(end), None),
            };
            let steps = until.min(end) - step;
            let piece = Run {
                part: run.part,
                first: step,
                steps,
            };
            tell(piece, rank);
            step += steps;
        }
    }

    /// Where the next run of a part after a step begins.
    fn next_run(&self, part: u32, step: u32) -> Option<u32> {
        let after = self.sorted.partition_point(|index| {
            let run = self.runs[*index as usize];
            (run.part, run.first) <= (part, step)
        });
        let run = self.runs[*self.sorted.get(after)? as usize];
        (run.part == part).then_some(run.first)
    }
}
