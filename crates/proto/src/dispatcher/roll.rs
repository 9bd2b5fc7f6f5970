//! The roll call: which workers have yet to say what they hold.

use std::collections::BTreeSet;

use crate::{CallId, SessionId, Time};

/// The roll call of all workers, and the ids of all calls.
#[derive(Debug)]
pub(super) struct Roll {
    /// The sink is new, or this ventilator: nothing is run again that may be held by a worker that
    /// has not answered.
    pub(super) call: Option<Call>,
    pub(super) next_call: CallId,
    /// An answer has shown that two workers may hold the same task.
    pub(super) is_doubled: bool,
}

/// A roll call that is not over.
#[derive(Debug)]
pub(super) struct Call {
    /// When it is over at the latest.
    pub(super) until: Time,
    /// Sessions that should answer, as far as is known.
    pub(super) expected: BTreeSet<SessionId>,
    /// There may be others.
    pub(super) is_open_ended: bool,
}

impl Roll {
    pub(super) fn new(next_call: CallId) -> Self {
        Self { call: None, next_call, is_doubled: false }
    }

    /// Returns an id that no call has had.
    pub(super) fn take_call(&mut self) -> CallId {
        let call = self.next_call;
        self.next_call = CallId(call.0 + 1);
        call
    }
}
