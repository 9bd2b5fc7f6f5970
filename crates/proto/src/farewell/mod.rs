//! Rules by which processes leave.
//!
//! A machine knows the state of a job. When its process may leave is another question: a peer may
//! have to be told and be back in a moment, or never. Each role has its rules in a type of this
//! module, which looks at the role's machine:
//!
//! - `handle_*` says what the machine does not know: signals, connections, a peer that was given up.
//! - `review` is to be called whenever something happened, and when
//!   [`poll_timeout`](VentilatorFarewell::poll_timeout) has come. It starts and stops the timers, and does
//!   to the machine what is due.
//! - `exit` says whether the process leaves now, and for which reason.
//!
//! Every wait for a peer that may never come is bounded: by a [`Timer`], or because the process was told
//! to wait for ever.

mod relay;
mod sink;
mod timer;
mod ventilator;
mod worker;

pub use relay::{RelayExit, RelayFarewell};
pub use sink::{SinkExit, SinkFarewell};
pub use timer::{Timer, TimerTable};
pub use ventilator::{VentilatorExit, VentilatorFarewell};
pub use worker::{WorkerExit, WorkerFarewell, WorkerRules, WorkerStep};

use crate::Time;
use crate::dispatcher::{Dispatcher, Ended};
use crate::limits::{FAREWELL_MAX, STRANGE_BEATS_MAX};
use crate::message::ToSink;

/// End of a process that dispatches tasks: the sink has to be told that the job is over.
#[derive(Debug, Default)]
struct LastWord {
    /// The sink will not be dialled any more.
    is_sink_given_up: bool,
    /// No peer is to be waited for.
    is_hurried: bool,
}

impl LastWord {
    fn review(timers: &mut TimerTable, now: Time, dispatcher: &Dispatcher) {
        timers.hold(Timer::SinkTold, Self::is_untold(dispatcher), now, FAREWELL_MAX);
    }

    /// Returns whether the job is complete, and no sink is there that knows the job. A relay that
    /// takes the place of one that was killed finds no other process that could tell it.
    fn is_untold(dispatcher: &Dispatcher) -> bool {
        dispatcher.ended() == Some(&Ended::Complete) && !dispatcher.is_sink_open()
    }

    /// Returns whether the job is over, and no peer is waited for.
    fn is_said(&self, timers: &TimerTable, now: Time, dispatcher: &Dispatcher) -> bool {
        let is_waited_for = Self::is_untold(dispatcher)
            && !self.is_sink_given_up
            && !self.is_hurried
            && !timers.is_expired(Timer::SinkTold, now);
        dispatcher.ended().is_some() && !is_waited_for
    }
}

/// State of the process that should dispatch the tasks, as a process that collects results knows
/// it.
///
/// A ventilator opens its job before it says anything else. So does a relay, unless it knows no job: then
/// it only says that it is there. One that came after the end says no more than that for ever. One whose
/// own ventilator is stopped, or cannot be reached, will know the job again, so this is not taken for the
/// end at once. Silence shows nothing: a ventilator that is stopped is silent too.
#[derive(Debug, Default)]
struct Ventilator {
    has_opened: bool,
    /// Number of heartbeats without a job since the last that was opened.
    strange_beats: u32,
    /// The peer will not be dialled any more.
    is_given_up: bool,
}

impl Ventilator {
    /// Notes a connection from a ventilator, for the first time or again. A relay that is started again and
    /// again, because it reaches no ventilator, knows the job no better for that: its heartbeats add up.
    fn handle_connected(&mut self) {
        self.has_opened = false;
    }

    fn handle_message(&mut self, message: &ToSink) {
        match message {
            ToSink::JobOpen { .. } => (self.has_opened, self.strange_beats) = (true, 0),
            ToSink::Ping if !self.has_opened => self.strange_beats += 1,
            _ => {}
        }
    }

    /// Returns whether the peer is or may be there, and can be told that everything is stored.
    fn can_be_told(&self, is_connected: bool) -> bool {
        is_connected && self.strange_beats < STRANGE_BEATS_MAX
    }
}
