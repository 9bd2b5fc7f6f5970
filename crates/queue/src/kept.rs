//! What is kept of the records of a queue, for a task log on another host.

use std::ops::Range;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Number of tasks that can be asked about at a time.
pub const KEPT_TASKS_MAX: u64 = 16_384;

/// A question about the records of a range of tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptAsk {
    /// The tasks, [`KEPT_TASKS_MAX`] of them at most.
    pub tasks: Range<u64>,
    /// Time within which records were stored from whose first on keys are remembered; `None`: from the first that
    /// is kept.
    pub within: Option<Duration>,
}

/// What is kept of the records of a range of tasks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Id of the job whose records they are, in hexadecimal; `None` before the first.
    pub job: Option<String>,
    /// Position from which on a record's key is remembered.
    pub first: u64,
    /// Position after the last record.
    pub end: u64,
    /// Number of tasks of the whole queue that have their records, whether or not they are kept.
    pub stored: u64,
    /// Whether one of the tasks has no record, or one that is kept and with which it may be retried.
    pub needed: bool,
    /// Position of each task's record; `None` if it is not kept. None at all if a task is needed.
    pub positions: Vec<Option<u64>>,
}
