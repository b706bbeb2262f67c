//! What attaching to system calls costs, measured where it is paid.
//!
//! The kernel takes the slow way into all system calls as soon as a program hangs on one of them: some 40 ns each, on every processor; those with
//! a program pay for it as well. The figures are printed at start, so that nobody pays without knowing.

use std::{fmt, time::Duration};

use aya::programs::{ProgramError, TracePoint};
use serde::Serialize;

use crate::sys::call_cost::Call;

/// How long each call is timed in each of the four phases. Detaching between them takes the kernel some 60 ms; all in all the start is delayed by
/// less than 100 ms.
const PHASE: Duration = Duration::from_millis(3);

/// Nanoseconds that are paid on top, by the median.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Price {
    /// By every system call of the machine.
    pub system_call_ns: f64,
    /// By a read of a file that is not watched; `None` where it could not be measured.
    pub read_ns: Option<f64>,
}

/// Attaches a program that is loaded, the one of `read`, as the first one on any system call; returns what that costs.
///
/// Without, with, without, with: what the machine's clock or load does meanwhile does not pass for a price.
///
/// # Errors
/// The kernel's refusal.
pub fn of_attaching(program: &mut TracePoint, category: &str, name: &str) -> Result<Price, ProgramError> {
    let mut calls = vec![Call::Empty];
    calls.extend(Call::read());
    let mut times: Vec<[Vec<f64>; 2]> = calls.iter().map(|_| [Vec::new(), Vec::new()]).collect();
    let mut measure = |with: usize| {
        for (call, times) in calls.iter().zip(&mut times) {
            times[with].extend(call.batches(PHASE));
        }
    };
    measure(0);
    let link = program.attach(category, name)?;
    measure(1);
    program.detach(link)?;
    measure(0);
    program.attach(category, name)?;
    measure(1);
    let mut prices = times.into_iter().map(|[without, with]| median(with) - median(without));
    Ok(Price {
        system_call_ns: prices.next().unwrap_or_default(),
        read_ns: prices.next(),
    })
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

impl fmt::Display for Price {
    /// For the line at start.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.system_call_ns < 1.0 {
            f.write_str(
                "what other system calls pay is too little to be measured, or something else makes them pay already",
            )?;
        } else {
            let price = self.system_call_ns;
            write!(
                f,
                "every system call on this machine now costs about {price:.0} ns more"
            )?;
        }
        match self.read_ns {
            Some(price) if price >= 1.0 => write!(f, ", a read about {price:.0} ns"),
            _ => Ok(()),
        }
    }
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
        let price = |system_call_ns, read_ns| {
            Price {
                system_call_ns,
                read_ns,
            }
            .to_string()
        };
        assert_eq!(
            price(43.4, Some(310.2)),
            "every system call on this machine now costs about 43 ns more, a read about 310 ns"
        );
        assert_eq!(
            price(43.4, None),
            "every system call on this machine now costs about 43 ns more"
        );
        assert!(price(-2.0, Some(-1.0)).ends_with("already"));
    }
}
