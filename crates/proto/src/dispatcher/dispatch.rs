//! Choice of the worker and the tasks for the next dispatch.

use super::flow::OutRoom;
use super::halt::Budget;
use super::ledger::{Class, Shipment, TaskState, Waiting};
use super::worker::{Phase, Worker};
use super::{Dispatcher, Transmit};
use crate::limits::{BATCH_BYTES_MAX, BATCH_TASKS_MAX, HELD_BYTES_MAX};
use crate::message::{Limits, ToWorker};
use crate::{Seq, SessionId, Time};

impl Dispatcher {
    /// Returns the next batch of tasks, for the worker that should have one.
    pub(super) fn dispatch(&mut self, now: Time) -> Option<Transmit> {
        if !self.sink.is_open() || self.course.ended.is_some() {
            return None;
        }
        let is_called = |worker: &Worker| worker.phase == Phase::Called;
        if let Some(roll) = &self.roll.call
            && !roll.is_open_ended
            && !self.roster.values().any(is_called)
            && roll.expected.iter().all(|session| self.roster.contains(*session))
        {
            self.roll.call = None;
        }
        if self.is_paused() {
            return None;
        }
        let out_room = self.out_room();
        if out_room.is_some_and(OutRoom::is_empty) {
            // What waits at one worker may yet start sooner at another.
            return self.recall(now);
        }
        self.halting.budget = self.halt_budget();
        if let Some(special) = self.dispatch_special(now) {
            return Some(special);
        }
        if let Some(needed) = self.dispatch_needed(now) {
            return Some(needed);
        }
        let Some(first) = self.next_to_dispatch() else { return self.recall(now) };
        let avoid = self.avoided(first);
        let left = self.left(now);
        let least = self.tail.least_worth();
        let is_idle_only = self.halting.budget.is_idle_only();
        let room = |worker: &Worker| {
            let room = left.as_ref().map_or_else(|| worker.window(least), |left| left.room(worker));
            if is_idle_only { room.min(worker.window.slots()) } else { room }
        };
        // A task that failed elsewhere is better run late than there again.
        let is_held = |worker: &Worker| {
            avoid.is_none()
                && left.as_ref().is_some_and(|left| left.hold_back_until(worker).is_some())
        };
        // A full sink waits for this task alone: results that it has left to the workers fill their windows.
        let is_needed = self.sink.held_bytes >= HELD_BYTES_MAX && first == self.ledger.base();
        let may_have = |worker: &Worker| {
            let is_hungry = worker.is_hungry(room(worker))
                && !is_held(worker)
                && out_room.is_none_or(|out| out.of(worker) > 0);
            // One that is kept for a suspect may have it once that has ended, though its result was left there.
            let has_ended = || worker.is_usable() && worker.running + worker.queued == 0;
            is_hungry || (is_needed && (worker.can_start() || has_ended()))
        };
        let next = self
            .roster
            .iter()
            .filter(|(_, worker)| may_have(worker))
            // A worker at which the task failed gets it only if no other has room.
            .min_by(|(a, worker_a), (b, worker_b)| {
                let is_avoided = |session| avoid == Some(session);
                let order = is_avoided(**a).cmp(&is_avoided(**b));
                let order = order.then(worker_a.load().total_cmp(&worker_b.load()));
                order.then(worker_a.pace.cmp(&worker_b.pace))
            });
        let Some((session, worker)) = next else {
            self.check_when_held_back(left.as_ref());
            return None;
        };
        let session = *session;

        let share = if left.is_some() { u64::MAX } else { self.even_share(worker) };
        let free = worker.free(room(worker)).max(u64::from(is_needed));
        let count = free.min(share).min(BATCH_TASKS_MAX as u64);
        let count = self.halting.budget.tasks().map_or(count, |most| count.min(most));
        let count =
            out_room.map_or(count, |out| count.min(out.of(worker).max(u64::from(is_needed))));
        let room = worker.free_bytes();
        let was_idle = worker.out.is_empty();
        let mut shipment = Shipment::new(now, session, count as usize);
        let timeout_us = self.ledger.own().timeout_us(first);
        let mut next = Some(first);
        // As nearly always: one fresh task comes after the other.
        let is_plain = self.ledger.waiting().any.is_empty()
            && !self.is_fresh_held()
            && self.sink.held_bytes < HELD_BYTES_MAX
            && timeout_us.is_none();
        while let Some(seq) = next
            && (shipment.len() as u64) < count
            && (shipment.len() == 0 || self.avoided(seq) != Some(session))
            && self.ledger.own().timeout_us(seq) == timeout_us
        {
            let size = self.ledger.payload_bytes(seq);
            let fits = shipment.bytes() + size <= room.min(BATCH_BYTES_MAX as u64);
            // A task that is larger than any bound travels alone, to a worker that holds no other
            // task or that has room for it.
            let alone = shipment.len() == 0 && (was_idle || is_needed || size <= room);
            // A task that is too large for some worker is dispatched by itself.
            if (!fits && !alone) || size > self.roster.payload_bytes_min {
                break;
            }
            let retries = self.config.policy.retries;
            self.ledger.dispatch(seq, retries, &mut shipment);
            if is_plain {
                let bytes_max = room.min(BATCH_BYTES_MAX as u64);
                let task_bytes_max = self.roster.payload_bytes_min;
                self.ledger.dispatch_fresh(
                    count,
                    bytes_max,
                    task_bytes_max,
                    retries,
                    &mut shipment,
                );
            }
            next = self.next_to_dispatch();
        }
        self.send_tasks(now, session, shipment, was_idle)
    }

    /// Dispatches a task that a full sink waits for, and that is to go to a certain worker, to one where nothing
    /// runs: none is without results while the sink leaves them there.
    fn dispatch_needed(&mut self, now: Time) -> Option<Transmit> {
        let base = self.ledger.base();
        let Waiting { beside, alone, elsewhere, large, .. } = self.ledger.waiting();
        let is_suspect = beside.contains(&base) || alone.contains(&base);
        let is_choosy = elsewhere.contains_key(&base) || large.contains_key(&base);
        if !(is_suspect || is_choosy)
            || self.sink.held_bytes < HELD_BYTES_MAX
            || self.roll.call.is_some()
        {
            return None;
        }
        let bytes = self.ledger.payload_bytes(base);
        let idle = self.roster.iter().filter(|(_, worker)| {
            worker.is_usable() && worker.running + worker.queued == 0 && worker.fits(bytes)
        });
        let order = |session: SessionId, worker: &Worker| {
            (self.has_failed_at(base, session), worker.out.count())
        };
        let session = *idle.min_by_key(|(session, worker)| order(**session, worker))?.0;
        if is_suspect {
            self.roster.get_mut(session)?.suspect = Some(base);
        }
        self.dispatch_seqs(now, session, &[base])
    }

    /// Sends the dispatched tasks, all of which have the same timeout, to a worker, which was idle before or not.
    pub(super) fn send_tasks(
        &mut self,
        now: Time,
        session: SessionId,
        shipment: Shipment,
        was_idle: bool,
    ) -> Option<Transmit> {
        let tasks = self.ledger.send(&mut self.roster, self.sink.key, shipment);
        let (first, last) = (tasks.first()?.seq, tasks.last()?.seq);
        let worker = self.roster.get_mut(session)?;
        let lane = worker.lane;
        worker.deaf_since = None;
        worker.window.handle_dispatched(now, last);
        if was_idle {
            worker.last_progress = now;
        }
        self.tail.handle_dispatched(now);
        let limits = self.limits_of(first);
        let tasks = ToWorker::Tasks { job: self.config.job, limits, tasks: tasks.into() };
        Some(Transmit::Worker(lane, tasks))
    }

    /// Returns an even share of the tasks that may go out: where many wait and few may go, no
    /// worker gets all of those.
    fn even_share(&self, worker: &Worker) -> u64 {
        let ready = self.roster.values().filter(|worker| worker.can_start()).count();
        let waiting = self.ledger.waiting().count() + self.ledger.fresh_room();
        let share = waiting.div_ceil(ready.max(1) as u64);
        share.max(worker.idle_slots()).max(self.tail.least_worth())
    }

    /// Returns the limits of a task's next attempt.
    fn limits_of(&self, seq: Seq) -> Limits {
        match self.ledger.own().timeout_us(seq) {
            None => self.limits(),
            timeout_us => Limits { timeout_us, report: self.sink.report },
        }
    }

    /// Returns the limits of attempts of tasks that have no timeout of their own.
    pub(super) fn limits(&self) -> Limits {
        Limits {
            timeout_us: self
                .config
                .policy
                .timeout
                .and_then(|timeout| self.run_times.limit_us(timeout)),
            report: self.sink.report,
        }
    }

    /// Returns the worker that should rather not have this task.
    fn avoided(&self, seq: Seq) -> Option<SessionId> {
        if self.suspicions.marks.is_empty() {
            return None;
        }
        self.suspicions.marks.get(&seq)?.failed_at.last().copied()
    }

    /// Skips fresh tasks that need not run: those that no worker can run, which are given up when
    /// their turn has come, those that the sink has from before, and those that another ventilator
    /// has dispatched.
    pub(super) fn pass_over(&mut self) {
        while let Some(entry) = self.ledger.seek_fresh() {
            let (state, bytes) = (entry.state(), entry.bytes());
            let fresh = self.ledger.fresh();
            if state == TaskState::Fresh {
                // A task that is too large for some worker does not hold up the others.
                let is_large = bytes > self.roster.payload_bytes_min;
                if !is_large || self.ledger.fresh_room() == 0 || !self.is_due(fresh) {
                    break;
                }
                self.ledger.requeue(fresh, Class::Large(self.seen));
            } else if state == TaskState::GivenUp
                && !self.source.has_no_order()
                && let Some(given_up) = self.ledger.records().given_up(fresh).cloned()
                && !given_up.is_at_once
            {
                self.send_give_up(fresh, given_up);
            }
            self.ledger.pass_over();
        }
    }

    /// Returns the task to dispatch next: the lowest seq first, so that the order is held up least.
    pub(super) fn next_to_dispatch(&mut self) -> Option<Seq> {
        self.pass_over();
        let fresh =
            (self.ledger.fresh_room() > 0 && !self.is_fresh_held()).then_some(self.ledger.fresh());
        let again = self.ledger.waiting().any.first().copied().filter(|_| self.roll.call.is_none());
        let seq = again.or(fresh)?;
        self.may_go(seq).then_some(seq)
    }

    /// Returns whether a task may go out. While the sink holds too many bytes, only tasks that it
    /// waits for may go: with their records it can write and free memory. The same holds while a
    /// received result may halt the job when it is stored.
    pub(super) fn may_go(&self, seq: Seq) -> bool {
        let is_held = self.sink.held_bytes >= HELD_BYTES_MAX || self.halting.budget == Budget::Wait;
        !is_held || seq == self.ledger.base()
    }

    /// Returns the number of tasks that a worker may hold, whatever the number of tasks to
    /// dispatch.
    pub(super) fn room(&self, worker: &Worker) -> u64 {
        if self.halting.budget.is_idle_only() {
            worker.window.slots()
        } else {
            worker.window(self.tail.least_worth())
        }
    }
}
