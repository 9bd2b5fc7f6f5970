//! Why something could not be, or had to end.

use tradewind_lanes::{BindError, EndpointError};
use tradewind_node::exit::{
    self, CLOSED, CONNECT, Fatal, INPUT, LISTEN, OUTPUT, REFUSED, STOPPED, SYSTEM, TASKS_FAILED,
    USAGE,
};
use tradewind_proto::limits::SLOTS_MAX;
use tradewind_proto::message::Status;

/// Why a ventilator, a worker or a sink could not be, or had to end.
///
/// One line each, which says what, where, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// One of the endpoints is none.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// A name that could not be shown, or that does not fit.
    #[error("{0}")]
    Name(String),
    /// No tasks at once, or too many.
    #[error("a worker has 1 to {SLOTS_MAX} slots, not {0}")]
    Slots(u32),
    /// A port cannot be listened on.
    #[error(transparent)]
    Listen(#[from] BindError),
    /// There are no keys, or they cannot be used.
    #[error("{0:#}")]
    Keys(anyhow::Error),
    /// There are no more tasks to be had. Those that were handed out have their records.
    #[error("{0:#}")]
    Input(anyhow::Error),
    /// The output cannot be opened or written.
    #[error("{0:#}")]
    Output(anyhow::Error),
    /// A peer was not reached in time.
    #[error("{0:#}")]
    Unreachable(anyhow::Error),
    /// The sink will not take the job, or the ventilator gave it up before all was stored.
    #[error("{0:#}")]
    Refused(anyhow::Error),
    /// It was stopped before its end, by a [`Handle`](crate::Handle) or a signal.
    #[error("stopped before the end")]
    Stopped,
    /// Something else went wrong on this machine.
    #[error("{0:#}")]
    System(anyhow::Error),
    /// A task has no output.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// A task's output is not what was expected.
    #[error("cannot decode the output of task {seq}: {reason}")]
    Decode {
        /// The task's place in the job, from 0.
        seq: u64,
        /// Error of the codec.
        reason: String,
    },
}

/// Why a task has no output.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("task {seq} {}: {error}", word(*.status))]
pub struct TaskError {
    /// The task's place in the job, from 0.
    pub seq: u64,
    /// Status with which it ended; never [`Status::Ok`].
    pub status: Status,
    /// The end of its stderr, or a reason.
    pub error: String,
}

fn word(status: Status) -> &'static str {
    match status {
        Status::Ok => "is ok",
        Status::Failed => "failed",
        Status::TimedOut => "timed out",
        Status::Lost => "was lost",
        Status::Cancelled => "was cancelled",
        Status::Skipped => "was skipped",
    }
}

impl Error {
    /// Returns the exit code of the `tradewind` command for this error: see the table in
    /// `docs/src/exit-codes.md`.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Endpoint(_) | Self::Name(_) | Self::Slots(_) | Self::Keys(_) => USAGE,
            Self::Listen(_) => LISTEN,
            Self::Input(_) => INPUT,
            Self::Output(_) => OUTPUT,
            Self::Unreachable(_) => CONNECT,
            Self::Refused(_) => REFUSED,
            Self::Stopped => STOPPED,
            Self::System(_) => SYSTEM,
            Self::Task(_) | Self::Decode { .. } => TASKS_FAILED,
        }
    }

    pub(crate) fn keys(Fatal { error, .. }: Fatal) -> Self {
        Self::Keys(error)
    }

    pub(crate) fn system(error: impl Into<anyhow::Error>) -> Self {
        Self::System(error.into())
    }
}

impl From<Fatal> for Error {
    fn from(Fatal { code, error }: Fatal) -> Self {
        match code {
            exit::STOPPED => Self::Stopped,
            INPUT => Self::Input(error),
            OUTPUT | CLOSED => Self::Output(error),
            CONNECT => Self::Unreachable(error),
            REFUSED => Self::Refused(error),
            LISTEN => error.downcast().map_or_else(Self::System, Self::Listen),
            _ => Self::System(error),
        }
    }
}
