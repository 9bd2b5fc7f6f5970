//! Limits that a job sets for its tasks and its workers, and limits of single tasks.

use std::time::Duration;

use super::{Halt, Timeout};
use crate::limits::{LOSSES_MAX, ROLL_CALL_GRACE, WORKER_TIMEOUT};

/// Limits that a job sets for its tasks and its workers, in each of its stages.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Policy {
    /// Number of times that a failed task is retried.
    pub retries: u32,
    /// Time that an attempt may take; `None` for any.
    pub timeout: Option<Timeout>,
    /// Number of lost workers after which a task is recorded as `lost`.
    pub losses_max: u32,
    /// Number of tasks that may be out at the workers at once, in sum; `None` for any. What a worker has queued or
    /// prefetched is out as well, so the number that runs may be lower. With 0 none is dispatched.
    pub max_running: Option<u64>,
    /// Number of failed tasks after which a worker gets no more, while there is another worker;
    /// `None` for any.
    pub worker_failures_max: Option<u64>,
    /// Silence after which a worker is declared lost, provided the sink was heard meanwhile.
    pub worker_timeout: Duration,
    /// Time that a resumed job, or a relay that is new to its job, waits for workers that may hold
    /// its tasks, where the sink is too new to know of them.
    pub resume_wait: Duration,
    /// When to end the job before its input does; of the first stage alone.
    pub halt: Option<Halt>,
}

impl Default for Policy {
    /// One attempt, which may take any time, and the limits' numbers for the rest.
    fn default() -> Self {
        Self {
            retries: 0,
            timeout: None,
            losses_max: LOSSES_MAX,
            max_running: None,
            worker_failures_max: None,
            worker_timeout: WORKER_TIMEOUT,
            resume_wait: ROLL_CALL_GRACE,
            halt: None,
        }
    }
}

/// Limits that a task has of its own, above those of the [`Policy`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskLimits {
    /// Number of times that the task is retried if it fails; `None` for the policy's number.
    pub retries: Option<u32>,
    /// Time that an attempt may take; `None` for the policy's time. Tasks with the same timeout travel together:
    /// where each has another one, each is a message.
    pub timeout: Option<Duration>,
}
