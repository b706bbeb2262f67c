//! The clock of the kernel's events.

use std::{sync::OnceLock, time::Duration};

use nix::time::{ClockId, clock_gettime};

use crate::units::Moment;

/// Now on `CLOCK_MONOTONIC`, the clock of `bpf_ktime_get_ns`.
pub fn now() -> Moment {
    // The clock exists on every Linux; a zero would only make times look short.
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or((0, 0), |time| (time.tv_sec(), time.tv_nsec()));
    Moment(u64::try_from(now.0).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.1).unwrap_or(0))
}

/// When this process looked at the clock first, in nanoseconds since 1970.
fn began_ns() -> i128 {
    static BEGAN: OnceLock<i128> = OnceLock::new();
    *BEGAN.get_or_init(unix_now_ns)
}

/// Nanoseconds since 1970.
pub fn unix_now_ns() -> i128 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| i128::try_from(since.as_nanos()).unwrap_or(i128::MAX))
}

/// Remembers that the agent begins now: see [`written_at`].
pub fn begin() {
    began_ns();
}

/// When a file with these times (nanoseconds since 1970) was written, if that was since the agent began, and less than `within` ago.
///
/// What was written before, and is not open for writing, nobody says that it is not complete. One whose inode changed after the last write was renamed, or given its rights: whoever does
/// that is done with it. A time in the future means nothing.
pub fn written_at(mtime_ns: i64, ctime_ns: i64, within: Duration) -> Option<Moment> {
    let age = unix_now_ns() - i128::from(mtime_ns);
    let recent = is_written_since_begin(mtime_ns, ctime_ns) && (0..within.as_nanos() as i128).contains(&age);
    recent.then(|| Moment(now().0.saturating_sub(u64::try_from(age).unwrap_or(0))))
}

/// Whether a file with these times was written since the agent began, and not completed as [`written_at`] says.
pub fn is_written_since_begin(mtime_ns: i64, ctime_ns: i64) -> bool {
    i128::from(mtime_ns) > began_ns() && ctime_ns <= mtime_ns
}

/// Time since 1970 when the monotonic clock began, as the machine's clock has it now.
pub fn booted() -> Duration {
    let unix = u64::try_from(unix_now_ns()).map_or(Duration::ZERO, Duration::from_nanos);
    unix.saturating_sub(now().since(Moment(0)))
}

/// Seconds since 1970, now.
pub fn unix_now() -> f64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_secs_f64())
}

/// Seconds since 1970 at a past moment, as far as the clock was not set since.
pub fn unix_time_of(moment: Moment) -> f64 {
    unix_now() - now().since(moment).as_secs_f64()
}

/// `14:03:59` in the local time zone.
pub fn local_time_of_day(seconds_since_1970: u64) -> String {
    let parts = local(seconds_since_1970);
    format!("{:02}:{:02}:{:02}", parts.tm_hour, parts.tm_min, parts.tm_sec)
}

/// `2031-04-29` in the local time zone.
pub fn local_date(seconds_since_1970: u64) -> String {
    let parts = local(seconds_since_1970);
    format!(
        "{:04}-{:02}-{:02}",
        parts.tm_year + 1900,
        parts.tm_mon + 1,
        parts.tm_mday
    )
}

fn local(seconds_since_1970: u64) -> libc::tm {
    let mut parts = std::mem::MaybeUninit::<libc::tm>::zeroed();
    // Its width is the C library's affair.
    let time = seconds_since_1970.try_into().unwrap_or(0);
    // SAFETY: both pointers are to live values; a zeroed tm is valid and stays as it is when the call fails.
    unsafe {
        libc::localtime_r(&raw const time, parts.as_mut_ptr());
        parts.assume_init()
    }
}
