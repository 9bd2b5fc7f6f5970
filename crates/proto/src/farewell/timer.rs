//! Timers of the reasons to leave.

use std::time::Duration;

use crate::Time;

/// A reason to look at the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timer {
    /// When to stop waiting for a sink that has to be told of the end.
    SinkTold,
    /// When to cancel a drain that no worker or sink is left to finish.
    DrainAlone,
    /// When to leave a cancelled job whose last records have not been stored.
    CancelGrace,
    /// When to stop waiting for a ventilator that has to be told that everything is stored.
    VentilatorTold,
    /// When to stop waiting for the ventilator to hear why its job is refused.
    RefusalHeard,
    /// When a worker that is to leave stops waiting for peers, none of which is there.
    WorkerAlone,
    /// When a worker that is to leave stops waiting for its results to be settled.
    Unsettled,
    /// When a worker that exits with the job takes the job to be over, having never reached the
    /// ventilator.
    Late,
    /// When a worker that exits with the job takes the job to be over, having met no ventilator that
    /// still knows it.
    Forgotten,
    /// When a worker leaves because it had no task for as long as it was told.
    Idle,
    /// When a worker that could start no task leaves, should it fail to start another one.
    Starved,
}

const COUNT: usize = Timer::Starved as usize + 1;

/// The timers that run, each with the time at which it expires.
#[derive(Clone, Debug, Default)]
pub struct TimerTable {
    expires: [Option<Time>; COUNT],
}

impl TimerTable {
    /// Starts a timer, or starts it again.
    pub fn start(&mut self, timer: Timer, expires: Time) {
        self.expires[timer as usize] = Some(expires);
    }

    /// Stops a timer.
    pub fn stop(&mut self, timer: Timer) {
        self.expires[timer as usize] = None;
    }

    /// Keeps a timer running while its reason holds: it expires `after` the reason was first given,
    /// and stops when the reason is gone.
    pub fn hold(&mut self, timer: Timer, is_reason: bool, now: Time, after: Duration) {
        if !is_reason {
            self.stop(timer);
        } else if !self.is_running(timer) {
            self.start(timer, now + after);
        }
    }

    /// Returns whether a timer runs, or has expired without being stopped.
    #[must_use]
    pub fn is_running(&self, timer: Timer) -> bool {
        self.expires[timer as usize].is_some()
    }

    /// Returns whether a timer has expired.
    #[must_use]
    pub fn is_expired(&self, timer: Timer, now: Time) -> bool {
        self.expires[timer as usize].is_some_and(|expires| expires <= now)
    }

    /// Returns the time at which the next of them expires; the end of time if none runs.
    #[must_use]
    pub fn next(&self) -> Time {
        self.expires.iter().flatten().copied().min().unwrap_or(Time(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_runs_for_as_long_as_its_reason_holds() {
        let mut timers = TimerTable::default();
        let at = |secs| Time(0) + Duration::from_secs(secs);
        let mut hold = |secs, is_reason| {
            let now = at(secs);
            timers.hold(Timer::SinkTold, is_reason, now, Duration::from_secs(10));
            (timers.is_expired(Timer::SinkTold, now), timers.next())
        };
        let end = Time(u64::MAX);
        assert_eq!(hold(0, false), (false, end));
        assert_eq!(hold(1, true), (false, at(11)));
        assert_eq!(hold(10, true), (false, at(11)));
        assert_eq!(hold(10, false), (false, end));
        assert_eq!(hold(12, true), (false, at(22)));
        assert_eq!(hold(22, true), (true, at(22)));
    }
}
