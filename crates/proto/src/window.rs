//! Number of tasks that a worker may hold.
//!
//! The window is the worker's slots plus the tasks that it gets through in the target time and in
//! twice the time that a task and its receipt travel. The worker's rate is measured once a round, a
//! round being the way of one task from its dispatch to its receipt: the tasks that the worker
//! finished in that time, divided by the time (Little's law). A worker that is starved by its
//! window therefore sees the window grow by a factor each round, as in TCP's slow start, until the
//! worker itself is the limit. A lower bound is the rate that follows from the run times of its
//! tasks.

use std::time::Duration;

use crate::limits::{CREDIT_BYTES_MAX, CREDIT_TASKS_MAX, QUEUED_WORK_TARGET};
use crate::{Seq, SeqRanges, Time};

/// A worker's credit window.
#[derive(Debug)]
pub(crate) struct Window {
    slots: u64,
    size: u64,
    /// Rate in tasks per second.
    rate: Option<f64>,
    travel_min: Option<Duration>,
    round: Option<Round>,
    /// Bytes of one result.
    result_bytes: f64,
}

#[derive(Debug)]
struct Round {
    probe: Seq,
    began: Time,
    received: u64,
}

/// Longest travel time that is believed: a longer one would be a queue, not a distance.
const TRAVEL_MAX: Duration = Duration::from_secs(1);

/// Weight of the newest round in a falling rate.
const RATE_GAIN: f64 = 0.5;

/// Weight of the newest results in a falling result size.
const RESULT_GAIN: f64 = 0.1;

/// Largest factor by which a window grows in a round.
const GROWTH_MAX: u64 = 2;

/// Shortest round that is measured: the clock counts microseconds.
const ROUND_MIN: Duration = Duration::from_micros(20);

/// Run time assumed for a task that took no time by a clock of microseconds.
const RAN_MIN: Duration = Duration::from_micros(1);

impl Window {
    pub(crate) fn new(slots: u32) -> Self {
        let slots = u64::from(slots.max(1));
        Self { slots, size: slots, rate: None, travel_min: None, round: None, result_bytes: 0.0 }
    }

    pub(crate) fn slots(&self) -> u64 {
        self.slots
    }

    /// Sets the number of slots that the worker uses now. It may lack the resources for more.
    pub(crate) fn set_slots(&mut self, slots: u32) {
        let slots = u64::from(slots);
        self.size = (self.size - self.slots.min(self.size) + slots).max(slots);
        self.slots = slots;
    }

    /// Returns the number of tasks that the worker may hold. Beyond its slots, their results must
    /// fit into its share of the sink's memory: they cannot be recalled.
    pub(crate) fn size(&self) -> u64 {
        self.size_or(0)
    }

    /// Like `size`, but with at least `least` tasks queued beyond the slots, as far as the expected
    /// result bytes allow.
    pub(crate) fn size_or(&self, least: u64) -> u64 {
        let results = CREDIT_BYTES_MAX as f64 / self.result_bytes.max(1.0);
        self.size.max(self.slots + least).min(self.slots + results as u64)
    }

    /// Returns the rate in tasks per second, once it is known.
    pub(crate) fn rate(&self) -> Option<f64> {
        self.rate
    }

    /// Returns the shortest time that a task and its receipt travel, once it is known.
    pub(crate) fn travel(&self) -> Option<Duration> {
        self.travel_min
    }

    pub(crate) fn handle_dispatched(&mut self, now: Time, last: Seq) {
        self.round.get_or_insert(Round { probe: last, began: now, received: 0 });
    }

    pub(crate) fn handle_received(
        &mut self,
        now: Time,
        ranges: &SeqRanges,
        count: u64,
        ran_max: Duration,
        ran_usual: Option<Duration>,
    ) {
        let Some(round) = &mut self.round else { return };
        round.received += count;
        if !ranges.contains(round.probe) {
            return;
        }
        let took = now.since(round.began).max(ROUND_MIN);
        let rate = round.received as f64 / took.as_secs_f64();
        self.round = None;

        let travel = took.saturating_sub(ran_max).min(TRAVEL_MAX);
        let travel = self.travel_min.map_or(travel, |least| least.min(travel));
        // A rise is believed at once, else a starved worker would take very long to get going.
        let rate = self.rate.map_or(rate, |old| rate.max(old + RATE_GAIN * (rate - old)));
        self.travel_min = Some(travel);
        self.rate = Some(rate);
        // Twice the travel time, so that the window still grows where the target is small beside
        // it.
        let queued = rate * (QUEUED_WORK_TARGET + 2 * travel).as_secs_f64();
        // Lower bound by the run times of the tasks: where many workers share a few cores, the rate
        // is low because batches are small.
        let by_run_time = ran_usual.map_or(0.0, |ran| {
            self.slots as f64 * QUEUED_WORK_TARGET.as_secs_f64() / ran.max(RAN_MIN).as_secs_f64()
        });
        let queued = queued.max(by_run_time);
        // At most double, so that a single short task among long ones does not fill a queue that
        // other workers would have shared.
        let size = (self.slots + queued as u64).min(GROWTH_MAX * self.size.max(1));
        self.size = size.min(CREDIT_TASKS_MAX);
    }

    /// Records that `count` results have `bytes` bytes together.
    pub(crate) fn handle_result_bytes(&mut self, count: u64, bytes: u64) {
        if count > 0 {
            let each = bytes as f64 / count as f64;
            // Growth is believed at once: large results cost memory.
            self.result_bytes =
                each.max(self.result_bytes + RESULT_GAIN * (each - self.result_bytes));
        }
    }

    /// Begins a new round with the next dispatch: the task that is measured may never come back.
    pub(crate) fn handle_reset(&mut self) {
        self.round = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a worker with `slots` slots that takes `task` a task, at a distance of `travel` both
    /// ways together, that always holds what its window allows; gives the window it ends up with.
    fn settles_at(slots: u32, task: Duration, travel: Duration) -> u64 {
        let mut window = Window::new(slots);
        let mut now = Time(0);
        let mut seq = 0;
        for _ in 0..40 {
            let size = window.size();
            seq += size;
            window.handle_dispatched(now, Seq(seq));
            let runs = size.div_ceil(u64::from(slots));
            let busy = Duration::from_secs_f64(task.as_secs_f64() * runs as f64);
            now = now + busy + travel;
            window.handle_received(now, &[Seq(seq)].into_iter().collect(), size, task, Some(task));
        }
        window.size()
    }

    #[test]
    fn long_tasks_are_not_queued() {
        assert_eq!(settles_at(4, Duration::from_secs(10), Duration::from_millis(1)), 4);
        assert_eq!(settles_at(1, Duration::from_millis(100), Duration::from_micros(300)), 1);
    }

    #[test]
    fn short_tasks_are_queued_for_about_the_target() {
        let size = settles_at(2, Duration::from_millis(1), Duration::from_micros(300));
        assert!((90..=130).contains(&size), "{size}");
        let size = settles_at(1, Duration::from_micros(10), Duration::from_micros(300));
        assert!((4_500..=5_500).contains(&size), "{size}");
    }

    #[test]
    fn the_fastest_worker_is_bounded() {
        assert_eq!(
            settles_at(1, Duration::from_nanos(1), Duration::from_micros(300)),
            CREDIT_TASKS_MAX
        );
    }

    // Fails without `GROWTH_MAX`.
    #[test]
    fn a_round_doubles_the_window_at_most() {
        let mut window = Window::new(1);
        window.handle_dispatched(Time(0), Seq(0));
        let (short, one) = (Duration::from_micros(1), [Seq(0)].into_iter().collect());
        window.handle_received(Time(100), &one, 1, short, Some(short));
        assert_eq!(window.size(), GROWTH_MAX);
    }

    #[test]
    fn distance_is_made_up_for() {
        let size = settles_at(1, Duration::from_millis(1), Duration::from_millis(200));
        assert!((230..=270).contains(&size), "{size}");
    }
}
