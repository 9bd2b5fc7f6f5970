//! What the dispatcher knows of a task.

use crate::Payload;

use crate::{Attempt, SessionId};

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) payload: Payload,
    pub(super) state: State,
    /// The attempt that was dispatched last; 0 before the first.
    pub(super) attempt: Attempt,
    /// While it is out: what failed before this attempt is old news.
    pub(super) since: Attempt,
    pub(super) failures: u32,
    /// The last attempt among the failures: the same one may be reported again.
    pub(super) failed: Attempt,
    pub(super) losses: u32,
    /// Whose attempt failed last: another worker may have better luck.
    pub(super) avoid: Option<SessionId>,
    /// The session that the last of the losses is blamed on.
    pub(super) blamed: Option<SessionId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Waits: for its turn, to be dispatched again, or for its backoff to pass.
    Queued,
    /// Dispatched to this session, which has not answered.
    Out(SessionId),
    /// The sink has this session's result and has not stored it.
    Received(SessionId),
    /// The sink is to write the record itself.
    GivenUp,
    /// The record is stored.
    Settled,
}

impl Entry {
    pub(super) fn new(payload: Payload) -> Self {
        Self {
            payload,
            state: State::Queued,
            attempt: Attempt(0),
            since: Attempt(0),
            failures: 0,
            failed: Attempt(0),
            losses: 0,
            avoid: None,
            blamed: None,
        }
    }

    /// It was never dispatched, and still can be.
    pub(super) fn is_fresh(&self) -> bool {
        self.state == State::Queued && self.attempt == Attempt(0)
    }
}
