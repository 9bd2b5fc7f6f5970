//! Handling of receipts: results that are received, stored, or to be retried.

use std::time::Duration;

use super::ledger::{Entry, LedgerBug, TaskState};
use super::worker::Worker;
use super::{Dispatcher, Transmit};
use crate::limits::{RETRY_BACKOFF_MAX, RETRY_BACKOFF_MIN};
use crate::message::{Failure, Received, ToWorker};
use crate::{Attempt, JobId, Seq, SeqRange, SeqRanges, SessionId, Time};

/// Number of attempts that earlier ventilators may have dispatched, and this one does not know of. A
/// failed attempt with a number beyond is counted with the last of these, so that a worker cannot use up
/// the numbers of attempts.
const ATTEMPTS_UNKNOWN_MAX: u32 = 1 << 16;

impl Dispatcher {
    pub(super) fn handle_received(&mut self, now: Time, received: &Received) {
        self.reach(&received.ranges);
        self.receive_ahead(received.session, &received.ranges);
        let end = self.dispatched_end();
        let mut count = 0;
        if let Some(worker) = self.roster.get_mut(received.session) {
            (worker.heard, worker.cut) = (now, None);
            let before = worker.out.count();
            for range in received.ranges.as_slice() {
                worker.out.remove_range(range.clamped(Seq(0), end));
            }
            count = before - worker.out.count();
            // A result says something of its worker only where that had the task: not a second time,
            // and not of another worker's task.
            if count > 0 || self.ledger.has_planted(LedgerBug::CountRepeated) {
                self.note_results(now, received, count);
            }
        }
        // The worker may have been lost meanwhile; its result arrived all the same.
        let new = self.mark_received(received);
        if count == 0 {
            self.note_unexpected(received.session, new > 0);
        }
    }

    /// Notes a result of a task that its worker was not known to have, and whether it is the task's first.
    /// What the worker owes may be on its way behind results that it sent to an earlier ventilator.
    fn note_unexpected(&mut self, session: SessionId, is_new: bool) {
        let Some(worker) = self.roster.get_mut(session) else { return };
        if is_new {
            worker.overdue.handle_progress();
        }
        if is_new || worker.call.is_some() && worker.overdue.handle_arriving() {
            worker.deaf_since = None;
        }
    }

    /// Notes what `count` results of tasks that were out at a worker say of it, and of tasks.
    fn note_results(&mut self, now: Time, received: &Received, count: u64) {
        self.run_times.add(received.ran_us_median);
        let Some(worker) = self.roster.get_mut(received.session) else { return };
        worker.deaf_since = None;
        worker.overdue.handle_progress();
        let ran_max = Duration::from_micros(received.ran_us_max);
        worker.pace.add(count, received.ran_us_mean, &mut self.tail.spread);
        let usual = worker.pace.usual();
        worker.window.handle_received(now, &received.ranges, count, ran_max, usual);
        worker.window.handle_result_bytes(count, received.bytes);
        self.tail.handle_results(count, received.ran_us_mean, received.bytes);
        worker.done += count;
        worker.last_progress = now;
        self.tail.handle_received(now);
        self.note_ends(now, received.session, count, received.failed.min(count));
        self.note_unstored(received, count);
    }

    /// Returns the number of tasks of which no result had been received.
    fn mark_received(&mut self, received: &Received) -> u64 {
        let (base, end) = (self.ledger.base(), self.dispatched_end());
        let Self { ledger, roster, .. } = self;
        let ranges = received.ranges.as_slice().iter().map(|range| range.clamped(base, end));
        ranges.map(|range| ledger.receive(roster, range, received.session)).sum()
    }

    pub(super) fn handle_stored(&mut self, stored: &SeqRanges) {
        self.learn_beyond(stored);
        let may_be_stored_before = self.source.may_be_stored_before();
        for range in stored.as_slice() {
            if may_be_stored_before {
                self.ledger.settle_beyond(&mut self.roster, *range);
            } else {
                let range = range.clamped(self.ledger.base(), self.ledger.end());
                self.ledger.settle(&mut self.roster, range);
            }
        }
        self.ledger.advance();
        self.forget_marks(stored);
        self.forget_unstored(stored);
        self.note_stored(stored);
    }

    pub(super) fn handle_failure(&mut self, now: Time, failure: &Failure) {
        let Failure { session, seq, attempt, ran_us } = *failure;
        let one = SeqRanges::of(SeqRange::one(seq));
        self.reach(&one);
        self.release_ahead(session, &one);
        let dispatched = self.ledger.get(seq).map_or(Attempt(0), Entry::attempt);
        let attempt = attempt.min(Attempt(dispatched.0.saturating_add(ATTEMPTS_UNKNOWN_MAX)));
        let is_news = self.ledger.get(seq).is_some_and(|entry| match entry.state() {
            TaskState::Out(holder) => holder == session && attempt >= entry.since(),
            TaskState::Requeued | TaskState::Absent => attempt > entry.failed(),
            _ => false,
        });
        if !is_news && self.ledger.is_out_at(seq, session) {
            // The report came again, and the worker has had the task again since then.
            return;
        }
        if let Some(worker) = self.roster.get_mut(session)
            && worker.out.remove(seq)
        {
            (worker.heard, worker.cut, worker.deaf_since) = (now, None, None);
            worker.overdue.handle_progress();
            worker.overdue.handle_left(&worker.out);
            worker.done += 1;
            let (ran, usual) = (Duration::from_micros(ran_us), worker.pace.usual());
            worker.window.handle_received(now, &one, 1, ran, usual);
            worker.last_progress = now;
            self.tail.handle_received(now);
            self.note_ends(now, session, 1, 1);
        } else {
            self.note_unexpected(session, is_news);
        }
        // This result is not needed any more, whatever the fate of the task.
        self.roster.announce_settled(session, SeqRange::one(seq));

        if !is_news {
            return;
        }
        let backoff = self.backoff(attempt);
        self.ledger.note_failure(seq, attempt);
        self.ledger.release(&mut self.roster, seq);
        self.note_failed_at(seq, session);
        if self.reassign(session, seq) || self.give_up_if_hopeless(seq) {
            return;
        }
        self.history.retries += 1;
        self.ledger.back_off(seq, now + backoff);
    }

    /// Returns the wait before a retry: exponential, with the upper half of it left to chance.
    pub(super) fn backoff(&mut self, attempt: Attempt) -> Duration {
        let doublings = attempt.0.saturating_sub(1).min(16);
        let full = (RETRY_BACKOFF_MIN * (1 << doublings)).min(RETRY_BACKOFF_MAX);
        full.mul_f64(0.5 + 0.5 * self.rng.unit())
    }
}

pub(super) fn settled(job: JobId, base: Seq, worker: &mut Worker) -> Transmit {
    worker.announced_below = base;
    let settled = worker.settled.take();
    let above = settled.as_slice().iter().filter(|range| range.end > base);
    let ranges = above.map(|range| range.clamped(base, range.end)).collect();
    Transmit::Worker(worker.lane, ToWorker::Settled { job, below: base, ranges })
}
