//! Facts about a job that ventilator and sink share.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

use super::Start;
use crate::limits::SEQS_MAX;
use crate::{JobId, JobKey, Seq};

/// Job for which the output is to be made ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    /// Id that the ventilator asks for.
    pub job: JobId,
    /// Name of the job, for display.
    pub name: String,
    /// Start of the job: what it means for the output.
    pub start: Start,
    /// Stage whose results come; empty if it has no name.
    pub stage: String,
    /// Whether none of its tasks was ever dispatched.
    pub is_untouched: bool,
    /// Key of the tags of its tasks, unless the output has a key of the job already. `None` in a relay,
    /// whose keys are made from the sink's.
    pub key: Option<JobKey>,
}

/// Tasks that count for a halt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HaltOn {
    /// Tasks whose status is not `ok`.
    Fail,
    /// Tasks whose status is `ok`.
    Success,
    /// All tasks that have ended.
    Done,
}

/// Reads a number of tasks.
pub(super) fn deserialize_total<'de, D: Deserializer<'de>>(total: D) -> Result<u64, D::Error> {
    match u64::deserialize(total)? {
        total if total <= SEQS_MAX => Ok(total),
        _ => Err(D::Error::custom("a job has too many tasks")),
    }
}

/// Returns the reason why a job cannot be resumed with another input.
pub(crate) fn changed_input(seq: Seq) -> String {
    let place = seq.0 + 1;
    format!(
        "the input is not the one that this job began with: number {place} of its tasks \
         was another one (seq {seq}); give the same input, or --overwrite without --resume to start over"
    )
}
