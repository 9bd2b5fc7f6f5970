//! Where a task is, and what has happened since this dispatcher began.

use super::Dispatcher;
use super::ledger::TaskState;
use super::snapshot::Straggler;
use crate::{Attempt, Seq, SessionId, Time};

/// What is known of one task.
#[derive(Clone, Debug, PartialEq)]
pub struct Explained {
    /// The task.
    pub seq: Seq,
    /// Where it is.
    pub place: Place,
    /// Number of attempts that were dispatched, as far as is known: 0 of a task that is stored, whose record says it.
    pub attempts: Attempt,
    /// Number of its attempts that failed.
    pub failures: u32,
    /// Number of workers that were lost while it may have run there.
    pub losses: u32,
}

/// Where a task is.
#[derive(Clone, Debug, PartialEq)]
pub enum Place {
    /// Not read yet, or not a task of the job. In a relay also a task that an earlier stage has.
    Unread,
    /// It is not dispatched: the job ends before it.
    CutOff,
    /// It waits to be dispatched.
    Queued {
        /// Number of tasks that go first, if nothing changes: an upper bound.
        before: u64,
        /// What it waits for.
        waits_for: WaitsFor,
    },
    /// It failed, and waits to be tried again.
    Delayed {
        /// Time from which on it may be dispatched.
        until: Time,
    },
    /// A worker has it.
    AtWorker {
        /// Session of the worker.
        session: SessionId,
        /// Name of the worker.
        worker: String,
        /// Time of the dispatch, rounded up to a second; `None` if another dispatcher made it.
        since: Option<Time>,
        /// Whether it runs there, by the worker's last heartbeat: tasks start in the order of their seqs.
        is_running: bool,
    },
    /// The sink has its result, and has not stored it.
    Received {
        /// Session of the worker that ran it.
        session: SessionId,
        /// Name of the worker, if it is still there.
        worker: Option<String>,
    },
    /// It ends without a result of a worker of this stage, and that record is not stored.
    GivenUp,
    /// Its record is stored.
    Stored,
}

/// What a queued task waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitsFor {
    /// Its turn.
    Turn,
    /// A worker where no other suspect is: a worker was lost while it may have run there.
    NoSuspect,
    /// A worker without any other task: its next loss would be its last.
    EmptyWorker,
    /// Whether the workers at which it may have run are dead.
    Judgement,
    /// A worker at which it has not failed.
    OtherWorker {
        /// Time until which it waits; `None` for as long as there is one.
        until: Option<Time>,
    },
    /// A worker that takes a task of its size.
    LargerWorker {
        /// Time since which there is none.
        since: Time,
    },
}

/// Counts since this dispatcher began, and times of the latest events.
#[derive(Debug, Default)]
pub(super) struct History {
    pub(super) retries: u64,
    pub(super) recalled: u64,
    pub(super) workers_lost: u64,
    pub(super) roll_calls: u64,
    pub(super) stored_at: Option<Time>,
    /// First task that is read and not stored, and the time since which it is the first.
    first: Option<(Seq, Time)>,
}

impl Dispatcher {
    /// Returns what is known of a task. It may look at all tasks that wait.
    #[must_use]
    pub fn explain(&self, seq: Seq) -> Explained {
        let entry = self.ledger.get(seq);
        let mark = self.suspicions.marks.get(&seq);
        Explained {
            seq,
            place: self.place(seq),
            attempts: entry.map_or(Attempt(0), |entry| entry.attempt()),
            failures: entry.map_or(0, |entry| entry.failures()),
            losses: mark.map_or(0, |mark| mark.losses.len() as u32),
        }
    }

    fn place(&self, seq: Seq) -> Place {
        match self.ledger.state(seq) {
            None | Some(TaskState::Absent) => Place::Unread,
            Some(TaskState::Idle) => Place::CutOff,
            Some(TaskState::Fresh) => {
                // Some between may have been given up: the count is exact without those.
                let fresh = seq.0.saturating_sub(self.ledger.fresh().0);
                let fresh = fresh.min(self.ledger.fresh_count().saturating_sub(1));
                let before = fresh + self.ledger.waiting().count();
                Place::Queued { before, waits_for: WaitsFor::Turn }
            }
            Some(TaskState::Requeued) => self.place_in_queue(seq),
            Some(TaskState::Backoff { until }) => Place::Delayed { until },
            Some(TaskState::Out(session)) => self.place_at(seq, session),
            Some(TaskState::Received(session)) => {
                let worker = self.roster.get(session).map(|worker| worker.name.clone());
                Place::Received { session, worker }
            }
            Some(TaskState::GivenUp) => Place::GivenUp,
            Some(TaskState::Settled) => Place::Stored,
        }
    }

    fn place_in_queue(&self, seq: Seq) -> Place {
        let waiting = self.ledger.waiting();
        let (before, waits_for) = if waiting.any.contains(&seq) {
            (waiting.any.range(..seq).count(), WaitsFor::Turn)
        } else if waiting.beside.contains(&seq) {
            (waiting.beside.range(..seq).count(), WaitsFor::NoSuspect)
        } else if waiting.alone.contains(&seq) {
            (waiting.alone.range(..seq).count(), WaitsFor::EmptyWorker)
        } else if let Some(until) = waiting.elsewhere.get(&seq) {
            let before = waiting.elsewhere.range(..seq).count();
            (before, WaitsFor::OtherWorker { until: *until })
        } else if let Some(since) = waiting.large.get(&seq) {
            (waiting.large.range(..seq).count(), WaitsFor::LargerWorker { since: *since })
        } else {
            (0, WaitsFor::Judgement)
        };
        Place::Queued { before: before as u64, waits_for }
    }

    fn place_at(&self, seq: Seq, session: SessionId) -> Place {
        let since = self.ledger.get(seq).and_then(|entry| entry.dispatched());
        let worker = self.roster.get(session);
        let is_running = worker.is_some_and(|worker| {
            worker.out.iter().take(worker.running as usize).any(|first| first == seq)
        });
        let worker = worker.map_or_else(String::new, |worker| worker.name.clone());
        Place::AtWorker { session, worker, since, is_running }
    }

    /// Notes which task is the first without a stored record, if that has changed.
    pub(super) fn note_first(&mut self, now: Time) {
        let base = self.ledger.base();
        let first = (base < self.ledger.end()).then_some(base);
        if self.history.first.map(|(seq, _)| seq) != first {
            self.history.first = first.map(|seq| (seq, now));
        }
    }

    pub(super) fn straggler(&self) -> Option<Straggler> {
        // An event may have come since it was noted.
        let (seq, since) = self.history.first.filter(|(seq, _)| *seq == self.ledger.base())?;
        (seq < self.ledger.end()).then(|| Straggler { seq, since, place: self.place(seq) })
    }
}
