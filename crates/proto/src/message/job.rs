//! What ventilator and sink both know of a job.

use serde::{Deserialize, Serialize};

use super::Start;
use crate::{JobId, Seq};

/// A job that the output is to be made ready for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    /// What the ventilator calls it.
    pub job: JobId,
    /// Its name.
    pub name: String,
    /// What it means for the output.
    pub start: Start,
    /// The stage whose results come; empty if it has no name.
    pub stage: String,
    /// None of its tasks was ever handed out.
    pub is_untouched: bool,
}

/// Which tasks count for a halt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HaltOn {
    /// Those whose status is not `ok`.
    Fail,
    /// Those whose status is `ok`.
    Success,
    /// All that have ended.
    Done,
}

/// Why a job cannot go on with another input.
pub(crate) fn changed_input(seq: Seq) -> String {
    let place = seq.0 + 1;
    format!(
        "the input is not the one that this job began with: number {place} of its tasks \
         was another one (seq {seq}); give the same input, or --overwrite without --resume to begin anew"
    )
}
