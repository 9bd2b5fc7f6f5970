//! Who gets which task next.

use super::entry::{Entry, State};
use super::halt::Budget;
use super::waiting::Class;
use super::worker::{Phase, Worker};
use super::{Dispatcher, Transmit};
use crate::limits::{BATCH_BYTES_MAX, BATCH_TASKS_MAX, HELD_BYTES_MAX, REORDER_WINDOW_TASKS};
use crate::message::{Limits, Task, ToWorker};
use crate::{Seq, SeqRanges, SessionId, Time};

impl Dispatcher {
    /// The next batch of tasks for whoever should have one.
    pub(super) fn dispatch(&mut self, now: Time) -> Option<Transmit> {
        if !self.sink.is_open() || self.ended.is_some() {
            return None;
        }
        let is_called = |worker: &Worker| worker.phase == Phase::Called;
        if let Some(roll) = &self.roll
            && !roll.is_open_ended
            && !self.workers.values().any(is_called)
            && roll.expected.iter().all(|session| self.workers.contains_key(session))
        {
            self.roll = None;
        }
        self.budget = self.halt_budget();
        if let Some(special) = self.dispatch_special(now) {
            return Some(special);
        }
        let Some(first) = self.next_to_dispatch() else { return self.recall(now) };
        let avoid = self.avoided(first);
        let left = self.left(now);
        let least = self.tail.least_worth();
        let is_idle_only = self.budget.is_idle_only();
        let room = |worker: &Worker| {
            let room = left.as_ref().map_or_else(|| worker.window(least), |left| left.room(worker));
            if is_idle_only { room.min(worker.window.slots()) } else { room }
        };
        // What failed elsewhere is better run late than there again.
        let is_held = |worker: &Worker| {
            avoid.is_none() && left.as_ref().is_some_and(|left| left.held_until(worker).is_some())
        };
        let next = self
            .workers
            .iter()
            .filter(|(_, worker)| worker.is_hungry(room(worker)) && !is_held(worker))
            // Whoever failed it before gets it only if nobody else has room.
            .min_by(|(a, worker_a), (b, worker_b)| {
                let is_avoided = |session| avoid == Some(session);
                let order = is_avoided(**a).cmp(&is_avoided(**b));
                let order = order.then(worker_a.load().total_cmp(&worker_b.load()));
                order.then(worker_a.pace.cmp(&worker_b.pace))
            });
        let Some((session, worker)) = next else {
            self.look_when_held(left.as_ref());
            return None;
        };
        let session = *session;

        let share = if left.is_some() { u64::MAX } else { self.even_share(worker) };
        let count = worker.free(room(worker)).min(share).min(BATCH_TASKS_MAX as u64);
        let count = self.budget.tasks().map_or(count, |most| count.min(most));
        let room = worker.free_bytes();
        let (was_idle, mut bytes) = (worker.out.is_empty(), 0);
        let mut tasks = Vec::with_capacity(count as usize);
        let mut seqs = SeqRanges::new();
        let mut next = Some(first);
        // As nearly always: one fresh task comes after the other.
        let is_plain = self.waiting.any.is_empty()
            && !self.is_fresh_held()
            && self.sink.held_bytes < HELD_BYTES_MAX;
        while let Some(seq) = next
            && (tasks.len() as u64) < count
            && (tasks.is_empty() || self.avoided(seq) != Some(session))
        {
            let index = (seq.0 - self.base.0) as usize;
            let size = self.entries[index].payload.len() as u64;
            let fits = bytes + size <= room.min(BATCH_BYTES_MAX as u64);
            // A task that is larger than any bound travels alone, to a worker that holds nothing
            // else or that has room for it.
            let alone = tasks.is_empty() && (was_idle || size <= room);
            // What is too large for somebody is seen to by itself.
            if (!fits && !alone) || size > self.payload_bytes_min {
                break;
            }
            bytes += size;
            tasks.push(self.take_for(session, seq));
            seqs.push(seq);
            next = if is_plain && self.is_fresh() {
                Some(self.fresh)
            } else {
                self.next_to_dispatch()
            };
        }
        self.send_tasks(now, session, tasks, &seqs, bytes, was_idle)
    }

    /// Notes that these go to a worker, which holds nothing yet or something.
    pub(super) fn send_tasks(
        &mut self,
        now: Time,
        session: SessionId,
        tasks: Vec<Task>,
        seqs: &SeqRanges,
        bytes: u64,
        was_idle: bool,
    ) -> Option<Transmit> {
        let last = tasks.last()?.seq;
        let worker = self.workers.get_mut(&session)?;
        let lane = worker.lane;
        worker.deaf_since = None;
        worker.out_bytes += bytes;
        for range in seqs.as_slice() {
            worker.out.insert_range(*range);
        }
        worker.window.handle_dispatched(now, last);
        if was_idle {
            worker.moved = now;
        }
        self.tail.handle_dispatched(now);
        let limits = self.limits();
        let tasks = ToWorker::Tasks { job: self.config.job, limits, tasks: tasks.into() };
        Some(Transmit::Worker(lane, tasks))
    }

    /// Much may wait of which little may go out yet: nobody gets all of that.
    fn even_share(&self, worker: &Worker) -> u64 {
        let ready = self.workers.values().filter(|worker| worker.can_start()).count();
        let waiting = self.waiting.count() + self.fresh_room();
        let share = waiting.div_ceil(ready.max(1) as u64);
        share.max(worker.idle_slots()).max(self.tail.least_worth())
    }

    pub(super) fn limits(&self) -> Limits {
        Limits {
            timeout_us: self.config.timeout.and_then(|timeout| self.run_times.limit_us(timeout)),
            report: self.sink.report,
        }
    }

    /// May the lowest seq that was never dispatched be, as far as it is concerned itself?
    fn is_fresh(&self) -> bool {
        let index = (self.fresh.0 - self.base.0) as usize;
        index < REORDER_WINDOW_TASKS as usize
            && self.is_due(self.fresh)
            && self.entries.get(index).is_some_and(Entry::is_fresh)
    }

    /// Who should rather not have this task.
    fn avoided(&self, seq: Seq) -> Option<SessionId> {
        if self.marks.is_empty() {
            return None;
        }
        self.marks.get(&seq)?.failed_at.last().copied()
    }

    /// Fresh tasks that may go out.
    pub(super) fn fresh_room(&self) -> u64 {
        let end = self.end().0.min(self.base.0 + REORDER_WINDOW_TASKS);
        let end = end.min(self.total.unwrap_or(u64::MAX));
        end.saturating_sub(self.fresh.0)
    }

    /// Passes over fresh tasks that nobody has to run: those that cannot be, which are given up
    /// when their turn has come, those that the sink has from before, and those that another
    /// ventilator has dispatched.
    pub(super) fn pass_over(&mut self) {
        while let Some(entry) = self.entries.get((self.fresh.0 - self.base.0) as usize) {
            if entry.is_fresh() {
                // What is too large for somebody does not hold up the rest.
                let is_large = entry.payload.len() as u64 > self.payload_bytes_min;
                if !is_large || self.fresh_room() == 0 || !self.is_due(self.fresh) {
                    break;
                }
                self.waiting.insert(self.fresh, Class::Large(self.seen));
                self.fresh = self.fresh.next();
                continue;
            }
            if self.relay.is_none()
                && let Some(given_up) = self.given_up.get(&self.fresh).cloned()
            {
                self.send_give_up(self.fresh, &given_up);
            }
            self.fresh = self.fresh.next();
        }
    }

    /// The task to go out next: the lowest seq first, so that the order is held up least.
    pub(super) fn next_to_dispatch(&mut self) -> Option<Seq> {
        self.pass_over();
        let fresh = (self.fresh_room() > 0 && !self.is_fresh_held()).then_some(self.fresh);
        let again = self.waiting.any.first().copied().filter(|_| self.roll.is_none());
        let seq = again.or(fresh)?;
        self.may_go(seq).then_some(seq)
    }

    /// While the sink holds too much, only what it waits for may go: that is what lets it write and
    /// forget. The same while what was received may halt the job when it is stored.
    pub(super) fn may_go(&self, seq: Seq) -> bool {
        let is_held = self.sink.held_bytes >= HELD_BYTES_MAX || self.budget == Budget::Wait;
        !is_held || seq == self.base
    }

    /// Tasks that a worker may hold, whatever there is to hand out.
    pub(super) fn room(&self, worker: &Worker) -> u64 {
        if self.budget.is_idle_only() {
            worker.window.slots()
        } else {
            worker.window(self.tail.least_worth())
        }
    }

    pub(super) fn take_for(&mut self, session: SessionId, seq: Seq) -> Task {
        if seq == self.fresh {
            self.fresh = seq.next();
        } else {
            self.waiting.remove(seq);
        }
        let retries = self.config.retries;
        let entry = &mut self.entries[(seq.0 - self.base.0) as usize];
        debug_assert_eq!(entry.state, State::Queued, "only what is queued is dispatched");
        entry.state = State::Out(session);
        entry.attempt = entry.attempt.next();
        entry.since = entry.attempt;
        Task {
            seq,
            attempt: entry.attempt,
            last: entry.failures >= retries,
            payload: entry.payload.clone(),
            origin: entry.origin,
        }
    }
}
