//! Numbers that bound what a client costs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Bytes of the longest body that is JSON of settings or a position.
pub(crate) const JSON_BYTES_MAX: usize = 16 << 10;

/// Bytes of records after which a page has no further one.
pub(crate) const PAGE_BYTES: usize = 256 << 10;

/// Number of records of a page.
pub(crate) const PAGE_RECORDS_MAX: usize = 1000;

/// Limits of requests and connections.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of a body.
    pub body_bytes_max: usize,
    /// Bytes of the bodies of all requests together: while there are as many, others are told to come back.
    pub bodies_bytes_max: usize,
    /// Bytes of one task.
    pub task_bytes_max: usize,
    /// Number of tasks of a request.
    pub tasks_max: usize,
    /// Bytes of a request's line and headers, and of the trailers of its body.
    pub head_bytes_max: usize,
    /// Number of headers.
    pub headers_max: usize,
    /// Time for a request's line and headers, and between two requests of a connection.
    pub head_time: Duration,
    /// Time for a body, in all.
    pub body_time: Duration,
    /// Time for which a client may take nothing of an answer.
    pub stall_time: Duration,
    /// Longest time that a request waits; one that asks for more has this.
    pub wait_max: Duration,
    /// Time after which a stream of events without a record says that it is there.
    pub heartbeat: Duration,
    /// Number of requests of a connection.
    pub requests_max: usize,
    /// Number of connections.
    pub connections_max: usize,
    /// Number of connections of one address (in IPv6 of one /64), loopback too; 0 for any.
    pub connections_per_address_max: usize,
    /// Time that requests have to end when the server is drained.
    pub drain_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes_max: 64 << 20,
            bodies_bytes_max: 256 << 20,
            task_bytes_max: 16 << 20,
            tasks_max: 10_000,
            head_bytes_max: 16 << 10,
            headers_max: 64,
            head_time: Duration::from_secs(10),
            body_time: Duration::from_secs(60),
            stall_time: Duration::from_secs(60),
            wait_max: Duration::from_secs(60),
            heartbeat: Duration::from_secs(15),
            requests_max: 100_000,
            connections_max: 1024,
            connections_per_address_max: 256,
            drain_time: Duration::from_secs(10),
        }
    }
}

/// Bytes that the bodies of all requests hold.
#[derive(Debug)]
pub(crate) struct Budget {
    max: usize,
    held: AtomicUsize,
}

/// Part of a budget that one request holds until it is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Budget {
    pub(crate) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, held: AtomicUsize::new(0) })
    }

    /// Returns a part of 0 bytes.
    pub(crate) fn part(self: &Arc<Self>) -> Held {
        Held { budget: Arc::clone(self), bytes: 0 }
    }
}

impl Held {
    /// Holds more bytes, if there are as many. Returns whether there were.
    #[must_use]
    pub(crate) fn grow(&mut self, bytes: usize) -> bool {
        let Budget { max, held } = &*self.budget;
        let grown = held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
            held.checked_add(bytes).filter(|held| held <= max)
        });
        if grown.is_ok() {
            self.bytes += bytes;
        }
        grown.is_ok()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.budget.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_request_held_is_there_again_when_it_ends() {
        let budget = Budget::new(10);
        let mut first = budget.part();
        let mut second = budget.part();
        assert!(first.grow(6) && second.grow(4));
        assert!(!second.grow(1) && !first.grow(usize::MAX));
        drop(first);
        assert!(second.grow(6) && !second.grow(1));
        drop(second);
        assert_eq!(budget.held.load(Ordering::Relaxed), 0);
    }
}
