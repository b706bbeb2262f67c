//! What a system call costs: the yardstick for tracepoints that every system call pays for.

use std::time::{Duration, Instant};

/// Calls between two looks at the clock: a batch lasts some 50 µs, long beside the clock, short beside a time slice.
const CALLS: u32 = 256;

/// Times batches of a system call that does next to nothing, for as long as `span` but at least 9 batches; returns nanoseconds per call,
/// batch by batch. What interrupts a batch makes it longer, never shorter.
pub fn batches(span: Duration) -> Vec<f64> {
    let began = Instant::now();
    let mut costs = Vec::new();
    while costs.len() < 9 || began.elapsed() < span {
        let batch = Instant::now();
        for _ in 0..CALLS {
            // SAFETY: getppid takes no arguments and cannot fail; the raw call, since a library may remember the answer.
            unsafe { libc::syscall(libc::SYS_getppid) };
        }
        costs.push(batch.elapsed().as_nanos() as f64 / f64::from(CALLS));
    }
    costs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_call_costs_something() {
        let costs = batches(Duration::ZERO);
        assert_eq!(costs.len(), 9);
        assert!(costs.iter().all(|cost| (1.0..1e7).contains(cost)), "{costs:?}");
    }
}
