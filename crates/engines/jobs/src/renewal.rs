//! When a lease is renewed, and when it is waited for: without a clock.

use std::time::Duration;

use tradewind_engine::EngineError;

/// Time for which a lease holds without being renewed. A sink that takes the place of one that was killed waits for it.
pub(crate) const LEASE: Duration = Duration::from_secs(5);

/// Time beyond [`LEASE`] in which a lease that nobody renews is sure to be free.
const MARGIN: Duration = Duration::from_secs(2);

/// Renewals that a lease has in its time.
const RENEWALS: u32 = 3;

/// Renewals that are tried in the time of one, while the engine is away.
const TRIES: u32 = 3;

/// When a lease is renewed next.
#[derive(Debug)]
pub(crate) struct Renewal {
    due: Duration,
}

impl Renewal {
    /// Begins with a lease that was taken at this time.
    pub(crate) fn new(now: Duration) -> Self {
        Self { due: now + LEASE / RENEWALS }
    }

    /// Returns the time of the next renewal.
    pub(crate) fn poll_timeout(&self) -> Duration {
        self.due
    }

    /// Notes what came of a renewal. Returns whether the lease is still ours, as far as is known: an engine that is away
    /// gives it to nobody else.
    pub(crate) fn handle_answer(
        &mut self,
        now: Duration,
        answer: &Result<(), EngineError>,
    ) -> bool {
        let wait = match answer {
            Ok(()) => LEASE / RENEWALS,
            Err(error) if error.is_passing() => LEASE / RENEWALS / TRIES,
            Err(_) => return false,
        };
        self.due = now + wait;
        true
    }
}

/// Whether it is worth waiting for a lease: one that was not given up by a process that has died lapses in its time.
#[derive(Debug)]
pub(crate) struct Waiting {
    until: Duration,
}

impl Waiting {
    pub(crate) fn new(now: Duration) -> Self {
        Self { until: now + LEASE + MARGIN }
    }

    /// Returns whether another has the lease for sure: it was renewed meanwhile.
    pub(crate) fn is_taken(&self, now: Duration) -> bool {
        now >= self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_renewed_three_times_in_its_time_and_more_often_while_the_engine_is_away() {
        let at = Duration::from_millis;
        let mut renewal = Renewal::new(at(0));
        assert_eq!(renewal.poll_timeout(), LEASE / 3);
        assert!(renewal.handle_answer(at(2000), &Ok(())));
        assert_eq!(renewal.poll_timeout(), at(2000) + LEASE / 3);
        for passing in [EngineError::Away("x".into()), EngineError::Unsure("x".into())] {
            assert!(renewal.handle_answer(at(9000), &Err(passing)));
            assert_eq!(renewal.poll_timeout(), at(9000) + LEASE / 3 / 3);
        }
        let gone = EngineError::Fenced { epoch: tradewind_engine::Epoch(1), by: None };
        assert!(!renewal.handle_answer(at(9000), &Err(gone)));
    }

    #[test]
    fn a_lease_that_lapses_is_waited_for() {
        let waiting = Waiting::new(Duration::from_secs(1));
        assert!(!waiting.is_taken(Duration::from_secs(1) + LEASE));
        assert!(waiting.is_taken(Duration::from_secs(1) + LEASE + MARGIN));
    }
}
