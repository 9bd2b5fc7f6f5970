//! Rules by which a ventilator leaves.

use super::{LastWord, Timer, TimerTable};
use crate::Time;
use crate::dispatcher::Dispatcher;
use crate::limits::{ALONE_MAX, CANCEL_GRACE};

/// A ventilator's rules of leaving.
#[derive(Debug, Default)]
pub struct VentilatorFarewell {
    timers: TimerTable,
    last_word: LastWord,
    is_input_failed: bool,
    /// Number of tasks that had their records when the time for the last of them began.
    settled: u64,
}

/// Reason why a ventilator leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VentilatorExit {
    /// The job has [ended](Dispatcher::ended).
    Ended,
    /// The job was cancelled, and no sink has stored any more of its records in time.
    Unanswered,
}

impl VentilatorFarewell {
    /// Notes that reading the input failed. The tasks that were read before are finished.
    pub fn handle_input_failed(&mut self) {
        self.is_input_failed = true;
    }

    /// Handles a request to stop. After the end of the job no peer is waited for any more.
    pub fn handle_drain(&mut self, dispatcher: &mut Dispatcher) {
        if dispatcher.ended().is_some() {
            self.last_word.is_hurried = true;
        } else {
            dispatcher.handle_drain();
        }
    }

    /// Handles another request to stop.
    pub fn handle_cancel(&mut self, now: Time, dispatcher: &mut Dispatcher) {
        if dispatcher.ended().is_some() {
            self.last_word.is_hurried = true;
        } else {
            dispatcher.handle_cancel();
            self.settled = dispatcher.settled();
            self.timers.start(Timer::CancelGrace, now + CANCEL_GRACE);
        }
    }

    /// Notes that the sink was not reached in the given time. Returns whether the ventilator can do
    /// without it: the job is over or cancelled, and it leaves as it would have in the end.
    pub fn handle_sink_given_up(&mut self, dispatcher: &Dispatcher) -> bool {
        self.last_word.is_sink_given_up = true;
        dispatcher.ended().is_some() || self.is_cancelled()
    }

    /// Reviews the state of the job. Returns whether a drain was cancelled because no worker or
    /// sink was left to finish it.
    pub fn review(&mut self, now: Time, dispatcher: &mut Dispatcher) -> bool {
        self.end_if_input_failed(dispatcher);
        // A sink whose output has no room for records is as good as none.
        let is_alone = dispatcher.is_alone() || dispatcher.is_output_stuck();
        let is_draining =
            dispatcher.is_stopped() && !self.is_cancelled() && dispatcher.ended().is_none();
        self.timers.hold(Timer::DrainAlone, is_draining && is_alone, now, ALONE_MAX);
        let is_given_up = self.timers.is_expired(Timer::DrainAlone, now);
        if is_given_up {
            self.timers.stop(Timer::DrainAlone);
            self.handle_cancel(now, dispatcher);
        }
        if dispatcher.ended().is_some() {
            self.timers.stop(Timer::CancelGrace);
        } else if self.is_cancelled() && dispatcher.settled() > self.settled {
            // A sink that stores one record after the other is waited for, however many it has to store.
            self.settled = dispatcher.settled();
            self.timers.start(Timer::CancelGrace, now + CANCEL_GRACE);
        }
        LastWord::review(&mut self.timers, now, dispatcher);
        is_given_up
    }

    /// Returns the time at which to [review](Self::review), at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Time {
        self.timers.next()
    }

    /// Returns the reason why the ventilator leaves, if it does.
    #[must_use]
    pub fn exit(&self, now: Time, dispatcher: &Dispatcher) -> Option<VentilatorExit> {
        if self.last_word.is_said(&self.timers, now, dispatcher) {
            return Some(VentilatorExit::Ended);
        }
        let is_unanswered = self.is_cancelled()
            && dispatcher.ended().is_none()
            && (self.last_word.is_sink_given_up || self.timers.is_expired(Timer::CancelGrace, now));
        is_unanswered.then_some(VentilatorExit::Unanswered)
    }

    fn is_cancelled(&self) -> bool {
        self.timers.is_running(Timer::CancelGrace)
    }

    /// Ends the job once all tasks are done that were read before the input failed. This is a
    /// drain, not the end of the input: the job can be resumed when the input is mended.
    fn end_if_input_failed(&self, dispatcher: &mut Dispatcher) {
        if !self.is_input_failed || dispatcher.is_stopped() || dispatcher.is_resuming() {
            return;
        }
        let snapshot = dispatcher.snapshot();
        if snapshot.settled == snapshot.read {
            dispatcher.handle_drain();
        }
    }
}
