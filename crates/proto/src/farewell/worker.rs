//! When a worker leaves.

use std::time::Duration;

use super::{Timer, TimerTable};
use crate::Time;
use crate::executor::Executor;
use crate::limits::{
    ALONE_MAX, SETTLE_BYTES_MIN, SETTLE_WAIT_LEAVING_MAX, SETTLE_WAIT_MAX, STARVED_MAX,
};
use crate::message::ToWorker;

/// What a worker was told about leaving.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorkerRules {
    /// It exits with the job.
    pub exit_when_done: bool,
    /// Time without a task after which it leaves.
    pub idle_max: Option<Duration>,
    /// Time after which it leaves if it has never reached the ventilator.
    pub late_max: Option<Duration>,
    /// Time after which it leaves if it has worked for a job and met no ventilator that knows it.
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
    /// One of the two will not be dialled any more.
    is_peer_given_up: bool,
    /// It leaves by itself.
    is_leaving: bool,
    /// Results that were not settled, and bytes that were sent, when there was progress last.
    progress: (u64, u64),
}

/// Something that a worker has to do, or to say, on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerStep {
    /// It had no task for so long: it is to [leave](WorkerFarewell::handle_leave).
    Idle(Duration),
    /// It has given up results that were not settled.
    GaveUp {
        /// Number of these results.
        results: u64,
    },
}

/// Why a worker leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerExit {
    /// The job is over, and it exits with that.
    JobDone,
    /// It has said goodbye: nothing that it had is left here.
    Drained,
    /// It was to leave, runs nothing, and has nobody to say goodbye to.
    Alone,
    /// It has never reached the ventilator: the job may have been over before it came.
    Late(Duration),
    /// It has met no ventilator that knows the job that it worked for: that may be over.
    Forgotten(Duration),
}

impl WorkerFarewell {
    /// The rules of a worker that has just started.
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

    /// The connection to the ventilator stands.
    pub fn handle_ventilator_connected(&mut self) {
        (self.has_ventilator, self.had_ventilator, self.is_called) = (true, true, false);
    }

    /// The connection to the ventilator has ended.
    pub fn handle_ventilator_disconnected(&mut self) {
        self.has_ventilator = false;
    }

    /// The connection to the sink stands.
    pub fn handle_sink_connected(&mut self) {
        self.has_sink = true;
    }

    /// The connection to the sink has ended.
    pub fn handle_sink_disconnected(&mut self) {
        self.has_sink = false;
    }

    /// The ventilator says something.
    pub fn handle_message(&mut self, message: &ToWorker) {
        self.is_called |= matches!(message, ToWorker::RollCall { .. });
    }

    /// Is the connection to the ventilator there?
    #[must_use]
    pub fn has_ventilator(&self) -> bool {
        self.has_ventilator
    }

    /// Was it there at any time?
    #[must_use]
    pub fn had_ventilator(&self) -> bool {
        self.had_ventilator
    }

    /// Somebody asks it to leave.
    pub fn handle_drain(&mut self, now: Time, grace: Duration, executor: &mut Executor) {
        executor.handle_drain(now, grace);
    }

    /// It leaves by itself, for a reason that is told to people, unless it is leaving already. Returns
    /// whether that is new.
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

    /// The ventilator or the sink was not reached in the time that was given for it. Returns whether the
    /// worker can do without: it is to leave.
    pub fn handle_peer_given_up(&mut self, executor: &Executor) -> bool {
        self.is_peer_given_up = true;
        executor.is_draining()
    }

    /// A task could not be started, and nothing else runs here. Returns whether that has been so for so
    /// long that it is to leave.
    pub fn handle_starved(&mut self, now: Time) -> bool {
        self.timers.hold(Timer::Starved, true, now, STARVED_MAX);
        self.timers.is_expired(Timer::Starved, now)
    }

    /// A task has been run.
    pub fn handle_ran(&mut self) {
        self.timers.stop(Timer::Starved);
    }

    /// Looks at what the worker has. `sent_bytes`: what it has sent the sink on all connections so far.
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

    /// Starts waiting anew with each result that is settled, and while results are on their way: on a
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

    /// When to [review](Self::review), at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Time {
        // It is not this one's time that makes a worker leave, but the next failure after it.
        let mut timers = self.timers.clone();
        timers.stop(Timer::Starved);
        timers.next()
    }

    /// Why the worker leaves, if it does.
    #[must_use]
    pub fn exit(&self, now: Time, executor: &Executor) -> Option<WorkerExit> {
        let is_done = self.rules.exit_when_done && executor.snapshot().jobs_done > 0;
        // One that has nothing to do with anybody need not say goodbye.
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
