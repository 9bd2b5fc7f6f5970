//! Limits that tasks have of their own.

use std::collections::BTreeMap;

use crate::dispatcher::TaskLimits;
use crate::{Seq, SeqRange, SeqSet};

/// Limits of the tasks that have their own, until the tasks are settled. Both maps are empty in most jobs.
#[derive(Debug, Default)]
pub(in crate::dispatcher) struct OwnLimits {
    retries: BTreeMap<Seq, u32>,
    timeouts_us: BTreeMap<Seq, u64>,
}

impl OwnLimits {
    /// Returns the task's own number of retries.
    pub(in crate::dispatcher) fn retries(&self, seq: Seq) -> Option<u32> {
        self.retries.get(&seq).copied()
    }

    /// Returns the task's own timeout, in microseconds.
    pub(in crate::dispatcher) fn timeout_us(&self, seq: Seq) -> Option<u64> {
        self.timeouts_us.get(&seq).copied()
    }

    /// Returns those of these tasks that have their own timeout, with it in microseconds, ascending by seq.
    pub(in crate::dispatcher) fn timeouts_us(&self, seqs: &SeqSet) -> Vec<(Seq, u64)> {
        if self.timeouts_us.is_empty() {
            return Vec::new();
        }
        let ranges = seqs.to_ranges();
        let own = ranges.as_slice().iter().map(|range| range.start..range.end);
        own.flat_map(|range| self.timeouts_us.range(range).map(|(seq, us)| (*seq, *us))).collect()
    }

    /// Returns the number of retries and timeouts that are kept.
    pub(super) fn count(&self) -> u64 {
        (self.retries.len() + self.timeouts_us.len()) as u64
    }

    /// Returns the first task from a seq on that has limits of its own.
    pub(super) fn first_from(&self, seq: Seq) -> Option<Seq> {
        let retries = self.retries.range(seq..).next().map(|(seq, _)| *seq);
        let timeout = self.timeouts_us.range(seq..).next().map(|(seq, _)| *seq);
        retries.into_iter().chain(timeout).min()
    }

    pub(super) fn insert(&mut self, seq: Seq, limits: TaskLimits) {
        let TaskLimits { retries, timeout } = limits;
        self.retries.extend(retries.map(|retries| (seq, retries)));
        let us = timeout.map(|timeout| u64::try_from(timeout.as_micros()).unwrap_or(u64::MAX));
        self.timeouts_us.extend(us.map(|us| (seq, us)));
    }

    /// Forgets the limits of all tasks of a range.
    pub(super) fn remove_range(&mut self, range: SeqRange) {
        while let Some(seq) = self.first_from(range.start).filter(|seq| *seq < range.end) {
            self.retries.remove(&seq);
            self.timeouts_us.remove(&seq);
        }
    }

    /// Forgets the limits of all tasks from a seq on.
    pub(super) fn cut_off(&mut self, end: Seq) {
        self.retries.split_off(&end);
        self.timeouts_us.split_off(&end);
    }
}
