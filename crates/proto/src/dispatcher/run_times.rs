//! How long tasks take, for timeouts that are a percentage of it.

use std::time::Duration;

/// How long an attempt may take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Timeout {
    /// So long.
    After(Duration),
    /// So many percent of the median of the attempts so far; GNU parallel's `--timeout N%`.
    Percent(f64),
}

/// The medians of the latest results, batch by batch.
#[derive(Debug, Default)]
pub(super) struct RunTimes {
    latest_us: Vec<u64>,
    next: usize,
    /// The timeout that workers were last told, in microseconds, where it moves.
    pub(super) told_limit_us: Option<u64>,
}

/// Batches that count.
const LATEST_MAX: usize = 255;

/// A median of fewer says nothing.
const LATEST_MIN: usize = 3;

impl RunTimes {
    pub(super) fn add(&mut self, ran_us: u64) {
        if self.latest_us.len() < LATEST_MAX {
            self.latest_us.push(ran_us);
        } else {
            self.latest_us[self.next] = ran_us;
            self.next = (self.next + 1) % LATEST_MAX;
        }
    }

    /// What a timeout is at the moment, in microseconds.
    pub(super) fn limit_us(&self, timeout: Timeout) -> Option<u64> {
        match timeout {
            Timeout::After(limit) => Some(u64::try_from(limit.as_micros()).unwrap_or(u64::MAX)),
            Timeout::Percent(_) if self.latest_us.len() < LATEST_MIN => None,
            Timeout::Percent(percent) => {
                let mut sorted = self.latest_us.clone();
                let middle = sorted.len() / 2;
                let (_, median, _) = sorted.select_nth_unstable(middle);
                // Nobody means to stop what is done in no time: the clock is coarse there.
                Some((*median as f64 * percent / 100.0).max(1_000.0) as u64)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentage_is_of_the_median() {
        let mut times = RunTimes::default();
        let limit = |times: &RunTimes| times.limit_us(Timeout::Percent(300.0));
        for ran_us in [1_000_000, 9_000_000] {
            times.add(ran_us);
            assert_eq!(limit(&times), None, "too few to tell");
        }
        times.add(2_000_000);
        assert_eq!(limit(&times), Some(6_000_000));
        for _ in 0..LATEST_MAX {
            times.add(5_000_000);
        }
        assert_eq!(limit(&times), Some(15_000_000), "the latest count");
        assert_eq!(times.limit_us(Timeout::After(Duration::from_millis(2))), Some(2_000));
    }
}
