//! How far the job is: running, stopped, over.

/// How the job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Every task that was taken in has its record.
    Complete,
    /// The sink would not have the job.
    Refused(String),
    /// It was stopped before it could be resumed: all is as it was.
    Untouched,
}

/// Why no more input is taken, if not for its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stopped {
    Draining,
    Cancelled,
}

/// How far the job is.
#[derive(Debug, Default)]
pub(super) struct Course {
    pub(super) stopped: Option<Stopped>,
    /// It was stopped because enough tasks had ended in the way that it was to be halted for.
    pub(super) halted: bool,
    /// The sink has flushed all there is.
    pub(super) is_complete: bool,
    pub(super) ended: Option<Ended>,
}
