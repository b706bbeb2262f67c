//! How a cursor group moves through a model: where it is, how long it walks before it jumps, whether it comes back.

use super::input::Access;
use crate::units::STEP;

/// What a run still counts after the next.
const FADE: f64 = 0.75;

/// The walk of one group.
#[derive(Clone, Copy, Debug)]
pub struct Walk {
    part: usize,
    at: u64,
    run_start: u64,
    /// Sums over the runs between jumps, older ones fading: bytes, and their squares.
    runs: (f64, f64),
    in_order_parts: usize,
    /// It went from one part to another than the next.
    picks: bool,
    wanders: bool,
}

/// What an access meant for the walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// Onwards, or to a place that was warmed.
    On,
    /// To a place that was not warmed.
    ColdJump,
}

impl Walk {
    /// A walk that begins in `part`.
    pub fn begin(part: usize) -> Self {
        Self {
            part,
            at: 0,
            run_start: 0,
            runs: (0.0, 0.0),
            in_order_parts: 1,
            picks: false,
            wanders: false,
        }
    }

    /// The reader is expected in `part`.
    pub fn expect(&mut self, part: usize) {
        self.part = part;
    }

    /// It is at byte `at` of its part.
    pub fn place(&mut self, at: u64) {
        (self.at, self.run_start) = (at, at);
    }

    /// Where it began to walk.
    pub fn run_start(&self) -> u64 {
        self.run_start
    }

    /// Follows an access to `part`; `warm` says that its place was warmed or is being warmed.
    pub fn follow(&mut self, part: usize, access: &Access, warm: bool) -> Move {
        let start = access.range.start;
        let jumped = part == self.part && access.jump && start / STEP != self.at / STEP;
        if part != self.part {
            if part == self.part + 1 {
                self.in_order_parts += 1;
            } else {
                (self.in_order_parts, self.picks) = (1, true);
            }
            self.run_start = start;
        } else if jumped {
            let run = self.at.saturating_sub(self.run_start);
            // A look at the head says nothing of how the rest is read.
            if self.run_start > 0 || run >= STEP {
                self.runs = (
                    self.runs.0 * FADE + run as f64,
                    self.runs.1 * FADE + (run as f64) * (run as f64),
                );
            }
            self.wanders |= start < self.at;
            self.run_start = start;
        }
        self.part = part;
        self.at = start;
        if jumped && !warm { Move::ColdJump } else { Move::On }
    }

    /// The part the reader is in.
    pub fn part(&self) -> usize {
        self.part
    }

    /// The step it is in.
    pub fn step(&self) -> u64 {
        self.at / STEP
    }

    /// Parts read in order so far: the current one included, as long as it never went to another than the next.
    pub fn in_order_parts(&self) -> usize {
        self.in_order_parts - usize::from(self.picks)
    }

    /// Bytes since it was placed, or since its last jump.
    pub fn current_run(&self) -> u64 {
        self.at.saturating_sub(self.run_start)
    }

    /// It came back to an earlier place: what it left out may still come.
    pub fn wanders(&self) -> bool {
        self.wanders
    }

    /// How far it is likely to walk on: as far as runs usually go, and beyond that as far again as it has come; a step at least.
    pub fn ahead(&self) -> u64 {
        let (usual, come) = (self.typical_run(), self.current_run());
        match usual.checked_sub(come) {
            _ if usual == 0 => u64::MAX,
            Some(left) => left.max(STEP),
            None => come.max(STEP),
        }
    }

    /// Whether it has walked on well beyond where its runs usually end.
    pub fn goes_far(&self) -> bool {
        self.current_run() >= self.typical_run().saturating_mul(2)
    }

    /// Length of the run that a byte it reads usually lies in: the many small tensors between the large ones count by their bytes. 0 before
    /// the first jump.
    pub fn typical_run(&self) -> u64 {
        let (bytes, squares) = self.runs;
        if bytes > 0.0 { (squares / bytes) as u64 } else { 0 }
    }
}
