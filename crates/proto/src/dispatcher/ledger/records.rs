//! Records that no worker of this stage made, until they are stored.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::limits::{BATCH_BYTES_MAX, BATCH_TASKS_MAX};
use crate::message::{Status, TaskResult};
use crate::{Attempt, Seq, TaskHash};

/// A record of a task that was given up.
#[derive(Debug)]
pub(in crate::dispatcher) enum Record {
    /// The sink is to write the record itself.
    GivenUp(GivenUp),
    /// The record was made in an earlier stage.
    Forwarded(Forwarded),
}

/// Data from which the sink writes a record itself.
#[derive(Clone, Debug)]
pub(in crate::dispatcher) struct GivenUp {
    pub(in crate::dispatcher) attempt: Attempt,
    pub(in crate::dispatcher) task_hash: TaskHash,
    pub(in crate::dispatcher) status: Status,
    pub(in crate::dispatcher) error: String,
    /// The task was cancelled by itself: its record does not wait for its turn to be dispatched.
    pub(in crate::dispatcher) is_at_once: bool,
}

/// Result of an earlier stage that is forwarded unchanged.
#[derive(Debug)]
pub(in crate::dispatcher) struct Forwarded {
    pub(in crate::dispatcher) stage: Arc<str>,
    pub(in crate::dispatcher) worker: Arc<str>,
    pub(in crate::dispatcher) result: TaskResult,
}

/// Records that only the ledger changes.
#[derive(Debug, Default)]
pub(in crate::dispatcher) struct Records {
    all: BTreeMap<Seq, Record>,
    forwarded_bytes: u64,
    /// Forwarded records that have yet to be sent to the sink.
    unsent: BTreeSet<Seq>,
}

impl Records {
    pub(in crate::dispatcher) fn given_up(&self, seq: Seq) -> Option<&GivenUp> {
        match self.all.get(&seq)? {
            Record::GivenUp(given_up) => Some(given_up),
            Record::Forwarded(_) => None,
        }
    }

    /// Returns the records that the sink is to write itself, ascending.
    pub(in crate::dispatcher) fn all_given_up(&self) -> impl Iterator<Item = (Seq, &GivenUp)> {
        self.all.iter().filter_map(|(seq, record)| match record {
            Record::GivenUp(given_up) => Some((*seq, given_up)),
            Record::Forwarded(_) => None,
        })
    }

    /// Returns the number of tasks with such a record.
    pub(in crate::dispatcher) fn count(&self) -> u64 {
        self.all.len() as u64
    }

    pub(super) fn forwarded_bytes(&self) -> u64 {
        self.forwarded_bytes
    }

    pub(super) fn contains(&self, seq: Seq) -> bool {
        self.all.contains_key(&seq)
    }

    pub(super) fn insert(&mut self, seq: Seq, record: Record) {
        if let Record::Forwarded(forwarded) = &record {
            self.forwarded_bytes += forwarded.result.held_bytes();
            self.unsent.insert(seq);
        }
        self.all.insert(seq, record);
    }

    pub(super) fn remove(&mut self, seq: Seq) {
        if let Some(Record::Forwarded(forwarded)) = self.all.remove(&seq) {
            self.forwarded_bytes -= forwarded.result.held_bytes();
            self.unsent.remove(&seq);
        }
    }

    pub(super) fn cut_off(&mut self, end: Seq) {
        let cut: Vec<Seq> = self.all.range(end..).map(|(seq, _)| *seq).collect();
        cut.into_iter().for_each(|seq| self.remove(seq));
    }

    pub(super) fn send_again(&mut self) {
        let forwarded =
            self.all.iter().filter(|(_, record)| matches!(record, Record::Forwarded(_)));
        self.unsent = forwarded.map(|(seq, _)| *seq).collect();
    }

    /// Returns a batch of forwarded records of one stage and one worker, after the names of both.
    pub(super) fn next_forwarded(&mut self) -> Option<(String, String, Vec<TaskResult>)> {
        let mut results: Vec<TaskResult> = Vec::new();
        let (mut from, mut bytes) = (None, 0);
        while let Some(seq) = self.unsent.first()
            && let Some(Record::Forwarded(Forwarded { stage, worker, result })) = self.all.get(seq)
        {
            let (of_stage, of_worker) = from.get_or_insert_with(|| (stage.clone(), worker.clone()));
            bytes += result.payload_bytes();
            let is_full = results.len() == BATCH_TASKS_MAX || bytes > BATCH_BYTES_MAX as u64;
            let is_other = of_stage != stage || of_worker != worker;
            if (is_full || is_other) && !results.is_empty() {
                break;
            }
            results.push(result.clone());
            self.unsent.pop_first();
        }
        let (stage, worker) = from.filter(|_| !results.is_empty())?;
        Some((stage.to_string(), worker.to_string(), results))
    }

    pub(super) fn check_invariants(&self, given_up: usize) {
        assert_eq!(self.all.len(), given_up, "records of tasks that were given up");
        let forwarded = self.all.values().filter_map(|record| match record {
            Record::GivenUp(_) => None,
            Record::Forwarded(forwarded) => Some(forwarded.result.held_bytes()),
        });
        assert_eq!(self.forwarded_bytes, forwarded.sum::<u64>(), "bytes of forwarded records");
        assert!(self.unsent.iter().all(|seq| self.all.contains_key(seq)), "unsent records");
    }
}
