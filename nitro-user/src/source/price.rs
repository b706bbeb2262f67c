//! What attaching to a system call costs every other one, measured where it is paid.
//!
//! The kernel takes the slow way into all system calls as soon as a program hangs on one of them: some 40 ns each, on every processor. The
//! figure is printed at start, so that nobody pays without knowing.

use std::time::Duration;

use aya::programs::{ProgramError, TracePoint};

use crate::sys::call_cost::batches;

/// One of the four phases. Detaching between them takes the kernel some 60 ms; all in all the start is delayed by less than 100 ms.
const PHASE: Duration = Duration::from_millis(4);

/// Attaches a program that is loaded, as the first one on any system call; returns what that adds to a system call, in nanoseconds.
///
/// Without, with, without, with: what the machine's clock or load does meanwhile does not pass for a price.
///
/// # Errors
/// The kernel's refusal.
pub fn of_attaching(program: &mut TracePoint, category: &str, name: &str) -> Result<f64, ProgramError> {
    let mut without = batches(PHASE);
    let link = program.attach(category, name)?;
    let mut with = batches(PHASE);
    program.detach(link)?;
    without.extend(batches(PHASE));
    program.attach(category, name)?;
    with.extend(batches(PHASE));
    Ok(median(with) - median(without))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// The price in words, for the line at start.
pub fn in_words(nanoseconds: f64) -> String {
    if nanoseconds < 1.0 {
        return "what that costs other system calls is too little to be measured, or something else makes them pay already".into();
    }
    format!("every system call on this machine now costs about {nanoseconds:.0} ns more")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_long_batch_does_not_move_the_median() {
        assert_eq!(median(vec![100.0, 9e9, 101.0, 99.0, 100.0]), 100.0);
        assert_eq!(median(Vec::new()), 0.0);
    }

    #[test]
    fn a_price_is_about_and_never_negative() {
        assert_eq!(
            in_words(43.4),
            "every system call on this machine now costs about 43 ns more"
        );
        assert!(in_words(-2.0).contains("too little"));
    }
}
