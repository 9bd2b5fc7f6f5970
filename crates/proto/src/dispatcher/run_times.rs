//! Run times of tasks, for timeouts that are a percentage of them.

use std::time::Duration;

/// Longest run time of an attempt.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Timeout {
    /// A fixed time.
    After(Duration),
    /// Percentage of the median run time of the attempts so far; GNU parallel's `--timeout N%`.
    Percent(f64),
}

/// Medians of the latest results, batch by batch.
#[derive(Debug, Default)]
pub(super) struct RunTimes {
    latest_us: Vec<u64>,
    next: usize,
    /// Timeout last announced to the workers, in microseconds; `None` unless it follows the median
    /// run time.
    pub(super) told_limit_us: Option<u64>,
}

/// Number of batches that count.
const LATEST_MAX: usize = 255;

/// Number of batches below which there is no median.
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

    /// Returns the present limit of a timeout, in microseconds.
    pub(super) fn limit_us(&self, timeout: Timeout) -> Option<u64> {
        match timeout {
            Timeout::After(limit) => Some(u64::try_from(limit.as_micros()).unwrap_or(u64::MAX)),
            Timeout::Percent(_) if self.latest_us.len() < LATEST_MIN => None,
            Timeout::Percent(percent) => {
                let mut sorted = self.latest_us.clone();
                let middle = sorted.len() / 2;
                let (_, median, _) = sorted.select_nth_unstable(middle);
                // A task that ends at once is not to be stopped: the clock is coarse there.
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
