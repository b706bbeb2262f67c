//! What a system call costs: the yardstick for tracepoints that every system call pays for.

use std::{
    fs::File,
    io,
    os::fd::AsRawFd,
    time::{Duration, Instant},
};

/// Calls between two looks at the clock: a batch lasts some 50 µs, long beside the clock, short beside a time slice.
const CALLS: u32 = 256;

/// Fewest batches of a measurement.
const LEAST: usize = 9;

/// What is timed.
#[derive(Debug)]
pub enum Call {
    /// `getppid`: the way into the kernel and back, and next to nothing between.
    Empty,
    /// `read` of one byte from a file that is always at its end.
    Read(File),
}

impl Call {
    /// A read that costs little beside its system call.
    ///
    /// # Errors
    /// No /dev/null.
    pub fn read() -> io::Result<Self> {
        File::open("/dev/null").map(Self::Read)
    }

    /// Times batches of the call, for as long as `span` but at least nine; returns nanoseconds per call, batch by batch. What interrupts a
    /// batch makes it longer, never shorter.
    pub fn batches(&self, span: Duration) -> Vec<f64> {
        let began = Instant::now();
        let mut costs = Vec::new();
        while costs.len() < LEAST || began.elapsed() < span {
            let batch = Instant::now();
            for _ in 0..CALLS {
                self.once();
            }
            costs.push(batch.elapsed().as_nanos() as f64 / f64::from(CALLS));
        }
        costs
    }

    /// The raw call, since a library may remember the answer.
    fn once(&self) {
        match self {
            // SAFETY: getppid takes no arguments and cannot fail.
            Self::Empty => unsafe { libc::syscall(libc::SYS_getppid) },
            Self::Read(file) => {
                let mut byte = 0u8;
                // SAFETY: the descriptor is open and there is room for the one byte.
                unsafe { libc::syscall(libc::SYS_read, file.as_raw_fd(), &raw mut byte, 1) }
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_calls_cost_something() {
        for call in [Call::Empty, Call::read().unwrap()] {
            let costs = call.batches(Duration::ZERO);
            assert_eq!(costs.len(), LEAST);
            assert!(costs.iter().all(|cost| (1.0..1e7).contains(cost)), "{call:?} {costs:?}");
        }
    }
}
