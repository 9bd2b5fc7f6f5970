//! Rules by which a relay leaves.

use super::{LastWord, Timer, TimerTable, Ventilator};
use crate::Time;
use crate::limits::FAREWELL_MAX;
use crate::message::ToSink;
use crate::relay::Relay;

/// A relay's rules of leaving: a sink's towards the earlier stage, a ventilator's towards the next.
#[derive(Debug, Default)]
pub struct RelayFarewell {
    timers: TimerTable,
    last_word: LastWord,
    ventilator: Ventilator,
}

/// Reason why a relay leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelayExit {
    /// The job has [ended](crate::dispatcher::Dispatcher::ended), as far as it is this relay's.
    Ended,
    /// Everything is stored, though not known to be flushed, and there is no ventilator to tell.
    Alone,
}

impl RelayFarewell {
    /// Notes that a ventilator's connection to this relay stands.
    pub fn handle_ventilator_connected(&mut self) {
        self.ventilator.handle_connected();
    }

    /// Handles a message from the earlier stage.
    pub fn handle_message(&mut self, message: &ToSink) {
        self.ventilator.handle_message(message);
    }

    /// Notes that the ventilator was not reached in the given time. Returns whether the relay can
    /// do without it: everything is stored.
    pub fn handle_ventilator_given_up(&mut self, relay: &Relay) -> bool {
        self.ventilator.is_given_up = true;
        relay.is_all_stored() || relay.downstream().ended().is_some()
    }

    /// Notes that the sink was not reached in the given time. Returns whether the relay can do
    /// without it: the job is over.
    pub fn handle_sink_given_up(&mut self, relay: &Relay) -> bool {
        self.last_word.is_sink_given_up = true;
        relay.downstream().ended().is_some()
    }

    /// Reviews the state of the job. `is_connected`: there is a connection to or from a ventilator.
    pub fn review(&mut self, now: Time, relay: &mut Relay, is_connected: bool) {
        let is_alone = relay.is_all_stored()
            && relay.downstream().ended().is_none()
            && !self.ventilator.can_be_told(is_connected);
        self.timers.hold(Timer::VentilatorTold, is_alone, now, FAREWELL_MAX);
        if self.is_ventilator_given_up(now, relay) && relay.is_flushed() {
            // The processes behind this relay hear it from no other.
            relay.handle_ventilator_given_up();
            self.timers.stop(Timer::VentilatorTold);
        }
        LastWord::review(&mut self.timers, now, relay.downstream());
    }

    /// Returns the time at which to [review](Self::review), at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Time {
        self.timers.next()
    }

    /// Returns the reason why the relay leaves, if it does.
    #[must_use]
    pub fn exit(&self, now: Time, relay: &Relay) -> Option<RelayExit> {
        if self.last_word.is_said(&self.timers, now, relay.downstream()) {
            return Some(RelayExit::Ended);
        }
        let is_alone =
            relay.downstream().ended().is_none() && self.is_ventilator_given_up(now, relay);
        is_alone.then_some(RelayExit::Alone)
    }

    fn is_ventilator_given_up(&self, now: Time, relay: &Relay) -> bool {
        let is_given_up = self.ventilator.is_given_up && relay.is_all_stored();
        is_given_up || self.timers.is_expired(Timer::VentilatorTold, now)
    }
}
