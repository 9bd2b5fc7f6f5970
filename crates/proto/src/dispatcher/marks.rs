//! What is held against tasks: where they failed, and which workers were lost while they may have
//! run there.
//!
//! A task that may have run at a worker that was lost is a **suspect**: it may be what brings
//! workers down. It is blamed for the loss, and so is every other task that may have run there. The
//! loss of a worker is taken back if its session turns out to live: then nothing was brought down,
//! only a connection ended. A task is given up only when it was blamed for as many losses as a task
//! is allowed, for the last of them alone, and all of these workers have stayed away for long enough
//! to be dead.

use std::collections::BTreeMap;

use super::Dispatcher;
use super::ledger::{Class, Ledger, TaskState};
use super::worker::{Phase, Worker};
use crate::limits::{ELSEWHERE_WAIT_MAX, RETURN_GRACE};
use crate::message::News;
use crate::{Seq, SeqRanges, SessionId, Time};

/// What is held against a task.
#[derive(Debug, Default)]
pub(super) struct Mark {
    /// Sessions at which it failed or could not be started, oldest first.
    pub(super) failed_at: Vec<SessionId>,
    /// Losses that it is blamed for, oldest first.
    pub(super) losses: Vec<Loss>,
}

/// A worker that was lost while a task may have run there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Loss {
    session: SessionId,
    /// Nothing else was there.
    is_alone: bool,
    /// It has not been heard of for so long that it is dead.
    is_proven: bool,
}

/// A worker that was lost, and may be back.
#[derive(Debug)]
pub(super) struct Gone {
    /// When it was heard last.
    heard: Time,
    /// When its connection to the sink ended too, if that is known.
    cut: Option<Time>,
    /// Tasks that are blamed.
    blamed: Vec<Seq>,
}

/// What is held against tasks, and which workers were lost.
#[derive(Debug, Default)]
pub(super) struct Suspicions {
    /// By tasks that have no record.
    pub(super) marks: BTreeMap<Seq, Mark>,
    /// Lost workers that tasks are blamed for and that may be back.
    pub(super) gone: BTreeMap<SessionId, Gone>,
}

impl Suspicions {
    /// Panics if something is held against a task that has its record.
    pub(super) fn check_invariants(&self, ledger: &Ledger) {
        for seq in self.marks.keys() {
            let state = ledger.state(*seq);
            let is_open = state.is_some_and(|state| state != TaskState::Settled);
            assert!(is_open, "{seq} has its record, and something against it");
        }
    }
}

/// What losses mean for a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It may be run again.
    Free,
    /// It has all the losses that it may have, if they are losses.
    Pending,
    /// It is what brought so many workers down.
    Guilty(usize),
}

/// Another worker for a task that failed somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Elsewhere {
    /// There is none.
    Nowhere,
    /// One has come, and has not said yet what it holds.
    Joining,
    /// There is one.
    Ready,
}

/// Sessions that are remembered as those at which a task failed.
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
    /// A task failed there, or could not be started: it is better tried at another worker.
    pub(super) fn note_failed_at(&mut self, seq: Seq, session: SessionId) {
        self.suspicions.marks.entry(seq).or_default().note_failed_at(session);
    }

    /// Blames tasks for the loss of the worker that they may have run at.
    pub(super) fn blame(&mut self, session: SessionId, worker: &Worker, blamed: Vec<Seq>) {
        let is_alone = worker.out.count() == 1;
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

    /// Something was heard of a worker that has no lane.
    pub(super) fn note_gone(&mut self, now: Time, session: SessionId, news: &News) {
        let Some(gone) = self.suspicions.gone.get_mut(&session) else { return };
        if *news == News::Gone {
            // All that it had said comes before this.
            gone.cut = Some(now);
        } else {
            (gone.heard, gone.cut) = (now, None);
        }
    }

    /// A worker that was lost lives: nothing that it had has brought it down.
    pub(super) fn take_back_losses(&mut self, session: SessionId) {
        let Some(gone) = self.suspicions.gone.remove(&session) else { return };
        for seq in gone.blamed {
            let Some(mark) = self.suspicions.marks.get_mut(&seq) else { continue };
            mark.losses.retain(|loss| loss.session != session);
            // It may not have arrived there, and may not the next time.
            mark.note_failed_at(session);
            if self.ledger.waiting().contains(seq) {
                self.requeue(seq);
            }
        }
    }

    /// While nobody can be heard, nobody is silent.
    pub(super) fn hold_judgement(&mut self, now: Time) {
        for gone in self.suspicions.gone.values_mut() {
            gone.heard = now;
            gone.cut = gone.cut.map(|_| now);
        }
    }

    /// Whoever has stayed away for long enough is dead: decides what waits for that.
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

    /// Nothing is held against what has its record.
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

    /// Is a suspect out at this worker, as far as is known?
    pub(super) fn has_suspect(&self, session: SessionId, worker: &Worker) -> bool {
        worker.suspect.is_some_and(|seq| self.ledger.is_out_at(seq, session))
    }

    /// Did the task fail at this worker?
    pub(super) fn has_failed_at(&self, seq: Seq, session: SessionId) -> bool {
        self.suspicions.marks.get(&seq).is_some_and(|mark| mark.failed_at.contains(&session))
    }

    /// What has to be seen to before a task is dispatched again.
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

    /// Is there a worker that may have it and at which it has not failed, while it has failed at
    /// others?
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

    /// Until when to wait for such a worker, if at all, or for as long as there is one: the worker
    /// at which it failed last gets it back after a moment, unless it has done hardly anything well.
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
