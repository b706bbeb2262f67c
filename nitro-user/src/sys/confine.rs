//! Gives up, once and for all, what a process that reads files does not need: capabilities, the way to new ones, and system calls.
//!
//! In: which features are on. Out: what is left. Everything here holds for the calling thread and all that it starts from then on, not for those that run already; a
//! kernel or a sandbox that refuses something leaves the agent with more rights, not with less work.
//!
//! Landlock is not used. It would fit what the agent does with files, but the kernel denies a thread that it confines every look at processes outside of
//! its domain (`/proc/PID/fdinfo`, `/proc/PID/root`: EACCES, seen on 6.18), whatever it may read by path.

use super::{
    capability::{self, Feature},
    filter,
};

/// What is left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Confined {
    /// Names of the capabilities, in the kernel's order.
    pub capabilities: Vec<String>,
    /// No program that is started gets more.
    pub no_new_privileges: bool,
    /// System calls that the agent never makes are refused.
    pub filtered: bool,
    /// What could not be given up, and why. For debugging: it is no fault.
    pub refused: Vec<String>,
}

/// Confines this thread and all that it starts from here on.
pub fn confine(features: &[Feature]) -> Confined {
    confined(capability::keep(features))
}

/// The same for a process that does none of the agent's ordinary work: it is left what `features` take, and no more.
pub fn confine_to(features: &[Feature]) -> Confined {
    confined(capability::keep_only(features))
}

fn confined((capabilities, done): (Vec<String>, Result<(), String>)) -> Confined {
    let mut refused: Vec<String> = done.err().into_iter().collect();
    if let Err(errno) = nix::sys::prctl::set_no_new_privs() {
        refused.push(format!("no_new_privs: {errno}"));
    }
    let filtered = filter::refuse();
    refused.extend(filtered.as_ref().err().map(|error| format!("system calls: {error}")));
    Confined {
        capabilities,
        filtered: filtered.is_ok(),
        no_new_privileges: nix::sys::prctl::get_no_new_privs().unwrap_or_default(),
        refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_holds_pins_may_lock_and_nothing_else() {
        let thread = std::thread::spawn(|| {
            let confined = confine_to(&[Feature::Pins]);
            assert!(confined.no_new_privileges && confined.filtered);
            assert!(confined.capabilities.len() <= 1, "{confined:?}");
            assert_eq!(confined.capabilities.len() == 1, capability::has(Feature::Pins));
            assert!(!capability::has(Feature::Files));
        });
        thread.join().unwrap();
    }

    #[test]
    fn what_is_left_is_what_the_kernel_says() {
        let thread = std::thread::spawn(|| {
            let confined = confine(&[]);
            assert!(confined.no_new_privileges && confined.filtered);
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            assert!(status.contains("NoNewPrivs:\t1"), "{status}");
            assert!(status.contains("Seccomp:\t2"), "{status}");
            let permitted = status.lines().find_map(|line| line.strip_prefix("CapPrm:\t")).unwrap();
            let permitted = u64::from_str_radix(permitted, 16).unwrap();
            assert_eq!(permitted.count_ones() as usize, confined.capabilities.len());
        });
        thread.join().unwrap();
    }
}
