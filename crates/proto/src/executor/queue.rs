//! Tasks that wait for a slot.

use std::collections::VecDeque;

use super::Queued;
use crate::limits::{CREDIT_BYTES_MAX, CREDIT_TASKS_MAX};
use crate::message::{Limits, Task};
use crate::{Seq, SeqRange, SeqRanges};

/// Tasks that wait, ascending by seq.
#[derive(Debug, Default)]
pub(super) struct Queue {
    tasks: VecDeque<Queued>,
    /// Payload bytes of the tasks.
    bytes: u64,
}

/// Number of tasks that a worker takes. Twice what an honest ventilator gives to it, which may know
/// later than the worker which tasks it holds.
const TASKS_MAX: u64 = 2 * CREDIT_TASKS_MAX;

/// Payload bytes of the tasks that a worker takes, unless they are a single task.
const BYTES_MAX: u64 = 2 * CREDIT_BYTES_MAX;

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.tasks.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Returns whether another task is more than an honest ventilator gives to a worker that has
    /// `begun` tasks beside those that wait.
    pub(super) fn is_full(&self, begun: usize, task: &Task) -> bool {
        let bytes = self.bytes + task.payload.len() as u64;
        (self.len() + begun) as u64 >= TASKS_MAX || (bytes > BYTES_MAX && !self.is_empty())
    }

    pub(super) fn front(&self) -> Option<&Queued> {
        self.tasks.front()
    }

    pub(super) fn iter(&self) -> std::collections::vec_deque::Iter<'_, Queued> {
        self.tasks.iter()
    }

    pub(super) fn set_limits(&mut self, limits: Limits) {
        self.tasks.iter_mut().for_each(|queued| queued.limits = limits);
    }

    pub(super) fn pop_front(&mut self) -> Option<Queued> {
        let first = self.tasks.pop_front()?;
        self.bytes -= first.bytes();
        Some(first)
    }

    /// Takes a task out, if it waits.
    pub(super) fn remove(&mut self, seq: Seq) -> Option<Queued> {
        let place = self.place(seq);
        self.tasks.get(place).filter(|queued| queued.task.seq == seq)?;
        let queued = self.tasks.remove(place)?;
        self.bytes -= queued.bytes();
        Some(queued)
    }

    /// Adds a task, in place of itself if it waits already. Tasks mostly come in order; what was
    /// requeued is lower.
    pub(super) fn insert(&mut self, queued: Queued) {
        let seq = queued.task.seq;
        self.bytes += queued.bytes();
        if self.tasks.back().is_none_or(|last| last.task.seq < seq) {
            self.tasks.push_back(queued);
            return;
        }
        let place = self.place(seq);
        match self.tasks.get_mut(place) {
            Some(same) if same.task.seq == seq => {
                let old = std::mem::replace(same, queued);
                self.bytes -= old.bytes();
            }
            _ => self.tasks.insert(place, queued),
        }
    }

    /// Returns whether a task of this range waits.
    pub(super) fn has_any(&self, range: SeqRange) -> bool {
        self.tasks.get(self.place(range.start)).is_some_and(|queued| queued.task.seq < range.end)
    }

    /// Takes out the tasks for which `is_meant` holds.
    pub(super) fn take_out(&mut self, is_meant: impl Fn(Seq) -> bool) -> SeqRanges {
        let mut taken = Vec::new();
        self.tasks.retain(|queued| {
            let is_taken = is_meant(queued.task.seq);
            if is_taken {
                taken.push(queued.task.seq);
                self.bytes -= queued.bytes();
            }
            !is_taken
        });
        taken.into_iter().collect()
    }

    /// Takes out all tasks but the first `keep`.
    pub(super) fn take_rest(&mut self, keep: u64) -> SeqRanges {
        let keep = self.len().min(usize::try_from(keep).unwrap_or(usize::MAX));
        let bytes = &mut self.bytes;
        let rest = self.tasks.drain(keep..).map(|queued| {
            *bytes -= queued.bytes();
            queued.task.seq
        });
        rest.collect()
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    fn place(&self, seq: Seq) -> usize {
        self.tasks.partition_point(|queued| queued.task.seq < seq)
    }

    /// Panics if the tasks are out of order, or their bytes are wrong.
    pub(super) fn check_invariants(&self) {
        let seqs = self.tasks.iter().map(|queued| queued.task.seq);
        assert!(seqs.is_sorted_by(|a, b| a < b), "the queue ascends");
        assert_eq!(self.bytes, self.tasks.iter().map(Queued::bytes).sum(), "bytes that wait");
    }
}
