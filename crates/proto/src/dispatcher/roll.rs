//! The roll call: the workers that have yet to report the tasks they hold.

use std::collections::BTreeSet;

use crate::{CallId, SessionId, Time};

/// Roll call of all workers, and the ids of all calls.
#[derive(Debug)]
pub(super) struct Roll {
    /// Set while the sink or this ventilator is new: no task is dispatched again that a worker may
    /// hold which has not answered.
    pub(super) call: Option<Call>,
    pub(super) next_call: CallId,
    /// An answer has shown that two workers may hold the same task.
    pub(super) is_doubled: bool,
}

/// Roll call that is not over.
#[derive(Debug)]
pub(super) struct Call {
    /// Time at which the call is over at the latest.
    pub(super) until: Time,
    /// Sessions that should answer, as far as is known.
    pub(super) expected: BTreeSet<SessionId>,
    /// There may be other workers.
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
