//! Progress of a job: running, stopped, over.

/// End of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Every task that was taken in has its record.
    Complete,
    /// The sink refused the job.
    Refused(String),
    /// The job was stopped before it could be resumed: the output is unchanged.
    Untouched,
}

/// Reason why no more input is taken, other than the end of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stopped {
    Draining,
    Cancelled,
}

/// Progress of a job.
#[derive(Debug, Default)]
pub(super) struct Course {
    pub(super) stopped: Option<Stopped>,
    /// The job was stopped because enough tasks had ended in the way for which it was to be halted.
    pub(super) halted: bool,
    /// The sink has flushed all records.
    pub(super) is_complete: bool,
    pub(super) ended: Option<Ended>,
}
