//! Rules by which a sink leaves.

use super::{Timer, TimerTable, Ventilator};
use crate::Time;
use crate::collector::Collector;
use crate::limits::{FAREWELL_MAX, LINGER};
use crate::message::ToSink;

/// A sink's rules of leaving.
#[derive(Debug, Default)]
pub struct SinkFarewell {
    timers: TimerTable,
    ventilator: Ventilator,
    is_refused: bool,
    is_refusal_heard: bool,
}

/// Reason why a sink leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SinkExit {
    /// The ventilator knows that everything is stored, or has given the job up.
    Done,
    /// Everything is stored, and there is no ventilator to tell.
    Alone,
    /// The output cannot be opened.
    Refused {
        /// Whether the ventilator has heard of it.
        is_heard: bool,
    },
}

impl SinkFarewell {
    /// Notes that a ventilator's connection to this sink stands.
    pub fn handle_ventilator_connected(&mut self) {
        self.ventilator.handle_connected();
    }

    /// Notes that this sink's connection to the ventilator has ended. A sink whose refusal was told
    /// leaves.
    pub fn handle_ventilator_gone(&mut self) {
        self.is_refusal_heard |= self.is_refused;
    }

    /// Handles a message.
    pub fn handle_message(&mut self, message: &ToSink) {
        self.ventilator.handle_message(message);
    }

    /// Notes that the output cannot be opened, and the ventilator is being told.
    pub fn handle_refused(&mut self, now: Time) {
        self.is_refused = true;
        self.timers.start(Timer::RefusalHeard, now + LINGER);
    }

    /// Notes that the ventilator was not reached in the given time. Returns whether the sink can do
    /// without it: everything is stored.
    pub fn handle_ventilator_given_up(&mut self, collector: &Collector) -> bool {
        self.ventilator.is_given_up = true;
        collector.is_all_stored() || self.is_refused
    }

    /// Reviews the state of the job. `is_flushed`: all records are in the output, and it is
    /// flushed. `is_connected`: there is a connection to or from a ventilator.
    pub fn review(&mut self, now: Time, is_flushed: bool, is_connected: bool) {
        let is_alone = is_flushed && !self.ventilator.can_be_told(is_connected);
        self.timers.hold(Timer::VentilatorTold, is_alone, now, FAREWELL_MAX);
        if is_flushed && self.ventilator.is_given_up {
            self.timers.start(Timer::VentilatorTold, now);
        }
    }

    /// Returns the time at which to [review](Self::review), at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Time {
        self.timers.next()
    }

    /// Returns the reason why the sink leaves, if it does.
    #[must_use]
    pub fn exit(&self, now: Time, collector: &Collector) -> Option<SinkExit> {
        let is_heard = self.is_refusal_heard;
        if self.is_refused && (is_heard || self.timers.is_expired(Timer::RefusalHeard, now)) {
            Some(SinkExit::Refused { is_heard })
        } else if collector.is_done() {
            Some(SinkExit::Done)
        } else if self.timers.is_expired(Timer::VentilatorTold, now) {
            Some(SinkExit::Alone)
        } else {
            None
        }
    }
}
