//! The clock of the kernel's events.

use nix::time::{ClockId, clock_gettime};

use crate::units::Moment;

/// Now on `CLOCK_MONOTONIC`, the clock of `bpf_ktime_get_ns`.
pub fn now() -> Moment {
    // The clock exists on every Linux; a zero would only make times look short.
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or((0, 0), |time| (time.tv_sec(), time.tv_nsec()));
    Moment(u64::try_from(now.0).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.1).unwrap_or(0))
}

/// `14:03:59` in the local time zone.
pub fn local_time_of_day(seconds_since_1970: u64) -> String {
    let mut parts = std::mem::MaybeUninit::<libc::tm>::zeroed();
    let time = libc::time_t::try_from(seconds_since_1970).unwrap_or(0);
    // SAFETY: both pointers are to live values; a zeroed tm is valid and stays as it is when the call fails.
    let parts = unsafe {
        libc::localtime_r(&raw const time, parts.as_mut_ptr());
        parts.assume_init()
    };
    format!("{:02}:{:02}:{:02}", parts.tm_hour, parts.tm_min, parts.tm_sec)
}
