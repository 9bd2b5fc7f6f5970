//! What becomes of results: received, stored, or to be tried again.

use std::time::Duration;

use crate::Payload;

use super::entry::State;
use super::worker::Worker;
use super::{Dispatcher, Transmit};
use crate::limits::{RETRY_BACKOFF_MAX, RETRY_BACKOFF_MIN};
use crate::message::{Failure, Received, ToWorker};
use crate::{Attempt, JobId, Seq, SeqRange, SeqRanges, SessionId, Time};

impl Dispatcher {
    pub(super) fn handle_received(&mut self, now: Time, received: &Received) {
        self.run_times.add(received.ran_us_median);
        self.reach(&received.ranges);
        self.receive_ahead(received.session, &received.ranges);
        let end = self.handed_out();
        let Some(worker) = self.workers.get_mut(&received.session) else {
            // Lost meanwhile; its result made it all the same.
            self.mark_received(received);
            return;
        };
        (worker.heard, worker.cut, worker.deaf_since) = (now, None, None);
        let before = worker.out.count();
        for range in received.ranges.as_slice() {
            // What was never dispatched is nobody's: a peer cannot make this loop long.
            let range = range.clamped(Seq(0), end);
            worker.out.remove_range(range);
        }
        let count = before - worker.out.count();
        let ran_max = Duration::from_micros(received.ran_us_max);
        worker.pace.add(count, received.ran_us_mean, &mut self.tail.spread);
        let usual = worker.pace.usual();
        worker.window.handle_received(now, &received.ranges, count, ran_max, usual);
        worker.window.handle_result_bytes(count, received.bytes);
        self.tail.handle_results(count, received.ran_us_mean, received.bytes);
        worker.done += count;
        worker.moved = now;
        self.tail.handle_received(now);
        self.note_ends(now, received.session, count, received.failed.min(count));
        self.note_unstored(received, count);
        self.mark_received(received);
    }

    pub(super) fn mark_received(&mut self, received: &Received) {
        for range in received.ranges.as_slice() {
            // Those that one worker had are taken off its account together.
            let (mut of, mut bytes) = (State::Settled, 0);
            for seq in range.clamped(self.base, self.handed_out()).seqs() {
                let entry = &mut self.entries[(seq.0 - self.base.0) as usize];
                let old = entry.state;
                match old {
                    State::Out(_) | State::Absent => {}
                    State::Queued => {
                        self.waiting.remove(seq);
                    }
                    State::Received(_) | State::GivenUp | State::Settled => continue,
                }
                entry.state = State::Received(received.session);
                let its_bytes = entry.payload.len() as u64;
                if old != of {
                    self.uncharge(of, bytes);
                    (of, bytes) = (old, 0);
                }
                bytes += its_bytes;
            }
            self.uncharge(of, bytes);
        }
    }

    pub(super) fn handle_stored(&mut self, stored: &SeqRanges) {
        self.learn_beyond(stored);
        self.reach(stored);
        for range in stored.as_slice() {
            self.settle_range(range.clamped(self.base, self.end()));
        }
        self.forget_settled();
        self.forget_marks(stored);
        self.forget_unstored(stored);
        self.note_stored(stored);
    }

    /// Settles each seq of a range; what one worker has is taken off its account, and told it,
    /// together.
    fn settle_range(&mut self, range: SeqRange) {
        let (mut of, mut bytes) = (State::Settled, 0);
        let mut run = SeqRange { start: range.start, end: range.start };
        for seq in range.seqs() {
            let entry = &mut self.entries[(seq.0 - self.base.0) as usize];
            if !matches!(entry.state, State::Out(_) | State::Received(_)) {
                self.settle(seq);
                continue;
            }
            let old = std::mem::replace(&mut entry.state, State::Settled);
            let payload = std::mem::take(&mut entry.payload);
            if old != of || seq != run.end {
                self.settle_run(of, run, bytes);
                (of, run, bytes) = (old, SeqRange { start: seq, end: seq }, 0);
            }
            run.end = seq.next();
            bytes += payload.len() as u64;
        }
        self.settle_run(of, run, bytes);
    }

    /// What remains to be done for these, all in the same state until now.
    fn settle_run(&mut self, of: State, run: SeqRange, bytes: u64) {
        let (State::Out(session) | State::Received(session)) = of else { return };
        self.uncharge(of, bytes);
        self.tell_settled(session, run);
        self.retained_bytes -= bytes;
        self.settled += run.count();
    }

    /// Drops what is settled at the front.
    pub(super) fn forget_settled(&mut self) {
        let is_verified = |seq| self.resume.as_ref().is_none_or(|resume| resume.is_verified(seq));
        while self.entries.front().is_some_and(|entry| entry.state == State::Settled)
            && is_verified(self.base)
        {
            self.entries.pop_front();
            self.base = self.base.next();
        }
        // A resumed job finds its very first tasks stored before they were ever dispatched.
        self.fresh = self.fresh.max(self.base);
    }

    pub(super) fn settle(&mut self, seq: Seq) {
        let Some(entry) = self.entry(seq) else { return };
        let old = std::mem::replace(&mut entry.state, State::Settled);
        let bytes = entry.payload.len() as u64;
        entry.payload = Payload::new();
        match old {
            State::Settled => return,
            State::Absent => {}
            State::Queued => {
                self.waiting.remove(seq);
            }
            State::GivenUp => {
                self.given_up.remove(&seq);
                self.forget_passed(seq);
            }
            State::Out(session) | State::Received(session) => {
                self.uncharge(old, bytes);
                self.tell_settled(session, SeqRange::one(seq));
            }
        }
        self.retained_bytes -= bytes;
        self.settled += 1;
    }

    pub(super) fn tell_settled(&mut self, session: SessionId, range: SeqRange) {
        let Some(worker) = self.workers.get_mut(&session) else { return };
        if worker.settled.is_empty() {
            self.to_settle.push(session);
        }
        worker.settled.push_range(range);
    }

    pub(super) fn handle_failure(&mut self, now: Time, failure: &Failure) {
        let Failure { session, seq, attempt, ran_us } = *failure;
        self.reach(&[seq].into_iter().collect());
        self.release_ahead(session, Some(&[seq].into_iter().collect()));
        let is_requeued = self.waiting.contains(seq);
        let is_news = self.entry(seq).is_some_and(|entry| match entry.state {
            State::Out(holder) => holder == session && attempt >= entry.since,
            State::Queued => is_requeued && attempt > entry.failed,
            State::Absent => attempt > entry.failed,
            State::Received(_) | State::GivenUp | State::Settled => false,
        });
        if !is_news && self.state(seq) == Some(State::Out(session)) {
            // It came again, and the worker has had the task again since then.
            return;
        }
        if let Some(worker) = self.workers.get_mut(&session)
            && worker.out.remove(seq)
        {
            (worker.heard, worker.cut, worker.deaf_since) = (now, None, None);
            worker.done += 1;
            let one = [seq].into_iter().collect();
            let (ran, usual) = (Duration::from_micros(ran_us), worker.pace.usual());
            worker.window.handle_received(now, &one, 1, ran, usual);
            worker.moved = now;
            self.tail.handle_received(now);
            self.note_ends(now, session, 1, 1);
        }
        // Whatever becomes of the task, this result is of no more use.
        self.tell_settled(session, SeqRange::one(seq));

        if !is_news {
            return;
        }
        let backoff = self.backoff(attempt);
        let Some(entry) = self.entry(seq) else { return };
        // It may be an attempt that an earlier ventilator counted.
        entry.attempt = entry.attempt.max(attempt);
        let unheld = entry.unheld();
        let old = std::mem::replace(&mut entry.state, unheld);
        if attempt > entry.failed {
            entry.failed = attempt;
            entry.failures += 1;
        }
        let bytes = entry.payload.len() as u64;
        self.uncharge(old, bytes);
        self.waiting.remove(seq);
        self.note_failed_at(seq, session);
        if self.hand_over(session, seq) || self.give_up_if_hopeless(seq) {
            return;
        }
        self.delayed.insert((now + backoff, seq));
    }

    /// Exponential, with the upper half of it left to chance.
    pub(super) fn backoff(&mut self, attempt: Attempt) -> Duration {
        let doublings = attempt.0.saturating_sub(1).min(16);
        let full = (RETRY_BACKOFF_MIN * (1 << doublings)).min(RETRY_BACKOFF_MAX);
        full.mul_f64(0.5 + 0.5 * self.rng.unit())
    }
}

pub(super) fn settled(job: JobId, base: Seq, worker: &mut Worker) -> Transmit {
    worker.told_below = base;
    let mut ranges = SeqRanges::new();
    for range in worker.settled.take().as_slice() {
        if range.end > base {
            ranges.push_range(range.clamped(base, range.end));
        }
    }
    Transmit::Worker(worker.lane, ToWorker::Settled { job, below: base, ranges })
}
