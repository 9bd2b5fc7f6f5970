//! Rules by which a worker leaves.

use std::time::Duration;

use super::{Timer, TimerTable};
use crate::Time;
use crate::executor::Executor;
use crate::limits::{
    ALONE_MAX, SETTLE_BYTES_MIN, SETTLE_WAIT_LEAVING_MAX, SETTLE_WAIT_MAX, STARVED_MAX,
};
use crate::message::ToWorker;

/// Settings of a worker's leaving.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorkerRules {
    /// The worker exits with the job.
    pub exit_when_done: bool,
    /// Time without a task after which the worker leaves.
    pub idle_max: Option<Duration>,
    /// Time after which the worker leaves if it has never reached the ventilator.
    pub late_max: Option<Duration>,
    /// Time after which the worker leaves if it has worked for a job and met no ventilator that
    /// knows it.
    pub forgotten_max: Option<Duration>,
}

/// A worker's rules of leaving.
#[derive(Debug)]
pub struct WorkerFarewell {
    rules: WorkerRules,
    timers: TimerTable,
    has_ventilator: bool,
    had_ventilator: bool,
    /// The ventilator has called the roll on the connection that stands: it knows a job.
    is_called: bool,
    has_sink: bool,
    /// The ventilator or the sink will not be dialled any more.
    is_peer_given_up: bool,
    /// The worker leaves by itself.
    is_leaving: bool,
    /// Number of results that were not settled, and bytes that were sent, at the last progress.
    progress: (u64, u64),
}

/// Action of a worker on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerStep {
    /// The worker had no task for this time: it is to [leave](WorkerFarewell::handle_leave).
    Idle(Duration),
    /// The worker has given up results that were not settled.
    GaveUp {
        /// Number of these results.
        results: u64,
    },
}

/// Reason why a worker leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerExit {
    /// The job is over, and the worker exits with it.
    JobDone,
    /// The worker has said goodbye: it holds no task and no result.
    Drained,
    /// The worker was to leave, runs no task, and has no peer to say goodbye to.
    Alone,
    /// The worker has never reached the ventilator: the job may have been over before it came.
    Late(Duration),
    /// The worker has met no ventilator that knows its job: that may be over.
    Forgotten(Duration),
}

impl WorkerFarewell {
    /// Creates the rules of a worker that has just started.
    #[must_use]
    pub fn new(rules: WorkerRules) -> Self {
        Self {
            rules,
            timers: TimerTable::default(),
            has_ventilator: false,
            had_ventilator: false,
            is_called: false,
            has_sink: false,
            is_peer_given_up: false,
            is_leaving: false,
            progress: (0, 0),
        }
    }

    /// Notes that the connection to the ventilator stands.
    pub fn handle_ventilator_connected(&mut self) {
        (self.has_ventilator, self.had_ventilator, self.is_called) = (true, true, false);
    }

    /// Notes that the connection to the ventilator has ended.
    pub fn handle_ventilator_disconnected(&mut self) {
        self.has_ventilator = false;
    }

    /// Notes that the connection to the sink stands.
    pub fn handle_sink_connected(&mut self) {
        self.has_sink = true;
    }

    /// Notes that the connection to the sink has ended.
    pub fn handle_sink_disconnected(&mut self) {
        self.has_sink = false;
    }

    /// Handles a message of the ventilator.
    pub fn handle_message(&mut self, message: &ToWorker) {
        self.is_called |= matches!(message, ToWorker::RollCall { .. });
    }

    /// Returns whether the connection to the ventilator stands.
    #[must_use]
    pub fn has_ventilator(&self) -> bool {
        self.has_ventilator
    }

    /// Returns whether the connection to the ventilator stood at any time.
    #[must_use]
    pub fn had_ventilator(&self) -> bool {
        self.had_ventilator
    }

    /// Handles a request to leave.
    pub fn handle_drain(&mut self, now: Time, grace: Duration, executor: &mut Executor) {
        executor.handle_drain(now, grace);
    }

    /// Makes the worker leave by itself, for a reason that is logged, unless it is leaving already.
    /// Returns whether that is new.
    pub fn handle_leave(
        &mut self,
        now: Time,
        grace: Duration,
        reason: String,
        executor: &mut Executor,
    ) -> bool {
        let is_new = !executor.is_draining();
        if is_new {
            self.is_leaving = true;
            executor.handle_leave(now, grace, reason);
        }
        is_new
    }

    /// Notes that the ventilator or the sink was not reached in the given time. Returns whether the
    /// worker can do without: it is to leave.
    pub fn handle_peer_given_up(&mut self, executor: &Executor) -> bool {
        self.is_peer_given_up = true;
        executor.is_draining()
    }

    /// Notes that a task could not be started while no other runs. Returns whether that has lasted
    /// so long that the worker is to leave.
    pub fn handle_starved(&mut self, now: Time) -> bool {
        self.timers.hold(Timer::Starved, true, now, STARVED_MAX);
        self.timers.is_expired(Timer::Starved, now)
    }

    /// Notes that a task has been run.
    pub fn handle_ran(&mut self) {
        self.timers.stop(Timer::Starved);
    }

    /// Reviews the worker's tasks and results. `sent_bytes`: bytes sent to the sink on all
    /// connections so far.
    pub fn review(
        &mut self,
        now: Time,
        executor: &mut Executor,
        sent_bytes: u64,
    ) -> Option<WorkerStep> {
        let snapshot = executor.snapshot();
        let is_at_rest = snapshot.running == 0 && snapshot.queued == 0;
        let is_draining = executor.is_draining();
        let WorkerRules { exit_when_done, idle_max, late_max, forgotten_max } = self.rules;

        let is_alone = is_draining && is_at_rest && !self.has_sink && !self.has_ventilator;
        self.timers.hold(Timer::WorkerAlone, is_alone, now, ALONE_MAX);
        let is_late = late_max.is_some() && !self.had_ventilator && !is_draining;
        self.timers.hold(Timer::Late, is_late, now, late_max.unwrap_or_default());
        let is_known = self.has_ventilator && self.is_called;
        let is_forgotten = exit_when_done
            && forgotten_max.is_some()
            && executor.job().is_some()
            && is_at_rest
            && !is_draining
            && !is_known;
        self.timers.hold(Timer::Forgotten, is_forgotten, now, forgotten_max.unwrap_or_default());
        let is_idle = idle_max.is_some() && is_at_rest && !is_draining;
        self.timers.hold(Timer::Idle, is_idle, now, idle_max.unwrap_or_default());

        let is_unsettled = is_draining && is_at_rest && snapshot.retained > 0;
        self.hold_unsettled(now, is_unsettled, snapshot.retained, sent_bytes);
        if is_unsettled && (self.is_peer_given_up || self.timers.is_expired(Timer::Unsettled, now))
        {
            self.timers.stop(Timer::Unsettled);
            return Some(WorkerStep::GaveUp { results: executor.give_up_results() });
        }
        if self.timers.is_expired(Timer::Idle, now) {
            self.timers.stop(Timer::Idle);
            return idle_max.map(WorkerStep::Idle);
        }
        None
    }

    /// Restarts the wait with each result that is settled, and while results are on their way: on a
    /// slow link a large one takes longer than any timeout.
    fn hold_unsettled(&mut self, now: Time, is_unsettled: bool, retained: u64, sent_bytes: u64) {
        let (before, bytes_before) = self.progress;
        let has_progress = retained < before || sent_bytes >= bytes_before + SETTLE_BYTES_MIN;
        if !is_unsettled || has_progress {
            self.timers.stop(Timer::Unsettled);
        }
        if !self.timers.is_running(Timer::Unsettled) {
            self.progress = (retained, sent_bytes);
        }
        let after = if self.is_leaving { SETTLE_WAIT_LEAVING_MAX } else { SETTLE_WAIT_MAX };
        self.timers.hold(Timer::Unsettled, is_unsettled, now, after);
    }

    /// Returns the time at which to [review](Self::review), at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Time {
        // This timer alone does not make a worker leave, but the next failure after it does.
        let mut timers = self.timers.clone();
        timers.stop(Timer::Starved);
        timers.next()
    }

    /// Returns the reason why the worker leaves, if it does.
    #[must_use]
    pub fn exit(&self, now: Time, executor: &Executor) -> Option<WorkerExit> {
        let is_done = self.rules.exit_when_done && executor.snapshot().jobs_done > 0;
        // A worker without a job and a sink need not say goodbye.
        let is_free = executor.is_draining() && !self.has_sink && executor.is_empty();
        if is_done {
            Some(WorkerExit::JobDone)
        } else if executor.is_drained() {
            Some(WorkerExit::Drained)
        } else if is_free || self.timers.is_expired(Timer::WorkerAlone, now) {
            Some(WorkerExit::Alone)
        } else if self.timers.is_expired(Timer::Late, now) {
            self.rules.late_max.map(WorkerExit::Late)
        } else if self.timers.is_expired(Timer::Forgotten, now) {
            self.rules.forgotten_max.map(WorkerExit::Forgotten)
        } else {
            None
        }
    }
}
