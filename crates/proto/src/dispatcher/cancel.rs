//! Cancel of one task.
//!
//! Its record is `cancelled` at once, before its turn, and is sent to the sink until that has stored it. A worker
//! that has the task is told to forget it, as with a task that another worker's record has settled. What the sink
//! has first is the record: a result that was on its way when the task was cancelled may win, and one that comes
//! later counts for nothing.

use super::Dispatcher;
use super::ledger::TaskState;
use crate::message::Status;
use crate::{Seq, SeqRange, SessionId};

/// Answer to the cancel of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CancelAnswer {
    /// No worker has the task, as far as is known: its record is `cancelled`.
    Cancelled,
    /// A worker has the task, and is told to stop it. Its record is `cancelled`, unless the sink has the worker's
    /// result first.
    Stopping,
    /// The task was not read yet: its record is `cancelled` as soon as it is, unless it has one by then.
    Unread,
    /// The sink has the task's record, or a result that becomes its record: nothing is done.
    Ended,
    /// The job has no such task: nothing is done.
    Unknown,
}

impl Dispatcher {
    /// Cancels a task. To cancel it once more changes nothing. A seq that was not read yet takes up memory until it
    /// is read; the caller knows whether there is such a task.
    ///
    /// A ventilator that resumes the job does not know of it: tasks that were cancelled are to be cancelled again,
    /// before or after they are read. In a job of several stages it is the first stage's worker that stops; a task
    /// that has got beyond is `Ended`.
    pub fn handle_cancel_task(&mut self, seq: Seq) -> CancelAnswer {
        if !self.is_due(seq) {
            return CancelAnswer::Unknown;
        }
        let Some(state) = self.ledger.state(seq) else {
            self.unread_cancels.insert(seq);
            return CancelAnswer::Unread;
        };
        match state {
            TaskState::Settled | TaskState::Received(_) => return CancelAnswer::Ended,
            TaskState::GivenUp if !self.ledger.is_cancelled(seq) => return CancelAnswer::Ended,
            TaskState::Absent => return CancelAnswer::Unknown,
            _ => {}
        }
        let error = "the task was cancelled".to_owned();
        let given_up = self.ledger.give_up(&mut self.roster, seq, Status::Cancelled, error, true);
        if let Some(given_up) = given_up {
            self.send_give_up(seq, given_up);
        }
        let holders = self.roster.iter().filter(|(_, worker)| worker.out.contains(seq));
        let holders: Vec<SessionId> = holders.map(|(session, _)| *session).collect();
        for session in &holders {
            self.roster.announce_settled(*session, SeqRange::one(seq));
        }
        if holders.is_empty() { CancelAnswer::Cancelled } else { CancelAnswer::Stopping }
    }

    /// Returns whether a worker has the task, or has ended it and its record is not stored yet.
    #[must_use]
    pub fn is_out(&self, seq: Seq) -> bool {
        matches!(self.ledger.state(seq), Some(TaskState::Out(_) | TaskState::Received(_)))
    }

    /// Cancels a task that was just read, if it was to be. Nothing is to be done if it has its record.
    pub(super) fn cancel_if_due(&mut self, seq: Seq) {
        if !self.unread_cancels.is_empty() && self.unread_cancels.remove(seq) {
            self.handle_cancel_task(seq);
        }
    }
}
