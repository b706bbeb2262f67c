//! How a device serves what it is asked for: so many requests at once, each with a time of its own; or one head that has to get there.

use std::time::Duration;

use crate::{
    sim::machine::time_of,
    units::{ByteRange, Moment},
};

/// A service.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Service {
    /// Time of each request during which the next one can be served.
    pub delay: Duration,
    /// Time of each request.
    pub each: Duration,
    /// Bytes a second of each request; 0 is no bound.
    pub rate: f64,
    /// The same of requests past the page cache, where that differs: a reader's own buffers stay in the processor's cache, pages that were just taken do not lie there. 0 for the same.
    pub direct_rate: f64,
    /// Requests at once.
    pub parallel: usize,
    /// Time more where a request does not begin where the one before ended.
    pub seek: Duration,
}

impl Service {
    /// No time at all.
    pub const AT_ONCE: Self = Self {
        delay: Duration::ZERO,
        each: Duration::ZERO,
        rate: 0.0,
        direct_rate: 0.0,
        parallel: 1,
        seek: Duration::ZERO,
    };
}

/// The service at work.
#[derive(Debug)]
pub struct Servers {
    service: Service,
    free: Vec<Moment>,
    /// File and offset where the last request ended.
    head: (usize, u64),
}

impl Servers {
    /// All idle.
    pub fn new(service: Service) -> Self {
        Self {
            service,
            free: vec![Moment(0); service.parallel.max(1)],
            head: (0, 0),
        }
    }

    /// Serves a request that comes at `at`; returns when it is answered.
    pub fn serve(&mut self, at: Moment, file: usize, range: ByteRange, is_direct: bool) -> Moment {
        let service = self.service;
        let rate = if is_direct && service.direct_rate > 0.0 {
            service.direct_rate
        } else {
            service.rate
        };
        let seek = if self.head == (file, range.start) {
            Duration::ZERO
        } else {
            service.seek
        };
        self.head = (file, range.end);
        let Some(free) = self.free.iter_mut().min() else {
            return at;
        };
        *free = at.max(*free).after(service.each + seek + time_of(range.len(), rate));
        free.after(service.delay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn so_many_are_served_at_once() {
        let mut servers = Servers::new(Service {
            each: Duration::from_millis(10),
            parallel: 2,
            ..Service::AT_ONCE
        });
        let ends = [0, 1, 2].map(|piece| {
            servers
                .serve(Moment(0), 0, ByteRange::new(piece << 20, 1 << 20), false)
                .0
                / MS
        });
        assert_eq!(ends, [10, 10, 20]);
    }

    #[test]
    fn a_head_pays_for_jumps() {
        let mut servers = Servers::new(Service {
            rate: 1e9,
            seek: Duration::from_millis(8),
            ..Service::AT_ONCE
        });
        let mut serve = |start| servers.serve(Moment(0), 0, ByteRange::new(start, 1_000_000), false).0 / MS;
        assert_eq!([serve(0), serve(1_000_000), serve(5_000_000)], [1, 2, 11]);
    }
}
