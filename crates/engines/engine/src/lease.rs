//! Leases in an engine without a clock for them: a value that is replaced under its revision.
//!
//! Whoever waits for a lease looks at it again and again. A revision that stands for as long as the lease's time, by
//! the clock of who waits, was not renewed: so clocks of hosts need not agree, and one that starts anew waits for the
//! whole time.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

use crate::Epoch;

/// Lease as it is written: epoch, time in milliseconds, and owner, with a space between; no owner if it was released.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Number of it.
    pub epoch: Epoch,
    /// Time for which it holds without being renewed. Whole milliseconds.
    pub time: Duration,
    /// Who has it; `None` if it was released.
    pub owner: Option<String>,
}

/// Bytes are no lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("it is no lease: EPOCH MILLISECONDS [OWNER] is wanted")]
pub struct LeaseError;

impl fmt::Display for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.epoch.0, self.time.as_millis())?;
        self.owner.iter().try_for_each(|owner| write!(f, " {owner}"))
    }
}

impl FromStr for Lease {
    type Err = LeaseError;

    fn from_str(text: &str) -> Result<Self, LeaseError> {
        let mut parts = text.splitn(3, ' ');
        let mut number = || parts.next()?.parse().ok();
        let (Some(epoch), Some(time)) = (number(), number()) else { return Err(LeaseError) };
        let owner = parts.next().map(str::to_owned);
        Ok(Self { epoch: Epoch(epoch), time: Duration::from_millis(time), owner })
    }
}

/// What is known of a lease that somebody waits for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Watched {
    /// Revision, and the time at which it was seen first.
    seen: Option<(u64, Duration)>,
}

impl Watched {
    /// Returns the epoch with which the lease may be taken now, under the revision that was seen. `now` ascends.
    pub fn handle_seen(
        &mut self,
        now: Duration,
        revision: u64,
        lease: Option<&Lease>,
    ) -> Option<Epoch> {
        let Some(lease) = lease else { return Some(Epoch(1)) };
        let since = match self.seen {
            Some((seen, since)) if seen == revision => since,
            _ => now,
        };
        self.seen = Some((revision, since));
        let is_free = lease.owner.is_none() || now >= since.saturating_add(lease.time);
        is_free.then_some(Epoch(lease.epoch.0 + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(epoch: u64, owner: Option<&str>) -> Lease {
        let time = Duration::from_secs(10);
        Lease { epoch: Epoch(epoch), time, owner: owner.map(str::to_owned) }
    }

    #[test]
    fn a_lease_reads_back_as_it_was_written() {
        for (lease, text) in
            [(lease(3, Some("a host/7")), "3 10000 a host/7"), (lease(4, None), "4 10000")]
        {
            assert_eq!(lease.to_string(), text);
            assert_eq!(text.parse(), Ok(lease));
        }
        for text in ["", "3", "x 1 a", "3 -1 a"] {
            assert_eq!(text.parse::<Lease>(), Err(LeaseError), "{text}");
        }
    }

    #[test]
    fn a_lease_is_free_after_its_time_without_a_renewal_and_not_before() {
        let at = Duration::from_secs;
        let held = lease(3, Some("a"));
        let mut watched = Watched::default();
        assert_eq!(watched.handle_seen(at(0), 0, None), Some(Epoch(1)), "nobody had it");
        assert_eq!(watched.handle_seen(at(1), 7, Some(&held)), None);
        assert_eq!(watched.handle_seen(at(10), 7, Some(&held)), None);
        assert_eq!(watched.handle_seen(at(11), 8, Some(&held)), None, "it was renewed");
        assert_eq!(watched.handle_seen(at(20), 8, Some(&held)), None);
        assert_eq!(watched.handle_seen(at(21), 8, Some(&held)), Some(Epoch(4)));
        let released = lease(3, None);
        assert_eq!(watched.handle_seen(at(21), 9, Some(&released)), Some(Epoch(4)));
    }
}
