//! How much goes out: pauses, a bound of the tasks that are out, and changes of the policy.

use super::worker::Worker;
use super::{Dispatcher, Policy};

/// Number of tasks that may still go out, where that is bounded.
#[derive(Clone, Copy, Debug)]
pub(super) struct OutRoom {
    /// Number of tasks for all workers.
    left: u64,
    /// Number of idle slots of all workers that may have tasks.
    idle_slots: u64,
}

impl OutRoom {
    /// Returns whether no task may go out.
    pub(super) fn is_empty(self) -> bool {
        self.left == 0
    }

    /// Returns the number of tasks that a worker may be given: beyond its idle slots only what the idle slots of
    /// the others do not need.
    pub(super) fn of(self, worker: &Worker) -> u64 {
        let own = worker.idle_slots();
        let others = self.idle_slots.saturating_sub(own);
        own.max(self.left.saturating_sub(others)).min(self.left)
    }
}

impl Dispatcher {
    /// Dispatches no more tasks, retries neither. What is out goes on, and results are taken. A job that is drained
    /// or cancelled is paused no more.
    pub fn handle_pause(&mut self) {
        self.is_paused = true;
    }

    /// Ends a [pause](Self::handle_pause).
    pub fn handle_unpause(&mut self) {
        self.is_paused = false;
    }

    /// Returns whether no task is dispatched because of a [pause](Self::handle_pause).
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.is_paused && self.course.stopped.is_none()
    }

    /// Changes the policy of the job. Retries, timeout and the bound of tasks that are out hold for what is
    /// dispatched from now on: an attempt that is out keeps its timeout, unless the new one is a percentage, which
    /// is announced to the workers, and a failure of one that was not the last is retried once at least. Nothing is
    /// taken back from workers. When the job is to be halted stays as it was, and so do the limits that
    /// [tasks have of their own](Self::handle_task_with).
    pub fn set_policy(&mut self, policy: Policy) {
        let Policy { timeout, halt, .. } = self.config.policy;
        if timeout != policy.timeout {
            let limit_us = self.limits().timeout_us;
            for worker in self.roster.values_mut() {
                let own = self.ledger.own().timeouts_us(&worker.out);
                worker.note_limit(limit_us.filter(|_| !worker.is_limit_due), &own);
                worker.is_limit_due = false;
            }
        }
        self.config.policy = Policy { halt, ..policy };
    }

    /// Returns the number of tasks that may go out, if that is bounded.
    pub(super) fn out_room(&self) -> Option<OutRoom> {
        let most = self.config.policy.max_running?;
        let out: u64 = self.roster.values().map(|worker| worker.out.count()).sum();
        let ready = self.roster.values().filter(|worker| worker.can_start());
        let idle_slots = ready.map(Worker::idle_slots).sum();
        Some(OutRoom { left: most.saturating_sub(out), idle_slots })
    }
}
