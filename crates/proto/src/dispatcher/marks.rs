//! Marks against tasks: the workers at which they failed, and the workers that were lost while they
//! may have run there.
//!
//! A task that may have run at a lost worker is a **suspect**: it may be what kills workers. It is
//! blamed for the loss, and so is every other task that may have run there. The loss is taken back
//! if the worker's session turns out to live: then only a connection ended. A task is given up only
//! when it was blamed for as many losses as `--max-losses` allows, for the last of them alone, and
//! all of these workers have stayed away for long enough to be dead.

use std::collections::BTreeMap;

use super::Dispatcher;
use super::ledger::{Class, Ledger, TaskState};
use super::worker::{Phase, Worker};
use crate::limits::{ELSEWHERE_WAIT_MAX, RETURN_GRACE};
use crate::message::News;
use crate::{Seq, SeqRanges, SessionId, Time};

/// Failures and losses of a task.
#[derive(Debug, Default)]
pub(super) struct Mark {
    /// Sessions at which the task failed or could not be started, oldest first.
    pub(super) failed_at: Vec<SessionId>,
    /// Losses for which the task is blamed, oldest first.
    pub(super) losses: Vec<Loss>,
}

/// Loss of a worker while a task may have run there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Loss {
    session: SessionId,
    /// No other task was there.
    is_alone: bool,
    /// The worker has not been heard for so long that it is dead.
    is_proven: bool,
}

/// Lost worker that may come back.
#[derive(Debug)]
pub(super) struct Gone {
    /// Time at which the worker was heard last.
    heard: Time,
    /// Time at which its connection to the sink ended too, if that is known.
    cut: Option<Time>,
    /// Tasks that are blamed for the loss.
    blamed: Vec<Seq>,
}

/// Marks against tasks, and the lost workers.
#[derive(Debug, Default)]
pub(super) struct Suspicions {
    /// Marks by task, for tasks that have no record.
    pub(super) marks: BTreeMap<Seq, Mark>,
    /// Lost workers for which tasks are blamed and that may come back.
    pub(super) gone: BTreeMap<SessionId, Gone>,
}

impl Suspicions {
    /// Drops the marks of the tasks from a seq on.
    pub(super) fn cut_off(&mut self, end: Seq) {
        self.marks.split_off(&end);
    }

    /// Panics if there is a mark against a task that has its record.
    pub(super) fn check_invariants(&self, ledger: &Ledger) {
        for seq in self.marks.keys() {
            let state = ledger.state(*seq);
            let is_open = state.is_some_and(|state| state != TaskState::Settled);
            assert!(is_open, "{seq} has its record, and something against it");
        }
    }
}

/// Consequence of a task's losses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The task may be run again.
    Free,
    /// The task has all the losses that it may have, if they are proven.
    Pending,
    /// The task has brought down this number of workers.
    Guilty(usize),
}

/// Another worker for a task that failed somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Elsewhere {
    /// There is none.
    Nowhere,
    /// One has connected, and has not answered the roll call.
    Joining,
    /// There is one.
    Ready,
}

/// Number of sessions that are remembered as those at which a task failed.
const FAILED_AT_MAX: usize = 16;

impl Mark {
    fn note_failed_at(&mut self, session: SessionId) {
        self.failed_at.retain(|other| *other != session);
        if self.failed_at.len() == FAILED_AT_MAX {
            self.failed_at.remove(0);
        }
        self.failed_at.push(session);
    }

    pub(super) fn verdict(&self, losses_max: usize) -> Verdict {
        let is_enough = self.losses.len() >= losses_max;
        match self.losses.last() {
            Some(last) if is_enough && last.is_alone => {
                if self.losses.iter().all(|loss| loss.is_proven) {
                    Verdict::Guilty(self.losses.len())
                } else {
                    Verdict::Pending
                }
            }
            _ => Verdict::Free,
        }
    }
}

impl Gone {
    fn is_dead(&self, now: Time, timeout: std::time::Duration) -> bool {
        let is_cut = self.cut.is_some_and(|at| now.since(at) > RETURN_GRACE);
        is_cut || now.since(self.heard) > timeout
    }
}

impl Dispatcher {
    /// Notes that a task failed at a worker, or could not be started: it is better tried at another
    /// one.
    pub(super) fn note_failed_at(&mut self, seq: Seq, session: SessionId) {
        self.suspicions.marks.entry(seq).or_default().note_failed_at(session);
    }

    /// Blames tasks for the loss of the worker at which they may have run.
    pub(super) fn blame(&mut self, session: SessionId, worker: &Worker, blamed: Vec<Seq>) {
        let is_alone = worker.out.count() == 1 && !worker.has_unproven;
        for seq in &blamed {
            let loss = Loss { session, is_alone, is_proven: false };
            self.suspicions.marks.entry(*seq).or_default().losses.push(loss);
        }
        if !blamed.is_empty() {
            self.suspicions
                .gone
                .insert(session, Gone { heard: worker.heard, cut: worker.cut, blamed });
        }
    }

    /// Handles news of a worker that has no lane.
    pub(super) fn note_gone(&mut self, now: Time, session: SessionId, news: &News) {
        let Some(gone) = self.suspicions.gone.get_mut(&session) else { return };
        if *news == News::Gone {
            // All of its messages come before this one.
            gone.cut = Some(now);
        } else {
            (gone.heard, gone.cut) = (now, None);
        }
    }

    /// Takes back the losses of a worker that lives: no task has brought it down.
    pub(super) fn take_back_losses(&mut self, session: SessionId) {
        let Some(gone) = self.suspicions.gone.remove(&session) else { return };
        for seq in gone.blamed {
            let Some(mark) = self.suspicions.marks.get_mut(&seq) else { continue };
            mark.losses.retain(|loss| loss.session != session);
            // The task may not have arrived there, and may not the next time.
            mark.note_failed_at(session);
            if self.ledger.waiting().contains(seq) {
                self.requeue(seq);
            }
        }
    }

    /// Restarts the silence of lost workers while no worker can be heard.
    pub(super) fn hold_judgement(&mut self, now: Time) {
        for gone in self.suspicions.gone.values_mut() {
            gone.heard = now;
            gone.cut = gone.cut.map(|_| now);
        }
    }

    /// Declares dead the lost workers that have stayed away for long enough, and decides the tasks
    /// that wait for that.
    pub(super) fn judge(&mut self, now: Time) {
        let timeout = self.config.policy.worker_timeout;
        let dead = self.suspicions.gone.iter().filter(|(_, gone)| gone.is_dead(now, timeout));
        let dead: Vec<SessionId> = dead.map(|(session, _)| *session).collect();
        for session in dead {
            let Some(gone) = self.suspicions.gone.remove(&session) else { continue };
            for seq in gone.blamed {
                let Some(mark) = self.suspicions.marks.get_mut(&seq) else { continue };
                let losses = mark.losses.iter_mut().filter(|loss| loss.session == session);
                losses.for_each(|loss| loss.is_proven = true);
                if self.ledger.waiting().judged.contains(&seq) {
                    self.give_up_if_hopeless(seq);
                }
            }
        }
    }

    /// Forgets the marks of tasks that have their records.
    pub(super) fn forget_marks(&mut self, stored: &SeqRanges) {
        if self.suspicions.marks.is_empty() {
            return;
        }
        for range in stored.as_slice() {
            let settled: Vec<Seq> =
                self.suspicions.marks.range(range.start..range.end).map(|(seq, _)| *seq).collect();
            for seq in settled {
                self.suspicions.marks.remove(&seq);
            }
        }
        self.suspicions.marks = self.suspicions.marks.split_off(&self.ledger.base());
    }

    pub(super) fn is_suspect(&self, seq: Seq) -> bool {
        self.suspicions.marks.get(&seq).is_some_and(|mark| !mark.losses.is_empty())
    }

    /// Returns whether a suspect is out at this worker, as far as is known.
    pub(super) fn has_suspect(&self, session: SessionId, worker: &Worker) -> bool {
        worker.suspect.is_some_and(|seq| self.ledger.is_out_at(seq, session))
    }

    /// Returns whether the task failed at this worker.
    pub(super) fn has_failed_at(&self, seq: Seq, session: SessionId) -> bool {
        self.suspicions.marks.get(&seq).is_some_and(|mark| mark.failed_at.contains(&session))
    }

    /// Returns the class of a task that is to be dispatched again.
    pub(super) fn class(&mut self, seq: Seq) -> Class {
        let now = self.seen;
        let losses_max = self.config.policy.losses_max as usize;
        if let Some(mark) = self.suspicions.marks.get_mut(&seq) {
            let losses = mark.losses.len();
            if losses > 0 {
                return match mark.verdict(losses_max) {
                    Verdict::Free if losses + 1 >= losses_max => Class::Alone,
                    Verdict::Free => Class::Beside,
                    Verdict::Pending | Verdict::Guilty(_) => Class::Judged,
                };
            }
            mark.failed_at.retain(|session| self.roster.contains(*session));
        }
        if self.ledger.payload_bytes(seq) > self.roster.payload_bytes_min {
            return Class::Large(now);
        }
        if let Some(until) = self.elsewhere_until(seq, now) {
            return Class::Elsewhere(until);
        }
        Class::Any
    }

    /// Returns whether there is a worker that may have the task and at which it has not failed,
    /// while it has failed at others.
    pub(super) fn elsewhere(&self, seq: Seq) -> Elsewhere {
        let Some(mark) = self.suspicions.marks.get(&seq).filter(|mark| !mark.failed_at.is_empty())
        else {
            return Elsewhere::Nowhere;
        };
        let bytes = self.ledger.payload_bytes(seq);
        let mut best = Elsewhere::Nowhere;
        for (session, worker) in &self.roster {
            if !worker.fits(bytes) || mark.failed_at.contains(session) {
                continue;
            }
            if worker.is_usable() {
                return Elsewhere::Ready;
            }
            if worker.phase == Phase::Called {
                best = Elsewhere::Joining;
            }
        }
        best
    }

    /// Returns the time until which to wait for such a worker, if at all; `Some(None)` for as long
    /// as there is one. The worker at which the task failed last gets it again after a moment,
    /// unless hardly any task has succeeded there.
    fn elsewhere_until(&self, seq: Seq, now: Time) -> Option<Option<Time>> {
        let moment = Some(now + ELSEWHERE_WAIT_MAX);
        match self.elsewhere(seq) {
            Elsewhere::Nowhere => None,
            Elsewhere::Joining => Some(moment),
            Elsewhere::Ready => {
                let last = self.suspicions.marks.get(&seq)?.failed_at.last()?;
                let is_proven = self.roster.get(*last)?.health.is_proven();
                Some(moment.filter(|_| is_proven))
            }
        }
    }
}
