//! Run times of a child's tasks, and from them the number that it should have and the time between checks.

use std::time::Duration;

/// The mean of the latest tasks' times.
#[derive(Debug, Default)]
pub(super) struct Pace {
    us: f64,
    tasks: f64,
}

/// Work that a child has beyond the task that it is at: more than it takes to bring it the next.
const AHEAD: Duration = Duration::from_millis(20);

/// Tasks that a child may have, at most.
const DEPTH_MAX: u32 = 1 << 14;

/// Tasks after which the older ones count half.
const MEMORY_TASKS: f64 = 256.0;

/// Least time of a task, in microseconds: a shorter one takes none by the clock.
const TASK_US_MIN: f64 = 0.1;

/// The longest nap, and so the longest that an answer lies there.
const NAP_MAX: Duration = Duration::from_millis(1);

/// A nap in which fewer answers come is not worth it.
const NAP_TASKS_MIN: f64 = 16.0;

impl Pace {
    /// Records that `count` answers took `took_us` microseconds together.
    pub(super) fn handle_answered(&mut self, took_us: u64, count: u64) {
        while self.tasks > MEMORY_TASKS {
            (self.us, self.tasks) = (self.us / 2.0, self.tasks / 2.0);
        }
        self.us += took_us as f64;
        self.tasks += count as f64;
    }

    /// Tasks that the child should have, with the one that it is at: one, as long as nothing is
    /// known, or if a task takes longer than it takes to bring it the next. What lies there cannot
    /// be taken back.
    pub(super) fn depth(&self) -> u32 {
        let Some(task_us) = self.task_us() else { return 1 };
        let ahead = AHEAD.as_micros() as f64 / task_us;
        1 + (ahead as u32).min(DEPTH_MAX - 1)
    }

    /// Returns the time for which a child with this many tasks need not be read from.
    pub(super) fn nap(&self, tasks: usize) -> Option<Duration> {
        // Half of them, so that there is time to bring it more.
        let half = tasks as f64 / 2.0;
        let us = (half * self.task_us()?).min(NAP_MAX.as_micros() as f64);
        let is_worthwhile = us >= NAP_TASKS_MIN * self.task_us()?;
        is_worthwhile.then(|| Duration::from_micros(us as u64))
    }

    fn task_us(&self) -> Option<f64> {
        (self.tasks > 0.0).then(|| (self.us / self.tasks).max(TASK_US_MIN))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_tasks_are_kept_in_flight_and_long_ones_are_not() {
        let check = |task_us: u64, depth: u32, nap_us: Option<u64>| {
            let mut pace = Pace::default();
            for _ in 0..100 {
                pace.handle_answered(task_us * 100, 100);
            }
            assert_eq!(pace.depth(), depth, "{task_us}");
            let nap = nap_us.map(Duration::from_micros);
            assert_eq!(pace.nap(depth as usize), nap, "{task_us}");
        };
        check(0, DEPTH_MAX, Some(819));
        check(2, 10_001, Some(1_000));
        check(50, 401, Some(1_000));
        check(100, 201, None);
        check(19_000, 2, None);
        check(21_000, 1, None);
        check(10_000_000, 1, None);
        assert_eq!(Pace::default().depth(), 1);
    }

    #[test]
    fn a_change_is_noticed() {
        let mut pace = Pace::default();
        pace.handle_answered(1_000_000, 1_000_000);
        for _ in 0..1_000 {
            pace.handle_answered(100_000, 1);
        }
        assert_eq!(pace.depth(), 1);
    }
}
