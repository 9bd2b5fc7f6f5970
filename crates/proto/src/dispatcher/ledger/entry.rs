//! A task that is not settled, and its state.

use super::Shipment;
use crate::message::Task;
use crate::{Attempt, Payload, Seq, SessionId, Tag, TaskHash, Time};

/// Microseconds of a second.
pub(super) const SECOND_US: u64 = 1_000_000;

/// A task as the dispatcher keeps it. Only the ledger changes it.
#[derive(Debug)]
pub(in crate::dispatcher) struct Entry {
    pub(super) payload: Payload,
    /// Hash of the task in the user's input, where that is not the payload.
    pub(super) origin: Option<TaskHash>,
    pub(super) is_here: bool,
    pub(super) state: TaskState,
    pub(super) attempt: Attempt,
    pub(super) since: Attempt,
    pub(super) failures: u32,
    pub(super) failed: Attempt,
    pub(super) dispatched_s: u32,
}

/// The one state that a task is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dispatcher) enum TaskState {
    /// An earlier stage has it, as far as a relay knows.
    Absent,
    /// Its turn to be dispatched for the first time has not come.
    Fresh,
    /// Is to be dispatched, out of turn: it is in one of the sets of [`Waiting`](super::Waiting).
    Requeued,
    /// Failed, and is not dispatched again before this time.
    Backoff { until: Time },
    /// No worker holds it and it is not to be dispatched: the job ends before it.
    Idle,
    /// Dispatched to this session, which has not answered.
    Out(SessionId),
    /// The sink has this session's result and has not stored it.
    Received(SessionId),
    /// The sink is to write a record that no worker of this stage made.
    GivenUp,
    /// The record is stored.
    Settled,
}

impl TaskState {
    /// Returns whether the task is here, with no worker that answers for it and no record.
    pub(in crate::dispatcher) fn is_unassigned(self) -> bool {
        matches!(self, Self::Fresh | Self::Requeued | Self::Backoff { .. } | Self::Idle)
    }

    /// Returns whether the task counts among those that are kept.
    pub(super) fn is_live(self) -> bool {
        !matches!(self, Self::Settled | Self::Absent)
    }
}

impl Entry {
    pub(super) fn new(payload: Payload) -> Self {
        Self {
            payload,
            origin: None,
            is_here: true,
            state: TaskState::Fresh,
            attempt: Attempt(0),
            since: Attempt(0),
            failures: 0,
            failed: Attempt(0),
            dispatched_s: 0,
        }
    }

    pub(super) fn settled() -> Self {
        Self { state: TaskState::Settled, ..Self::new(Payload::new()) }
    }

    pub(super) fn absent() -> Self {
        Self { is_here: false, state: TaskState::Absent, ..Self::new(Payload::new()) }
    }

    pub(in crate::dispatcher) fn state(&self) -> TaskState {
        self.state
    }

    /// Returns the bytes of the payload; 0 if it is not here, or not any more.
    pub(in crate::dispatcher) fn bytes(&self) -> u64 {
        self.payload.len() as u64
    }

    /// Returns the attempt that was dispatched last; 0 before the first.
    pub(in crate::dispatcher) fn attempt(&self) -> Attempt {
        self.attempt
    }

    /// Returns, while the task is out, the first attempt whose failure counts: reports of earlier
    /// ones are stale.
    pub(in crate::dispatcher) fn since(&self) -> Attempt {
        self.since
    }

    /// Returns the number of attempts that failed.
    pub(in crate::dispatcher) fn failures(&self) -> u32 {
        self.failures
    }

    /// Returns the last attempt that failed: the same failure may be reported again.
    pub(in crate::dispatcher) fn failed(&self) -> Attempt {
        self.failed
    }

    /// Returns the time of the last dispatch, rounded up to a second; `None` if another dispatcher made it.
    pub(in crate::dispatcher) fn dispatched(&self) -> Option<Time> {
        let at = Time(u64::from(self.dispatched_s) * SECOND_US);
        (self.dispatched_s > 0).then_some(at)
    }

    /// Returns the hash of the task in the user's input.
    pub(in crate::dispatcher) fn hash(&self) -> TaskHash {
        self.origin.unwrap_or_else(|| TaskHash::of(&self.payload))
    }

    /// Returns whether the task was dispatched, or has a record.
    pub(super) fn is_begun(&self) -> bool {
        !self.state.is_unassigned() || self.attempt > Attempt(0)
    }

    /// Returns whether the entry holds no fact about the task.
    pub(super) fn is_blank(&self) -> bool {
        self.state == TaskState::Absent && self.attempt == Attempt(0) && self.failures == 0
    }

    /// Dispatches the task, which has yet to get its tag.
    pub(super) fn dispatch(&mut self, seq: Seq, shipment: &Shipment, retries: u32) -> Task {
        self.state = TaskState::Out(shipment.session);
        self.dispatched_s = shipment.at_s;
        self.attempt = self.attempt.next();
        self.since = self.attempt;
        Task {
            seq,
            attempt: self.attempt,
            last: self.failures >= retries,
            tag: Tag::default(),
            hash: self.hash(),
            payload: self.payload.clone(),
        }
    }

    /// Returns the state of the task once no worker answers for it.
    pub(super) fn unassigned_state(&self) -> TaskState {
        if self.is_here { TaskState::Idle } else { TaskState::Absent }
    }
}
