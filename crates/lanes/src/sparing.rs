//! Limits repeated log lines: of one kind a few are logged in a minute, then their number.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// Decides which of many lines are logged. Time is an argument.
///
/// A key is a peer and a cause. A peer may make up keys too, hence their number is bounded: what finds no
/// room is one more kind, the others.
#[derive(Debug)]
pub struct Sparing<K> {
    lines_max: u32,
    seen: HashMap<K, Seen>,
    others: Seen,
}

/// Lines of one key.
#[derive(Debug, Clone, Copy)]
struct Seen {
    /// Begin of the minute.
    since: Option<Instant>,
    /// Time of the latest line, or number of lines.
    last: Option<Instant>,
    said: u32,
    unsaid: u64,
}

/// Lines that were left out and that one which is logged stands for: shown behind its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeftOut {
    same: u64,
    others: u64,
}

/// Time within which no more than a few lines of a kind are logged.
const INTERVAL: Duration = Duration::from_secs(60);

/// Time after which the number of lines that were left out is told, if no other line tells it.
const COUNT_INTERVAL: Duration = Duration::from_secs(10);

/// Number of keys that are remembered.
const KEYS_MAX: usize = 64;

impl Seen {
    const NEVER: Self = Self { since: None, last: None, said: 0, unsaid: 0 };

    fn is_over(&self, now: Instant) -> bool {
        self.since.is_none_or(|since| now.duration_since(since) >= INTERVAL)
    }

    /// Returns the number of lines that were left out before this one, if this one may be logged.
    fn say(&mut self, now: Instant, lines_max: u32) -> Option<u64> {
        if self.is_over(now) {
            (self.since, self.said) = (Some(now), 0);
        }
        if self.said >= lines_max {
            self.unsaid += 1;
            return None;
        }
        self.said += 1;
        self.last = Some(now);
        Some(std::mem::take(&mut self.unsaid))
    }
}

impl<K> Default for Sparing<K> {
    fn default() -> Self {
        Self::new(1)
    }
}

impl<K> Sparing<K> {
    /// Creates one that lets this many lines of a key pass within a minute.
    #[must_use]
    pub fn new(lines_max: u32) -> Self {
        Self { lines_max, seen: HashMap::new(), others: Seen::NEVER }
    }
}

impl<K: Hash + Eq + Clone> Sparing<K> {
    /// Returns whether to log this line now: then what to write behind it.
    pub fn say(&mut self, now: Instant, key: K) -> Option<LeftOut> {
        if let Some(seen) = self.seen.get_mut(&key) {
            return seen.say(now, self.lines_max).map(|same| LeftOut { same, others: 0 });
        }
        if self.seen.len() >= KEYS_MAX {
            self.seen.retain(|_, seen| !seen.is_over(now) || seen.unsaid > 0);
        }
        if self.seen.len() >= KEYS_MAX {
            return self.others.say(now, 1).map(|others| LeftOut { same: 0, others });
        }
        let mut seen = Seen::NEVER;
        let same = seen.say(now, self.lines_max)?;
        self.seen.insert(key, seen);
        Some(LeftOut { same, others: 0 })
    }

    /// Returns a key of which lines were left out a while ago, with their number: to be logged where no
    /// further line of that kind may come.
    pub fn poll(&mut self, now: Instant) -> Option<(K, u64)> {
        let is_due = |seen: &Seen| {
            seen.unsaid > 0
                && seen.last.is_none_or(|last| now.duration_since(last) >= COUNT_INTERVAL)
        };
        let (key, seen) = self.seen.iter_mut().find(|(_, seen)| is_due(seen))?;
        seen.last = Some(now);
        Some((key.clone(), std::mem::take(&mut seen.unsaid)))
    }
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self { same: 0, others: 0 } => Ok(()),
            Self { same, others: 0 } => write!(f, "; {same} more like this"),
            Self { others, .. } => write!(f, "; {others} lines about others are left out"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(start: Instant, secs: u64) -> Instant {
        start + Duration::from_secs(secs)
    }

    #[test]
    fn a_line_is_said_once_a_minute_and_counts_those_it_stands_for() {
        let mut sparing = Sparing::default();
        let start = Instant::now();
        let mut say = |secs, key| sparing.say(at(start, secs), key).map(|it| it.to_string());
        let plain = Some(String::new());
        assert_eq!(say(0, "a"), plain);
        assert_eq!(say(1, "a"), None);
        assert_eq!(say(2, "b"), plain);
        assert_eq!(say(59, "a"), None);
        assert_eq!(say(60, "a"), Some("; 2 more like this".to_owned()));
        assert_eq!(say(200, "a"), plain);
    }

    #[test]
    fn some_lines_pass_and_the_others_are_counted_soon() {
        let mut sparing = Sparing::new(5);
        let start = Instant::now();
        let said = (0..100).filter(|_| sparing.say(start, "a").is_some()).count();
        assert_eq!(said, 5);
        assert_eq!(sparing.say(start, "b"), Some(LeftOut { same: 0, others: 0 }));
        assert_eq!(sparing.poll(at(start, 9)), None);
        assert_eq!(sparing.poll(at(start, 10)), Some(("a", 95)));
        assert_eq!(sparing.poll(at(start, 20)), None);
        assert_eq!(sparing.say(at(start, 21), "a"), None);
        assert_eq!(sparing.poll(at(start, 21)), Some(("a", 1)));
        assert_eq!(sparing.say(at(start, 60), "a"), Some(LeftOut { same: 0, others: 0 }));
    }

    #[test]
    fn somebody_who_tries_everything_fills_no_log_and_is_counted() {
        let mut sparing = Sparing::default();
        let start = Instant::now();
        let said = (0..10_000).filter(|key| sparing.say(start, *key).is_some()).count();
        assert_eq!(said, KEYS_MAX + 1);
        assert_eq!(sparing.say(at(start, 60), 10_000), Some(LeftOut { same: 0, others: 0 }));
        // Others that find no room again within a minute after the one that was said for them all.
        let left =
            (0..10_000).filter_map(|key| sparing.say(at(start, 61), key)).collect::<Vec<_>>();
        let others = u64::try_from(10_000 - KEYS_MAX - 1).unwrap();
        assert_eq!(left.last(), Some(&LeftOut { same: 0, others }));
    }
}
