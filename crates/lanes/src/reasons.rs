//! Reasons why a peer cannot be reached: logged at once when they change, and again every minute.

use std::time::Duration;

use tokio::time::Instant;

/// Decides which failures of a dialler are logged. Time is an argument.
#[derive(Debug, Default)]
pub(crate) struct Reasons {
    /// Time of the first failure in a row.
    since: Option<Instant>,
    said: Vec<Said>,
}

#[derive(Debug)]
struct Said {
    reason: String,
    at: Instant,
    is_loud: bool,
}

/// Log line for a failure.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// Time for which the peer has not been reached.
    pub(crate) lasts: Duration,
    /// The failure has lasted long enough to be a warning.
    pub(crate) is_loud: bool,
}

/// Time for which programs that start together fail to reach one another without a warning.
const QUIET: Duration = Duration::from_secs(5);

/// Time after which a reason that still holds is logged again.
const INTERVAL: Duration = Duration::from_secs(60);

/// Number of reasons that are logged within that time, should they keep changing.
const LINES_MAX: usize = 4;

impl Reasons {
    /// Notes that an attempt has failed; returns the line to log, if any.
    pub(crate) fn failed(&mut self, now: Instant, reason: &str) -> Option<Line> {
        let lasts = now - *self.since.get_or_insert(now);
        let is_loud = lasts >= QUIET;
        self.said.retain(|said| now - said.at < INTERVAL);
        let alike = |said: &&Said| said.is_loud == is_loud;
        let is_known = self.said.iter().filter(alike).any(|said| said.reason == reason);
        if is_known || self.said.iter().filter(alike).count() >= LINES_MAX {
            return None;
        }
        self.said.push(Said { reason: reason.to_owned(), at: now, is_loud });
        Some(Line { lasts, is_loud })
    }

    /// Notes that an attempt has succeeded; returns whether a failure was logged.
    pub(crate) fn ended(&mut self) -> bool {
        self.since = None;
        !std::mem::take(&mut self.said).is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_said_at_once_and_every_minute_and_a_new_one_too() {
        let mut reasons = Reasons::default();
        let start = Instant::now();
        let mut said = Vec::new();
        for secs in 0..200 {
            let reason = if secs < 100 { "refused" } else { "wrong port" };
            if let Some(line) = reasons.failed(start + Duration::from_secs(secs), reason) {
                assert_eq!(line.lasts, Duration::from_secs(secs));
                said.push((secs, reason, line.is_loud));
            }
        }
        let wanted = [
            (0, "refused", false),
            (5, "refused", true),
            (65, "refused", true),
            (100, "wrong port", true),
            (160, "wrong port", true),
        ];
        assert_eq!(said, wanted);
        assert!(reasons.ended());
        assert!(!reasons.ended());
    }

    #[test]
    fn reasons_that_keep_changing_fill_no_log() {
        let mut reasons = Reasons::default();
        let start = Instant::now();
        let fails = |n: u32| reasons.failed(start + QUIET * n.min(1), &n.to_string()).is_some();
        assert_eq!((0..1000).map(fails).filter(|said| *said).count(), 1 + LINES_MAX);
    }
}
