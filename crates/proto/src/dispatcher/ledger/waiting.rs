//! Tasks that wait to be dispatched again, by the class that decides where they may go.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Seq, Time};

/// Class of a task that is to be dispatched again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dispatcher) enum Class {
    /// Any worker may run it.
    Any,
    /// A suspect: no other suspect should be where it runs.
    Beside,
    /// A suspect whose next loss would be its last: no other task may be where it runs.
    Alone,
    /// A suspect with all the losses that it may have. It is not known yet whether these workers
    /// died.
    Judged,
    /// It failed somewhere, and there is a worker at which it did not. The task waits for that
    /// worker until this time, or for as long as there is one.
    Elsewhere(Option<Time>),
    /// Too large for one of the workers; for all of them since this time.
    Large(Time),
}

/// Sets of waiting tasks, one for each class.
#[derive(Debug, Default)]
pub(in crate::dispatcher) struct Waiting {
    pub(in crate::dispatcher) any: BTreeSet<Seq>,
    pub(in crate::dispatcher) beside: BTreeSet<Seq>,
    pub(in crate::dispatcher) alone: BTreeSet<Seq>,
    pub(in crate::dispatcher) judged: BTreeSet<Seq>,
    pub(in crate::dispatcher) elsewhere: BTreeMap<Seq, Option<Time>>,
    pub(in crate::dispatcher) large: BTreeMap<Seq, Time>,
}

impl Waiting {
    pub(super) fn insert(&mut self, seq: Seq, class: Class) {
        self.remove(seq);
        match class {
            Class::Any => {
                self.any.insert(seq);
            }
            Class::Beside => {
                self.beside.insert(seq);
            }
            Class::Alone => {
                self.alone.insert(seq);
            }
            Class::Judged => {
                self.judged.insert(seq);
            }
            Class::Elsewhere(until) => {
                self.elsewhere.insert(seq, until);
            }
            Class::Large(since) => {
                self.large.insert(seq, since);
            }
        }
    }

    pub(super) fn remove(&mut self, seq: Seq) {
        // As nearly always, where any task waits at all.
        if self.any.remove(&seq) || !self.is_special() {
            return;
        }
        let _ = self.beside.remove(&seq)
            || self.alone.remove(&seq)
            || self.judged.remove(&seq)
            || self.elsewhere.remove(&seq).is_some()
            || self.large.remove(&seq).is_some();
    }

    pub(in crate::dispatcher) fn contains(&self, seq: Seq) -> bool {
        self.any.contains(&seq)
            || self.beside.contains(&seq)
            || self.alone.contains(&seq)
            || self.judged.contains(&seq)
            || self.elsewhere.contains_key(&seq)
            || self.large.contains_key(&seq)
    }

    /// Returns whether any task has a class of its own.
    pub(in crate::dispatcher) fn is_special(&self) -> bool {
        !(self.beside.is_empty()
            && self.alone.is_empty()
            && self.judged.is_empty()
            && self.elsewhere.is_empty()
            && self.large.is_empty())
    }

    /// Returns the number of tasks in the sets.
    pub(super) fn len(&self) -> usize {
        let plain = self.any.len() + self.beside.len() + self.alone.len() + self.judged.len();
        plain + self.elsewhere.len() + self.large.len()
    }

    /// Returns the number of tasks that may go out when there is room for them.
    pub(in crate::dispatcher) fn count(&self) -> u64 {
        let suspects = self.beside.len() + self.alone.len();
        (self.any.len() + suspects + self.elsewhere.len()) as u64
    }

    /// Drops the tasks from a seq on.
    pub(super) fn cut_off(&mut self, end: Seq) {
        self.any.split_off(&end);
        self.beside.split_off(&end);
        self.alone.split_off(&end);
        self.judged.split_off(&end);
        self.elsewhere.split_off(&end);
        self.large.split_off(&end);
    }
}
