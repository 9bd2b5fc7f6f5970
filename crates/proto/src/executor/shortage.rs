//! Shortages of the host: slots that are not used for a while, and tasks that are handed back
//! unstarted.

use std::time::Duration;

use super::{Executor, Queued};
use crate::limits::{SHORTAGE_PAUSE_MAX, SHORTAGE_PAUSE_MIN};
use crate::message::{News, Task};
use crate::{Slot, Time};

/// Number of slots that may be in use.
#[derive(Debug)]
pub(super) struct Shortage {
    /// Number that the worker was [set to](Executor::set_slots).
    allowed: u32,
    /// Number of tasks that could be started beside one another, if that is less.
    startable: Option<u32>,
    /// Time at which one slot more is tried.
    raise_at: Option<Time>,
    /// Pause before that.
    pause: Duration,
    /// No start has failed since the last raise.
    was_raised: bool,
}

/// Fate of a task that could not be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutBack {
    /// The task waits here and is tried again when another one has ended.
    Waits,
    /// The task was handed back, with all that waited here.
    Returned,
    /// The task is not needed any more.
    Dropped,
}

impl Shortage {
    pub(super) fn new(slots: u32) -> Self {
        Self {
            allowed: slots,
            startable: None,
            raise_at: None,
            pause: SHORTAGE_PAUSE_MIN,
            was_raised: false,
        }
    }

    pub(super) fn raise_at(&self) -> Option<Time> {
        self.raise_at
    }

    fn lower(&mut self, now: Time, startable: u32) {
        // Several that fail one after the other are one failure: only another try counts.
        if self.startable.is_some() && self.was_raised {
            self.pause = (2 * self.pause).min(SHORTAGE_PAUSE_MAX);
        }
        self.startable = Some(startable);
        self.raise_at = Some(now + self.pause);
        self.was_raised = false;
    }

    fn raise(&mut self, now: Time) {
        if std::mem::replace(&mut self.was_raised, true) {
            self.pause = (self.pause / 2).max(SHORTAGE_PAUSE_MIN);
        }
        self.startable =
            self.startable.map(|slots| slots + 1).filter(|slots| *slots < self.allowed);
        self.raise_at = self.startable.map(|_| now + self.pause);
        if self.startable.is_none() {
            self.pause = SHORTAGE_PAUSE_MIN;
        }
    }
}

impl Executor {
    /// Takes back a task that was [started](Self::poll_start) in this slot and could not be,
    /// because this host lacks something: open files, processes, memory, the command. No attempt is
    /// counted.
    ///
    /// While other tasks run here, the task waits for one of them to end, and one slot less is used
    /// for a while. If no task runs, this one is handed back with all that wait, and no task is
    /// taken for a while.
    pub fn handle_unstartable(&mut self, now: Time, slot: Slot, mut task: Task) -> PutBack {
        let Some(running) = self.slots.get_mut(slot.0 as usize).and_then(Option::take) else {
            debug_assert!(false, "{slot:?} was not running");
            return PutBack::Dropped;
        };
        debug_assert_eq!(running.seq, task.seq, "it is what was started there");
        self.vacate(slot);
        if running.is_unwanted() || !self.is_job(running.job) {
            return PutBack::Dropped;
        }
        (task.attempt, task.last, task.tag) = (running.answers, running.last, running.tag);
        self.queue.insert(Queued { task, limits: running.limits });
        let is_idle = self.running() == 0;
        self.shortage.lower(now, self.running());
        self.send_heartbeat();
        if !is_idle && !self.draining {
            return PutBack::Waits;
        }
        self.return_unstarted();
        PutBack::Returned
    }

    /// Sets the number of slots to use from now on, at most all. No running task is stopped.
    pub fn set_slots(&mut self, slots: u32) {
        let before = self.slots_now();
        self.shortage.allowed = slots.min(self.slots.len() as u32);
        if self.slots_now() != before {
            self.send_heartbeat();
        }
    }

    /// Leaves like a worker that is [asked to](Self::handle_drain), for a reason of its own.
    pub fn handle_leave(&mut self, now: Time, grace: Duration, reason: String) {
        self.leave_reason = reason;
        self.handle_drain(now, grace);
    }

    /// Returns the number of slots that may be in use now.
    #[must_use]
    pub fn slots_now(&self) -> u32 {
        let Shortage { allowed, startable, .. } = self.shortage;
        startable.map_or(allowed, |slots| slots.min(allowed))
    }

    pub(super) fn raise_slots(&mut self, now: Time) {
        if self.shortage.raise_at.is_some_and(|at| at <= now) {
            self.shortage.raise(now);
            self.send_heartbeat();
        }
    }

    pub(super) fn send_heartbeat(&mut self) {
        let (running, queued, slots) = (self.running(), self.queued(), self.slots_now());
        self.send_news(News::Heartbeat { running, queued, slots });
    }
}
