//! Limits repeated log lines: each is logged once a minute, with the number of repetitions left
//! out.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// Decides which of many lines are logged. Time is an argument.
#[derive(Debug)]
pub struct Sparing<K> {
    seen: HashMap<K, Seen>,
}

#[derive(Debug)]
struct Seen {
    said: Instant,
    unsaid: u64,
}

/// Time for which a line is not logged again.
const INTERVAL: Duration = Duration::from_secs(60);

/// Number of lines that are remembered. Further new lines are not logged: a stranger may try
/// everything.
const KEYS_MAX: usize = 64;

impl<K> Default for Sparing<K> {
    fn default() -> Self {
        Self { seen: HashMap::new() }
    }
}

impl<K: Hash + Eq> Sparing<K> {
    /// Returns whether to log this line now: the number of times it was left out since it was
    /// logged last.
    pub fn say(&mut self, now: Instant, key: K) -> Option<u64> {
        if let Some(seen) = self.seen.get_mut(&key) {
            if now.duration_since(seen.said) < INTERVAL {
                seen.unsaid += 1;
                return None;
            }
            seen.said = now;
            return Some(std::mem::take(&mut seen.unsaid));
        }
        if self.seen.len() >= KEYS_MAX {
            self.seen.retain(|_, seen| now.duration_since(seen.said) < INTERVAL);
        }
        if self.seen.len() >= KEYS_MAX {
            return None;
        }
        self.seen.insert(key, Seen { said: now, unsaid: 0 });
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_said_once_a_minute_and_counts_those_it_stands_for() {
        let mut sparing = Sparing::default();
        let start = Instant::now();
        let mut say = |secs: u64, key| sparing.say(start + Duration::from_secs(secs), key);
        assert_eq!(say(0, "a"), Some(0));
        assert_eq!(say(1, "a"), None);
        assert_eq!(say(2, "b"), Some(0));
        assert_eq!(say(59, "a"), None);
        assert_eq!(say(60, "a"), Some(2));
        assert_eq!(say(200, "a"), Some(0));
    }

    #[test]
    fn somebody_who_tries_everything_fills_no_log() {
        let mut sparing = Sparing::default();
        let start = Instant::now();
        let said = (0..10_000).filter(|key| sparing.say(start, *key).is_some()).count();
        assert_eq!(said, KEYS_MAX);
        assert_eq!(sparing.say(start + INTERVAL, 10_000), Some(0));
    }
}
