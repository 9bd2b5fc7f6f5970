//! What the dispatcher knows of a task.

use crate::Payload;

use crate::{Attempt, SessionId, TaskHash};

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) payload: Payload,
    /// What it was in the user's input, where that is not the payload.
    pub(super) origin: Option<TaskHash>,
    /// The payload is here, or was; of a relay's tasks it may be yet to come.
    pub(super) is_here: bool,
    pub(super) state: State,
    /// The attempt that was dispatched last; 0 before the first.
    pub(super) attempt: Attempt,
    /// While it is out: what failed before this attempt is old news.
    pub(super) since: Attempt,
    pub(super) failures: u32,
    /// The last attempt among the failures: the same one may be reported again.
    pub(super) failed: Attempt,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// An earlier stage has it, as far as a relay knows.
    Absent,
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
            origin: None,
            is_here: true,
            state: State::Queued,
            attempt: Attempt(0),
            since: Attempt(0),
            failures: 0,
            failed: Attempt(0),
        }
    }

    /// A task of a relay's that has not come yet.
    pub(super) fn absent() -> Self {
        Self { is_here: false, state: State::Absent, ..Self::new(Payload::new()) }
    }

    /// What it was in the user's input.
    pub(super) fn hash(&self) -> TaskHash {
        self.origin.unwrap_or_else(|| TaskHash::of(&self.payload))
    }

    /// What it is when nobody has it.
    pub(super) fn unheld(&self) -> State {
        if self.is_here { State::Queued } else { State::Absent }
    }

    /// It was never dispatched, and still can be.
    pub(super) fn is_fresh(&self) -> bool {
        self.state == State::Queued && self.attempt == Attempt(0)
    }
}
