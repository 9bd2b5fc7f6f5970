//! What a queue has promised, by an account that takes nothing from the queue but its answers.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use tradewind_proto::message::{Status, Task};
use tradewind_store::{Retry, StoredTask, Submitted};

/// The account of a queue.
#[derive(Default)]
pub(crate) struct Account {
    /// Tasks that are there, by position.
    pub(crate) tasks: Vec<StoredTask>,
    /// By key, positions of its tasks; of all but the last the records were removed.
    keys: BTreeMap<Bytes, Vec<u64>>,
    /// Lines of stored records, by position of the task.
    pub(crate) records: BTreeMap<u64, Vec<u8>>,
    /// Tasks in the order of their records.
    pub(crate) order: Vec<u64>,
    /// Whether a machine has died of a queue that is not synced.
    pub(crate) may_have_lost: bool,
    /// Tasks whose records are `cancelled`.
    pub(crate) cancelled_records: BTreeSet<u64>,
    /// Tasks whose records are neither `ok` nor `skipped`.
    pub(crate) not_ok: BTreeSet<u64>,
    /// Tasks that somebody wanted to be run again, and under which key.
    pub(crate) asked_retries: BTreeSet<(u64, Option<Bytes>)>,
    /// Tasks whose records were removed because they are not kept any longer, or may have been.
    pub(crate) gone: BTreeSet<u64>,
    /// Whether the keys of tasks with records may be forgotten.
    forgets_keys: bool,
    /// Cancelled tasks that are promised, those that may be, and those that no worker may get any more.
    pub(crate) cancelled: BTreeSet<u64>,
    pub(crate) maybe_cancelled: BTreeSet<u64>,
    unrunnable: BTreeSet<u64>,
    /// Tasks that were dispatched.
    dispatched: BTreeSet<u64>,
    /// Whether the queue is paused, by what is promised; and what it may be.
    pub(crate) is_paused: bool,
    pub(crate) maybe_paused: Option<bool>,
    /// Whether nothing may be dispatched.
    pub(crate) is_held: bool,
    /// Promised values of the other things that are set, and what they may be.
    pub(crate) policy: Option<Bytes>,
    pub(crate) maybe_policy: Option<Bytes>,
}

impl Account {
    pub(crate) fn new(forgets_keys: bool) -> Self {
        Self { forgets_keys, ..Self::default() }
    }

    pub(crate) fn count(&self) -> u64 {
        self.tasks.len() as u64
    }

    /// Notes a task that is there.
    pub(crate) fn learn(&mut self, task: StoredTask) -> Result<(), String> {
        let position = self.count();
        if let Some(key) = &task.key {
            let positions = self.keys.entry(key.clone()).or_default();
            if let Some(before) = positions.last().copied() {
                let may_be_forgotten = self.gone.contains(&before)
                    || self.forgets_keys && self.records.contains_key(&before);
                if !may_be_forgotten {
                    return Err(format!("one key is tasks {before} and {position}"));
                }
            }
            positions.push(position);
        }
        if let Some(of) = task.options.retry_of {
            if !self.asked_retries.contains(&(of, task.key.clone())) {
                return Err(format!("task {position} is a retry of {of}, for which nobody asked"));
            }
            let before = self.tasks.get(of as usize).map(|it| &it.payload);
            if before != Some(&task.payload) {
                return Err(format!("task {position} is a retry of {of}, and another task"));
            }
            if !self.records.contains_key(&of) {
                return Err(format!("task {position} is a retry of {of}, which has no record"));
            }
        }
        self.tasks.push(task);
        Ok(())
    }

    /// Checks the answer to a task that was submitted.
    pub(crate) fn answered(&self, wanted: &StoredTask, answer: Submitted) -> Result<(), String> {
        let position = answer.position();
        let Some(task) = self.tasks.get(position as usize) else {
            return Err(format!("task {position} was promised, and is not there"));
        };
        if task != wanted {
            return Err(format!("task {position} is not the one that was submitted"));
        }
        self.named(wanted, position)
    }

    /// Checks that the last of these tasks of a request was refused because of one before it in the request.
    pub(crate) fn refused_by_itself(&self, wanted: &[StoredTask]) -> Result<(), String> {
        let Some((wanted, before)) = wanted.split_last() else { return Ok(()) };
        match before.iter().any(|other| other.key == wanted.key && other != wanted) {
            true => Ok(()),
            false => {
                Err("a task was refused for a key that no other of its request has".to_owned())
            }
        }
    }

    /// Checks that the last of these tasks of a request was refused because of this one, of the same key.
    pub(crate) fn refused(&self, wanted: &[StoredTask], position: u64) -> Result<(), String> {
        let Some(wanted) = wanted.last() else { return Ok(()) };
        match self.tasks.get(position as usize) {
            Some(task) if task != wanted && task.key == wanted.key => self.named(wanted, position),
            _ => Err(format!("a task was refused, and task {position} is no reason")),
        }
    }

    /// Checks the answer to the wish that a task is run again, for which this is to be submitted.
    pub(crate) fn judge_retry(
        &self,
        of: u64,
        wanted: &StoredTask,
        answer: &Retry,
    ) -> Result<(), String> {
        match answer {
            Retry::Unsettled if self.records.contains_key(&of) => {
                Err(format!("task {of} was said to have no record, and has one"))
            }
            Retry::Gone if !self.records.contains_key(&of) || self.may_be_retried(of) => {
                Err(format!("task {of} was said to be gone, and is to be kept"))
            }
            Retry::New(task) if task != wanted || !self.records.contains_key(&of) => {
                Err(format!("task {of} was to be run again, and another task is"))
            }
            Retry::Known(position) => self.answered(wanted, Submitted::Known(*position)),
            Retry::Unsettled | Retry::Gone | Retry::New(_) => Ok(()),
        }
    }

    /// Returns whether a task has a record that is kept, and for which it is kept as well.
    pub(crate) fn may_be_retried(&self, position: u64) -> bool {
        self.not_ok.contains(&position) && !self.gone.contains(&position)
    }

    /// Returns the last task with a key.
    pub(crate) fn last_of(&self, key: &Bytes) -> Option<u64> {
        self.keys.get(key).and_then(|positions| positions.last()).copied()
    }

    fn named(&self, wanted: &StoredTask, position: u64) -> Result<(), String> {
        let Some(positions) = wanted.key.as_ref().and_then(|key| self.keys.get(key)) else {
            return Ok(());
        };
        match positions.last() {
            Some(last) if *last == position => Ok(()),
            last => Err(format!("a key is task {position}, and was said to be {last:?}")),
        }
    }

    /// Notes that a ventilator has heard of a cancel, or begins with it.
    pub(crate) fn cancel_heard(&mut self, position: u64) {
        if !self.dispatched.contains(&position) && !self.records.contains_key(&position) {
            self.unrunnable.insert(position);
        }
    }

    pub(crate) fn dispatched(&mut self, tasks: &[Task]) -> Result<(), String> {
        if self.is_held {
            return Err(format!("{} was dispatched while the queue is paused", tasks[0].seq));
        }
        for task in tasks {
            if self.unrunnable.contains(&task.seq.0) {
                return Err(format!("{} was dispatched, and is cancelled", task.seq));
            }
            self.dispatched.insert(task.seq.0);
        }
        Ok(())
    }

    /// Notes a record that is stored.
    pub(crate) fn stored(
        &mut self,
        position: u64,
        status: Status,
        line: Vec<u8>,
    ) -> Result<(), String> {
        if position >= self.count() {
            return Err(format!("a record of task {position}, which is not there"));
        }
        self.order.push(position);
        if self.records.insert(position, line).is_some() {
            return Err(format!("a second record of task {position}"));
        }
        if !matches!(status, Status::Ok | Status::Skipped) {
            self.not_ok.insert(position);
        }
        if status == Status::Cancelled {
            self.cancelled_records.insert(position);
        }
        if self.unrunnable.contains(&position) && status != Status::Cancelled {
            return Err(format!("task {position} was cancelled before it ran, and is {status:?}"));
        }
        Ok(())
    }

    pub(crate) fn is_cancelled(&self, position: u64) -> bool {
        self.cancelled.contains(&position) || self.maybe_cancelled.contains(&position)
    }
}
